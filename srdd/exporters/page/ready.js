"use strict";
// The last script, after Plotly.
drawVisible();
