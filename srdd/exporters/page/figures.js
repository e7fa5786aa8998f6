"use strict";
// Figures are drawn when they come into view and drawn anew when the choice or the theme changes.
// Not here: what a figure shows; each gives {traces, layout, caption, label, table, click,
// keys} or a sentence why there is none. `label` says in words what is to be seen, for who does not see it.

const figures = [];
const DASHES = ["solid", "dot", "longdash", "dashdot", "longdashdot", "solid"];
const MARKERS = ["circle", "square", "diamond", "triangle-up", "x", "star"];
const PATTERNS = ["/", "x", ""];

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Colour, dash and marker of a format, so that it is known in grey too. */
function styleOf(spec) {
  const place = page.formats.findIndex((row) => row.spec === spec);
  const colours = css("--series").split(" ");
  return {
    color: colours[place % colours.length],
    dash: DASHES[place % DASHES.length],
    symbol: MARKERS[place % MARKERS.length],
  };
}

function isDark() {
  return document.documentElement.dataset.theme === "dark";
}

/** Cells that are worse stand out from the page: dark on light, bright on dark. */
function scaleFor(metric) {
  const worseIsHigh = metric.better !== "up";
  return { colorscale: "Cividis", reversescale: isDark() ? !worseIsHigh : worseIsHigh };
}

function merged(base, more) {
  const result = { ...base };
  for (const [key, value] of Object.entries(more || {})) {
    const both = value && typeof value === "object" && !Array.isArray(value) && result[key];
    result[key] = both ? merged(result[key], value) : value;
  }
  return result;
}

function baseLayout() {
  const axis = { gridcolor: css("--line"), linecolor: css("--line"), zeroline: false, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: css("--text"), family: "system-ui, sans-serif", size: 13 },
    margin: { l: 58, r: 14, t: 30, b: 46 },
    height: 400,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--text") }, align: "left" },
    hovermode: "closest",
    dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",  // a finger scrolls the page
    xaxis: axis,
    yaxis: axis,
  };
}

/** Add a figure to a section. `build` is called when it is drawn. */
function figure(section, name, build) {
  const plot = el("div", { class: "figure", id: `figure-${name}`, role: "img", tabindex: 0, keydown: (event) => pressed(event, entry) });
  const said = el("p", { class: "said", "aria-live": "polite" });
  const caption = el("p", { class: "soft" });
  const numbers = el("div", {});
  const details = el("details", { toggle: () => details.open && fillNumbers(entry) },
    el("summary", {}, "The numbers of this figure"), numbers);
  section.append(caption, plot, said, details);
  const entry = { plot, said, caption, numbers, details, build, stale: true, visible: false, made: null, at: null };
  figures.push(entry);
  watcher.observe(plot);
  return entry;
}

const watcher = new IntersectionObserver((seen) => {
  for (const change of seen) {
    const entry = figures.find((one) => one.plot === change.target);
    entry.visible = change.isIntersecting;
    if (entry.visible) draw(entry);
  }
}, { rootMargin: "400px" });

function draw(entry) {
  if (!entry.stale || !window.Plotly) return;  // Plotly comes last in the file, so that the answers show at once
  entry.stale = false;
  const made = entry.build();
  entry.made = made;
  entry.at = null;
  entry.said.textContent = "";
  if (typeof made === "string") {
    Plotly.purge(entry.plot);
    put(entry.plot, el("p", { class: "soft" }, made));
    entry.caption.textContent = "";
    entry.plot.setAttribute("aria-label", made);
    entry.details.hidden = true;
    return;
  }
  if (!entry.plot.classList.contains("js-plotly-plot")) put(entry.plot);
  entry.caption.textContent = made.caption;
  entry.plot.setAttribute("aria-label", made.label);
  entry.details.hidden = !made.table;
  if (entry.details.open) fillNumbers(entry);
  Plotly.react(entry.plot, made.traces, merged(baseLayout(), made.layout), {
    responsive: true,
    displayModeBar: false,
  });
  entry.plot.removeAllListeners("plotly_click");
  if (made.click) entry.plot.on("plotly_click", (event) => made.click(event.points[0]));
}

function fillNumbers(entry) {
  const made = entry.made;
  if (made && made.table) put(entry.numbers, made.table.note ? el("p", { class: "soft" }, made.table.note) : null, table(made.table.headings, made.table.rows));
}

function redraw() {
  for (const entry of figures) {
    entry.stale = true;
    if (entry.visible) draw(entry);
  }
}

listeners.push(redraw);

/** Called when Plotly is there. */
function drawVisible() {
  figures.filter((entry) => entry.visible).forEach(draw);
  document.documentElement.dataset.ready = "yes";
}

// On paper: light, as wide as the sheet, and nothing missing because it was never scrolled to.
let themeOnScreen = null;
window.addEventListener("beforeprint", () => {
  themeOnScreen = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  for (const entry of figures) {
    entry.stale = true;
    draw(entry);
    if (entry.plot.classList.contains("js-plotly-plot")) Plotly.relayout(entry.plot, { width: 680 });
  }
});
window.addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = themeOnScreen || "light";
  for (const entry of figures) {
    if (entry.plot.classList.contains("js-plotly-plot")) Plotly.relayout(entry.plot, { width: null, autosize: true });
  }
  redraw();
});
