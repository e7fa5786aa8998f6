"use strict";
// A metric over the depth of the model: formats as lines, two standard errors as bands, Gaussian data dashed, zones
// shaded, the baseline report as a thin open line.

function profile() {
  const rows = page.layers[state.kind];
  const name = state.metric;
  const specs = page.formats.map((row) => row.spec).filter((spec) => rows.values[spec] && rows.values[spec][name]);
  if (!specs.length) return `${name} is not known for the ${titleOfKind(state.kind)} of this report.`;
  const traces = specs.flatMap((spec) => lines(rows, spec, name));
  const base = page.baseline && page.baseline.layers[state.kind];
  if (base) traces.push(...specs.filter((spec) => base.values[spec]).map((spec) => ghost(base, spec, name)));
  const metric = metricOf(name);
  const of = metric.cost ? "layers" : titleOfKind(state.kind);
  const better = metric.better ? ` ${metric.better === "up" ? "Higher" : "Lower"} is better.` : "";
  return {
    traces,
    layout: {
      xaxis: { title: { text: "decoder layer" }, ...layerTicks(rows.layers) },
      yaxis: { title: { text: `${name}${unitOf(name)}` } },
      hovermode: "x unified",
      height: 430,
      ...zoneShapes(specs),
    },
    caption: `${name} of ${of} over depth: ${metric.meaning}.${better}${bandText(rows, specs, name)}`
      + `${base ? " Thin open lines: the baseline report." : ""}${zoneText()} Click a layer, or move with the arrow keys and press Enter, for its modules.`,
    label: `Line chart: ${name} of ${of} over ${rows.layers.length} layers. ${specs.map((spec) =>
      `${spec} ${endsOf(name, rows.values[spec][name], (i) => `layer ${rows.layers[i]}`)}.`).join(" ")} ${HOW}`,
    keys: {
      columns: rows.layers.length,
      rows: specs.length,
      text: (i, nth) => `layer ${rows.layers[i]}, ${specs[nth]}: ${name} `
        + `${withError(name, rows.values[specs[nth]][name][i], (rows.errors[specs[nth]][name] || [])[i])}${unitOf(name)}`,
      mark: (i) => upright(rows.layers[i], 0.5),
      open: (i) => openLayer(state.kind, rows.layers[i]),
    },
    table: {
      headings: [{ text: "layer", number: true }, ...specs.map((spec) => ({ text: spec, number: true }))],
      rows: rows.layers.map((layer, i) => [{ text: layer, number: true }, ...specs.map((spec) => ({
        text: withError(name, rows.values[spec][name][i], (rows.errors[spec][name] || [])[i]), number: true,
      }))]),
    },
    click: (point) => openLayer(state.kind, point.x),
  };
}

function layerTicks(layers) {
  return { range: [Math.min(...layers) - 0.6, Math.max(...layers) + 0.6], tickformat: "d", rangemode: "normal" };
}

function lines(rows, spec, name) {
  const style = styleOf(spec);
  const values = rows.values[spec][name];
  const errors = rows.errors[spec][name] || [];
  const x = rows.layers;
  const traces = [];
  const gaussian = page.formats.find((row) => row.spec === spec).gaussian[name];
  if (errors.some((error) => typeof error === "number")) {
    const edge = (sign) => values.map((v, i) => drawn(name, typeof v === "number" ? v + sign * 2 * (errors[i] || 0) : null));
    const invisible = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: spec };
    traces.push({ ...invisible, y: edge(-1) });
    traces.push({ ...invisible, y: edge(1), fill: "tonexty", fillcolor: faint(style.color) });
  }
  traces.push({
    x,
    y: values.map((value) => drawn(name, value)),
    customdata: values.map((value, i) => withError(name, value, errors[i])),
    hovertemplate: `%{customdata}${unitOf(name)}`,
    name: plain(spec),
    legendgroup: spec,
    mode: "lines+markers",
    line: { color: style.color, dash: style.dash, width: spec === state.format ? 3 : 1.8 },
    marker: { symbol: style.symbol, size: 7, color: style.color },
  });
  if (typeof gaussian === "number") {
    traces.push({
      x: [Math.min(...x) - 0.5, Math.max(...x) + 0.5],
      y: [drawn(name, gaussian), drawn(name, gaussian)],
      mode: "lines",
      line: { color: style.color, dash: "dash", width: 1.2 },
      name: plain(`${spec}: Gaussian data ${show(name, gaussian)}`),
      hoverinfo: "skip",
      legendgroup: spec,
      showlegend: false,
    });
  }
  return traces;
}

function ghost(base, spec, name) {
  const style = styleOf(spec);
  return {
    x: base.layers,
    y: (base.values[spec][name] || []).map((value) => drawn(name, value)),
    customdata: (base.values[spec][name] || []).map((value) => show(name, value)),
    hovertemplate: `%{customdata}${unitOf(name)}`,
    name: plain(`baseline, ${spec}`),
    legendgroup: `baseline ${spec}`,
    mode: "lines+markers",
    line: { color: style.color, width: 1, dash: "dot" },
    marker: { symbol: `${style.symbol}-open`, size: 8, color: style.color },
    opacity: 0.65,
  };
}

function faint(colour) {
  const number = parseInt(colour.slice(1), 16);
  return `rgba(${number >> 16}, ${(number >> 8) & 255}, ${number & 255}, 0.22)`;
}

function bandText(rows, specs, name) {
  const bands = specs.some((spec) => (rows.errors[spec][name] || []).some((error) => typeof error === "number"));
  const dashed = specs.some((spec) => typeof page.formats.find((row) => row.spec === spec).gaussian[name] === "number");
  return `${bands ? " Bands: two standard errors." : ""}${dashed ? " Dashed: the format on Gaussian data." : ""}`;
}

function zoneShapes() {
  if (!page.zones || page.zones.zones.length < 2) return {};
  const shapes = [];
  const annotations = [];
  page.zones.zones.forEach((zone, i) => {
    const [first, last] = [Math.min(...zone.layers), Math.max(...zone.layers)];
    shapes.push({
      type: "rect", xref: "x", yref: "paper", x0: first - 0.5, x1: last + 0.5, y0: 0, y1: 1,
      fillcolor: css(i % 2 ? "--zone-b" : "--zone-a"), line: { width: 0 }, layer: "below",
    });
    annotations.push({
      x: (first + last) / 2, xref: "x", y: 1, yref: "paper", yanchor: "top", showarrow: false,
      text: last - first > 1 ? plain(zone.label) : "", font: { size: 12, color: css("--soft") },
    });
  });
  return { shapes, annotations };
}

function zoneText() {
  if (!page.zones) return "";
  if (page.zones.zones.length < 2) return " One zone: no cut between layers stands out.";
  return ` Shaded: zones of high, medium and low error, ${page.zones.source}.`;
}
