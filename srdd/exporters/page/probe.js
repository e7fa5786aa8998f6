"use strict";
// How much noise the model bears, from a probe document: a measure over sigma, a line per mode, and where each breaks.
// Not here: means and errors over seeds; they come with the data.

function probeSection(section) {
  const found = page.probe;
  const shapes = found.charts.flatMap((chart, i) => chart.profiles.map((profile, j) => [`${i} ${j}`, `${profile.name} noise on ${short(chart.target, 60)}`]));
  const choice = { measure: found.measures[0].name, shape: shapes.length ? shapes[0][0] : "" };
  const set = (name) => (value) => {
    choice[name] = value;
    entry.stale = true;
    draw(entry);
  };
  section.append(el("p", { class: "soft name" }, `${found.facts}.`), found.warnings.length ? list(found.warnings) : "",
    el("div", { class: "row only-screen" },
      labelled("Show", select("probe-measure", found.measures.map((m) => [m.name, m.title]), choice.measure, set("measure"))),
      labelled("Noise", select("probe-shape", shapes, choice.shape, set("shape")))));
  const entry = figure(section, "probe", () => probeFigure(choice));
  const numbers = ["sigma", "95 % over seeds", "% of rms"].map((text) => ({ text, number: true }));
  section.append(el("h3", {}, `Where it breaks: ${found.limit}`),
    table(["mode", "weights", "noise", ...numbers, "note"], found.breaks.map((row) => [
      { text: row.mode, class: "name brief" }, { text: row.target, class: "name brief" }, row.profile,
      ...[row.sigma === null ? "-" : significant(row.sigma, 3), breakRange(row), row.relative === null ? "-" : row.relative.toFixed(1)]
        .map((text) => ({ text, number: true })),
      { text: row.note, class: "name wide" },
    ]), { id: "breaks" }), found.said.length ? list(found.said) : "");
}

function breakRange(row) {
  return row.interval === null ? "-" : `${significant(row.interval[0], 3)} to ${significant(row.interval[1], 3)}`;
}

function modeStyle(place) {
  const colours = css("--series").split(" ");
  return { color: colours[place % colours.length], dash: DASHES[place % DASHES.length], symbol: MARKERS[place % MARKERS.length] };
}

function probeFigure(choice) {
  const found = page.probe;
  const [nth, which] = choice.shape.split(" ").map(Number);
  const chart = found.charts[nth];
  if (!chart || !chart.profiles.length) return "The probe document has no trials.";
  const measure = found.measures.find((m) => m.name === choice.measure);
  const profile = chart.profiles[which];
  const others = chart.profiles.filter((one) => one !== profile);
  const breaks = found.breaks.filter((row) => row.target === chart.target && row.profile === profile.name && row.sigma !== null);
  const text = (curve, i) => (curve.lost[i] ? `collapsed with ${curve.lost[i]} of ${found.seeds} seeds` : meanText(curve[measure.name], i, measure.digits));
  const range = [Math.log10(Math.min(...chart.places)) - 0.08, Math.log10(Math.max(...chart.places)) + 0.08];
  const lost = profile.curves.some((curve) => curve.lost.some((count) => count > 0));
  const words = breaks.map((row) => `${row.mode} breaks at sigma ${significant(row.sigma, 3)}${row.interval ? ` (${breakRange(row)})` : ""}`);
  const never = found.breaks.filter((row) => row.target === chart.target && row.profile === profile.name && row.sigma === null)
    .map((row) => `${row.mode}: no break${row.note ? ` (${row.note})` : ""}`);
  return {
    traces: [
      ...others.flatMap((other) => other.curves.map((curve, i) => probeLine(chart, curve, i, measure, other.name, text, true))),
      ...profile.curves.map((curve, i) => probeLine(chart, curve, i, measure, profile.name, text, false)),
      ...profile.curves.map((curve, i) => collapses(chart, curve, i, text)).filter(Boolean),
    ],
    layout: {
      xaxis: { title: { text: "sigma (logarithmic; 0 at the left)" }, type: "log", range, tickvals: chart.places, ticktext: chart.ticks, minor: { ticks: "" } },
      yaxis: { title: { text: plain(measure.title) } },
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
      height: 430,
      shapes: breaks.flatMap((row) => breakShapes(row, found.modes.indexOf(row.mode))),
    },
    caption: `${measure.title} under ${profile.name} noise on ${chart.target} weights, mean over seeds; bars: one standard error over seeds. `
      + `Upright lines: where it breaks (${found.limit}); shaded: the 95 % interval of that.${others.length ? ` Thin open lines: ${others.map((o) => o.name).join(", ")} noise.` : ""}`
      + `${lost ? " A cross at the top: the model collapsed." : ""}`,
    label: `Line chart: ${measure.title} over sigma, ${profile.name} noise on ${chart.target}. ${profile.curves.map((curve) =>
      `${curve.mode} ${ends(curve[measure.name].mean, (i) => `sigma ${chart.ticks[i]}`, (v) => v.toFixed(measure.digits))}`).join("; ")}. `
      + `${[...words, ...never].join("; ")}. Arrow keys move.`,
    table: {
      headings: [{ text: "sigma", number: true }, { text: "% of rms", number: true },
        ...profile.curves.map((curve) => ({ text: curve.mode, number: true, class: "name" }))],
      rows: chart.ticks.map((tick, i) => [{ text: tick, number: true }, { text: percentOf(profile.curves[0], i), number: true },
        ...profile.curves.map((curve) => ({ text: text(curve, i), number: true }))]),
    },
    keys: {
      columns: chart.ticks.length,
      rows: profile.curves.length,
      text: (i, row) => `sigma ${chart.ticks[i]}, ${profile.curves[row].mode}: ${text(profile.curves[row], i)}`,
      mark: (i) => ({ ...upright(chart.places[i], 0), type: "line" }),
    },
  };
}

