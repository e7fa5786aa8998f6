"use strict";
// Layer x role for one metric, format and kind of site. A cell that holds several sites (experts) shows their merged sums.

function heatmapKinds() {
  const roles = (kind) => new Set(page.cells.role.filter((_, i) => page.cells.kind[i] === kind)).size;
  return page.kinds.map((row) => row.name).sort((a, b) => roles(b) - roles(a));
}

function heatmap(kind) {
  const { metric: name, format: spec } = state;
  const column = (page.values[spec] || {})[name];
  const places = page.cells.row.map((_, i) => i).filter((i) => page.cells.kind[i] === kind);
  if (!column || !places.length) return `${name} is not known for single modules under ${spec}.`;
  const roles = [...new Set(places.map((i) => page.cells.role[i]))];
  const layers = [...new Set(places.map((i) => page.cells.layer[i]))]
    .sort((a, b) => (a === null) - (b === null) || a - b);
  const at = new Map(places.map((i) => [`${page.cells.layer[i]} ${page.cells.role[i]}`, i]));
  const cell = (role, layer) => at.get(`${layer} ${role}`);
  const value = (i) => (i === undefined ? null : column[page.cells.row[i]]);
  const grid = (of) => roles.map((role) => layers.map((layer) => of(cell(role, layer), role, layer)));
  const metric = metricOf(name);
  const narrow = window.innerWidth < 700;
  return {
    traces: [{
      type: "heatmap",
      x: layers.map((layer) => (layer === null ? "out" : String(layer))),
      y: roles.map((_, i) => i),  // places, not names: two names may look alike
      z: grid((i) => drawn(name, value(i))),
      hovertext: grid((i, role, layer) => hoverText(i, role, layer, name, spec, value(i))),
      customdata: grid((i) => (i === undefined ? null : i)),
      hoverinfo: "text",
      hoverongaps: false,
      xgap: layers.length > 60 ? 0 : 1,
      ygap: 1,
      ...scaleFor(metric),
      colorbar: { title: { text: `${name}${unitOf(name)}`, side: narrow ? "top" : "right" }, thickness: 14, ...(narrow
        ? { orientation: "h", y: -0.32, yanchor: "top" } : {}) },
    }],
    layout: {
      xaxis: { type: "category", title: { text: "decoder layer" }, showgrid: false, nticks: narrow ? 8 : 32, tickangle: 0 },
      yaxis: { autorange: "reversed", showgrid: false, tickvals: roles.map((_, i) => i), ticktext: roles.map((role) => plain(short(role, 24))) },
      height: 130 + 34 * roles.length + (narrow ? 110 : 40),
      margin: { t: 12 },
    },
    caption: `${name} by layer and role, ${titleOfKind(kind)}, ${spec}. ${metric.better ? "The worst cells stand out from the page. " : ""}`
      + `${layers.includes(null) ? "out: outside the layers. " : ""}`
      + "Click a cell, or move with the arrow keys and press Enter, for its full tally.",
    label: `Heatmap: ${name} of ${titleOfKind(kind)} under ${spec}, ${layers.length} layers by ${roles.length} roles, `
      + `${endsOf(name, places.map(value), (i) => cellText(places[i]))}. ${HOW}`,
    keys: {
      columns: layers.length,
      rows: roles.length,
      text: (x, y) => (cell(roles[y], layers[x]) === undefined ? `${layerText(layers[x])}, ${short(roles[y], 80)}: nothing here`
        : `${cellText(cell(roles[y], layers[x]))}: ${name} ${cellNumber(cell(roles[y], layers[x]), name, spec)}`),
      mark: (x, y) => ({ ...upright(x, 0.5), yref: "y", y0: y - 0.5, y1: y + 0.5, line: { width: 3, color: css("--link") } }),
      open: (x, y) => cell(roles[y], layers[x]) !== undefined && openCell(cell(roles[y], layers[x])),
    },
    table: {
      headings: [{ text: "layer", number: true }, ...roles.map((role) => ({ text: role, number: true, class: "name" }))],
      rows: layers.map((layer) => [{ text: layer === null ? "outside" : layer, number: true },
        ...roles.map((role) => ({ text: show(name, value(cell(role, layer))), number: true }))]),
    },
    click: (point) => point.customdata !== null && openCell(point.customdata),
  };
}

function cellText(i) {
  return `${layerText(page.cells.layer[i])}, ${short(page.cells.role[i], 80)}`;
}

function cellNumber(i, name, spec) {
  const row = page.cells.row[i];
  return `${withError(name, page.values[spec][name][row], ((page.errors[spec] || {})[name] || [])[row])}${unitOf(name)}`;
}

function hoverText(i, role, layer, name, spec, value) {
  if (i === undefined) return "";
  const row = page.cells.row[i];
  const error = ((page.errors[spec] || {})[name] || [])[row];
  const inside = page.cells.sites[i];
  const what = inside.length > 1 ? `${inside.length} sites, merged` : short(page.sites.name[inside[0]], 60);
  return `${plain(layerText(layer))}, ${plain(short(role, 40))}<br>${plain(what)}<br>`
    + `<b>${plain(withError(name, value, error))}${unitOf(name)}</b>`;
}
