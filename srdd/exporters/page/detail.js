"use strict";
// The dialog: one layer with its modules, or one module with every metric and sum under every format.

function openDialog(title, ...content) {
  const dialog = document.getElementById("detail");
  const close = el("button", { type: "button", click: () => dialog.close() }, "Close");
  put(dialog, el("div", { class: "head" }, el("h2", { id: "detail-title", class: "name" }, title), close), ...content);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function openLayer(kind, layer) {
  const rows = page.layers[kind];
  const at = rows.layers.indexOf(layer);
  if (at < 0) return;
  const specs = page.formats.map((row) => row.spec).filter((spec) => rows.values[spec]);
  const metrics = page.metrics.filter((m) => specs.some((spec) => rows.values[spec][m.name]));
  const body = metrics.map((m) => [titleOf(m.name), ...specs.map((spec) => ({
    text: withError(m.name, (rows.values[spec][m.name] || [])[at], (rows.errors[spec][m.name] || [])[at]), number: true,
  }))]);
  const inside = page.sites.name.map((_, i) => i).filter((i) => page.sites.layer[i] === layer);
  openDialog(`Layer ${layer}, ${titleOfKind(kind)}`,
    table(["metric", ...specs.map((text) => ({ text, number: true }))], body),
    el("h3", {}, `Its ${inside.length} sites: ${state.metric}${unitOf(state.metric)} under ${state.format}`), siteList(inside));
}

const MOST_LISTED = 200;

function siteList(sites) {
  const column = (page.values[state.format] || {})[state.metric] || [];
  const rows = sites.slice(0, MOST_LISTED).map((i) => [page.sites.kind[i],
    el("button", { class: "link name", type: "button", click: () => openSite(i) }, page.sites.name[i]),
    { text: show(state.metric, column[i]), number: true }]);
  const more = sites.length > MOST_LISTED
    ? el("p", { class: "soft" }, `and ${sites.length - MOST_LISTED} more: filter the table of all sites.`) : null;
  return el("div", {}, table(["site", "module", { text: state.metric, number: true }], rows), more);
}

function openCell(cell) {
  const inside = page.cells.sites[cell];
  if (inside.length === 1) {
    openSite(inside[0]);
    return;
  }
  openDialog(`${page.cells.role[cell]}, ${layerText(page.cells.layer[cell])}`,
    el("p", { class: "soft" }, `${inside.length} sites of ${titleOfKind(page.cells.kind[cell])}, their sums merged.`),
    ...numbersOf(page.cells.row[cell]), el("h3", {}, "Sites"), siteList(inside));
}

function openSite(i) {
  const given = page.sites;
  const facts = [["Site", titleOfKind(given.kind[i])], ["Role", given.role[i]], ["Layer", layerText(given.layer[i])],
    ["Fusion group", given.group[i]], ["Shape", given.shape[i].join(" x ")], ["Read by", given.members[i].join(", ")],
    ["Notes", given.notes[i].join("; ")]].filter(([, text]) => text);
  openDialog(given.name[i],
    el("dl", { class: "facts" }, facts.map(([label, text]) => [el("dt", {}, label), el("dd", { class: "name" }, text)])),
    ...crowdOf(i), ...numbersOf(i));
}

/** Of many sites that are one row: how they spread, and the worst by name. */
function crowdOf(i) {
  const crowd = page.crowds[i];
  if (!crowd) return [];
  const spec = crowd.quantiles[state.format] ? state.format : Object.keys(crowd.quantiles)[0];
  const share = (value) => (value === 0 ? "min" : value === 1 ? "max" : `${Math.round(100 * value)} %`);
  const rows = Object.entries(crowd.quantiles[spec]).filter(([, values]) => values.length).map(([name, values]) =>
    [titleOf(name), ...values.map((value) => ({ text: show(name, value), number: true }))]);
  return [el("h3", {}, `Over ${crowd.count} sites, ${spec}`),
    table(["quantile", ...crowd.shares.map((value) => ({ text: share(value), number: true }))], rows, { id: "quantiles" }),
    el("h3", {}, "The worst by relative error"),
    table(["module", { text: "rel. error %", number: true }], crowd.worst[spec].map(([name, value]) =>
      [{ text: name, class: "name" }, { text: show("relative_error", value), number: true }]))];
}

function numbersOf(row) {
  const specs = page.formats.map((f) => f.spec).filter((spec) => Object.values(page.values[spec]).some((column) => column[row] !== null));
  const headings = (first) => [first, ...specs.map((text) => ({ text, number: true, class: "name" }))];
  const metrics = page.metrics.filter((m) => specs.some((spec) => page.values[spec][m.name])).map((m) => [
    titleOf(m.name),
    ...specs.map((spec) => ({
      text: withError(m.name, (page.values[spec][m.name] || [])[row], (page.errors[spec][m.name] || [])[row]), number: true,
    })),
  ]);
  const tallies = specs.map((spec) => sums().tallies[spec][row]);
  const tally = sums().fields.map((field, place) => [field, ...tallies.map((sum) => ({ text: sum ? sum[place] : "-", number: true }))]);
  const full = tallies.some((sum) => sum)
    ? table(headings("sum"), tally, { id: "tally" }) : el("p", { class: "soft" }, "This report holds metrics without sums.");
  return [el("h3", {}, "Metrics"), table(headings("metric"), metrics), el("h3", {}, "Full tally"), full];
}
