"use strict";
// Figures by keyboard: a figure takes the focus, arrow keys move a highlight, its value is said, Enter opens what a
// click opens. A figure takes part with `keys`: {columns, rows, text(column, row), mark(column, row), open(column, row)}.

const MOVES = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

function pressed(event, entry) {
  const keys = entry.made && entry.made.keys;
  if (!keys || event.ctrlKey || event.altKey || event.metaKey) return;
  const at = entry.at;
  if (event.key === "Escape" && at) highlight(entry, null);
  else if (event.key === "Enter" && at && keys.open) keys.open(...at);
  else if (event.key === "Home") highlight(entry, [0, at ? at[1] : 0]);
  else if (event.key === "End") highlight(entry, [keys.columns - 1, at ? at[1] : 0]);
  else if (MOVES[event.key] && !at) highlight(entry, [0, 0]);
  else if (MOVES[event.key]) {
    const [right, down] = MOVES[event.key];
    highlight(entry, [within(at[0] + right, keys.columns), within(at[1] + down, keys.rows)]);
  } else return;
  event.preventDefault();
}

function within(place, count) {
  return Math.max(0, Math.min(count - 1, place));
}

/** Mark a place and say it; null: none. */
function highlight(entry, at) {
  const { keys, layout } = entry.made;
  entry.at = at;
  entry.said.textContent = at ? keys.text(...at) : "";
  Plotly.relayout(entry.plot, { shapes: [...(layout.shapes || []), ...(at ? [keys.mark(...at)] : [])] });
}

/** The mark of one place on the x axis, as high as the figure. */
function upright(x, half) {
  return {
    type: "rect", xref: "x", yref: "paper", x0: x - half, x1: x + half, y0: 0, y1: 1, line: { width: 2, color: css("--link") },
    fillcolor: "rgba(0,0,0,0)",
  };
}

/** "from 9.70 (layer 3) to 41.74 (layer 11, the worst)": the ends of a series in words; `worst` is "low" or "high". */
function ends(values, place, text, worst) {
  const known = values.map((value, i) => i).filter((i) => typeof values[i] === "number");
  if (!known.length) return "no numbers";
  const low = known.reduce((best, i) => (values[i] < values[best] ? i : best));
  const high = known.reduce((best, i) => (values[i] > values[best] ? i : best));
  if (values[low] === values[high]) return `${text(values[low])} everywhere`;
  const named = (i, end) => `${text(values[i])} (${place(i)}${worst === end ? ", the worst" : ""})`;
  return `from ${named(low, "low")} to ${named(high, "high")}`;
}

/** The same for a metric, with its unit. */
function endsOf(name, values, place) {
  const worst = { up: "low", down: "high" }[metricOf(name).better];
  return ends(values, place, (value) => `${show(name, value)}${unitOf(name)}`, worst);
}

const HOW = "Arrow keys move, Enter opens.";