function percentOf(curve, i) {
  return curve && typeof curve.relative[i] === "number" ? (100 * curve.relative[i]).toFixed(1) : "-";
}

function meanText(given, i, digits) {
  if (typeof given.mean[i] !== "number") return "-";
  return given.mean[i].toFixed(digits) + (typeof given.error[i] === "number" ? ` ± ${given.error[i].toFixed(digits)}` : "");
}

function probeLine(chart, curve, place, measure, profile, text, thin) {
  const style = modeStyle(place);
  return {
    x: chart.places, y: curve[measure.name].mean, mode: "lines+markers", name: plain(thin ? `${short(curve.mode, 40)}, ${profile}` : short(curve.mode, 40)),
    error_y: { type: "data", array: curve[measure.name].error.map((error) => error || 0), thickness: thin ? 0.6 : 1.2, width: 4 },
    customdata: chart.ticks.map((tick, i) => plain(`${short(curve.mode, 40)}, ${profile}, sigma ${tick}: ${text(curve, i)}`)),
    hovertemplate: "%{customdata}<extra></extra>",
    line: { color: style.color, dash: thin ? "dot" : style.dash, width: thin ? 1 : 2.2 },
    marker: { symbol: thin ? `${style.symbol}-open` : style.symbol, size: 8, color: style.color },
  };
}

/** Crosses at the top of the figure, one height per mode. */
function collapses(chart, curve, place, text) {
  const at = curve.lost.map((count, i) => i).filter((i) => curve.lost[i]);
  if (!at.length) return null;
  return {
    x: at.map((i) => chart.places[i]), y: at.map(() => 0.97 - 0.05 * place), yaxis: "y2", mode: "markers",
    name: plain(`${short(curve.mode, 40)}: collapsed`), marker: { symbol: "x", size: 12, color: modeStyle(place).color },
    customdata: at.map((i) => plain(`${short(curve.mode, 40)}, sigma ${chart.ticks[i]}: ${text(curve, i)}`)),
    hovertemplate: "%{customdata}<extra></extra>",
  };
}

function breakShapes(row, place) {
  const colour = modeStyle(Math.max(0, place)).color;
  const upTo = { xref: "x", yref: "paper", y0: 0, y1: 1, layer: "below" };
  const line = { ...upTo, type: "line", x0: row.sigma, x1: row.sigma, line: { width: 1.5, dash: "dash", color: colour } };
  if (row.interval === null) return [line];
  return [{ ...upTo, type: "rect", x0: row.interval[0], x1: row.interval[1], line: { width: 0 }, fillcolor: colour, opacity: 0.08 }, line];
}
