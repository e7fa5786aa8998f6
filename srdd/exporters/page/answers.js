"use strict";
// The first screen: who was measured, what is wrong, which layers, how sure, what next.
// Not here: any judgement; sentences come with the data.

function head() {
  const about = page.facts.find(([label]) => label === "Architecture");
  put(document.getElementById("top"),
    el("div", {}, el("h1", {}, page.title), el("p", { class: "soft name" }, about ? about[1] : "")));
}

function nameTheme() {
  const button = document.getElementById("theme");
  button.setAttribute("aria-label", isDark() ? "Light theme" : "Dark theme");
  button.textContent = isDark() ? "Light" : "Dark";
}

function switchTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
  redraw();
}

function controls() {
  const kinds = page.kinds.map((row) => [row.name, row.title]);
  const formats = page.formats.map((row) => [row.spec, row.spec]);
  put(document.getElementById("controls"), el("div", {},
    labelled("Site", select("kind", kinds, state.kind, (kind) => choose({ kind }))),
    labelled("Format", select("format", formats, state.format, (format) => choose({ format }))),
    labelled("Metric", select("metric", metricsAtHand(), state.metric, (metric) => choose({ metric }))),
    el("button", { id: "theme", type: "button", click: switchTheme })));
  nameTheme();
}

/** Metrics for which the report has numbers at all. */
function metricsAtHand() {
  const known = new Set();
  for (const rows of Object.values(page.layers)) {
    for (const columns of Object.values(rows.values)) Object.keys(columns).forEach((name) => known.add(name));
  }
  for (const columns of Object.values(page.values)) Object.keys(columns).forEach((name) => known.add(name));
  return page.metrics.filter((m) => known.has(m.name)).map((m) => [m.name, m.unit ? `${m.name} (${m.unit})` : m.name]);
}

function answers() {
  const found = page.overview[state.kind] && page.overview[state.kind][state.format];
  const section = document.getElementById("answers");
  if (!found) {
    put(section, el("div", { class: "verdict" }, el("h2", {}, "Nothing measured here"),
      el("p", {}, "The report has no layers of this kind under this format.")));
    return;
  }
  put(section,
    el("div", { class: `verdict ${found.verdict}`, id: "verdict" },
      el("h2", {}, found.headline), el("p", { class: "name" }, found.sentence),
      found.limits.length ? el("p", { class: "soft" }, `A layer is beyond a limit when ${found.limits.join(", ")}.`) : null),
    el("div", { class: "cards" },
      el("div", { class: "card" }, el("h3", {}, whichTitle(found)), worstTable(found), el("p", { class: "soft" }, order(found))),
      el("div", { class: "stack" },
        el("div", { class: "card" }, el("h3", {}, "What next"), steps(found)),
        el("div", { class: "card" }, el("h3", {}, "How sure"), list(found.sure)))));
}

function order(found) {
  if (found.ranked_by) return `Worst first, by ${found.ranked_by}. Red: they carry half of the cost.`;
  return found.flagged ? "Worst first, by how far beyond a limit. Red: beyond it." : `Worst first, by ${found.ordered_by}.`;
}

function whichTitle(found) {
  const count = found.worst.length;
  if (found.ranked_by) return `Which layers: the ${count} that cost most`;
  if (!found.flagged) return `Which layers: the ${count} worst`;
  return found.flagged > count ? `Which layers: the ${count} worst of ${found.flagged} flagged` : `Which layers: ${count} flagged`;
}

function worstTable(found) {
  const cost = ["predicted_kl", "measured_kl"].filter((name) => found.worst.some((row) => row.values[name]));
  const usual = [...cost, "relative_error", "sqnr_db", ...(cost.length ? [] : ["deadzone_ratio"])];
  const shown = found.ordered_by ? [found.ordered_by, ...usual.filter((name) => name !== found.ordered_by)] : usual;
  const rows = found.worst.map((row) => [
    { text: el("button", { class: "link", type: "button", click: () => openLayer(state.kind, row.layer) }, row.layer), number: true },
    ...shown.map((name) => ({
      text: withError(name, ...row.values[name]), number: true,
      class: `${row.beyond.includes(name) ? "beyond" : ""} ${name === "deadzone_ratio" ? "zeroed" : ""}`,
    })),
    { text: row.cause, class: "wide" },
  ]);
  const headings = [{ text: "layer", number: true }, ...shown.map((name) => ({ text: titleOf(name), number: true, class: name === "deadzone_ratio" ? "zeroed" : "" })),
    { text: found.ranked_by ? "its dearest parts" : "why (its noise)", class: "wide" }];
  return table(headings, rows, { id: "worst" });
}

function list(texts) {
  return el("ul", {}, texts.map((text) => el("li", { class: "name" }, text)));
}

function steps(found) {
  const below = (step) => step.section && document.getElementById(step.section);
  return el("ol", {}, found.steps.map((step) => el("li", {}, step.why,
    below(step) ? [" ", el("a", { href: `#${step.section}` }, "See below.")] : null, step.command ? command(step.command) : null)));
}

function command(text) {
  const copy = el("button", { type: "button", "aria-label": `Copy: ${text}`, click: () => copyText(text, copy) }, "Copy");
  const words = text.split(" ").flatMap((word, i) => [i ? " " : "", el("span", { class: "word" }, word)]);
  return el("div", { class: "command" }, el("code", {}, words), navigator.clipboard ? copy : null);
}

async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select it";
  }
}

/** The sections of the page, each a link. */
function contents() {
  const titles = [...document.querySelectorAll("main section")].map((node) => [node.id, node.querySelector("h2")]);
  const links = titles.filter(([id, title]) => title && id !== "answers").map(([id, title]) =>
    el("li", {}, el("a", { href: `#${id}` }, title.textContent)));
  put(document.getElementById("contents"), el("ul", {}, el("li", {}, el("a", { href: "#answers" }, "The answers")), links));
}

/** Warnings, formats beside each other and the facts of the scan. */
function background(section) {
  if (page.warnings.length) {
    section.append(el("div", { class: "warnings", id: "warnings" }, el("h3", {}, "Before you trust a number"),
      el("ul", {}, page.warnings.map((text) => el("li", { class: text.startsWith("ERROR") ? "name error" : "name" }, text)))));
  }
  const formats = el("div", {});
  const fill = () => {
    const found = page.overview[state.kind] && page.overview[state.kind][state.format];
    const drawn = found && found.ranked_by ? pricedTable : formatsTable;
    put(formats, found && found.formats.length ? drawn(found.formats) : null);
  };
  listeners.push(fill);
  fill();
  section.append(el("h2", {}, "Formats of this report"), formats,
    el("h2", {}, "The scan"), el("dl", { class: "facts", id: "facts" },
      page.facts.map(([label, text]) => [el("dt", {}, label), el("dd", { class: "name" }, text)])));
}

function pricedTable(rows) {
  const headings = ["format:rule", { text: "bits a value", number: true }, { text: "KL nats/token, whole model", number: true },
    { text: "layers with half of it", number: true }];
  return table(headings, rows.map((row) => [
    el("span", { class: "name" }, row.format),
    { text: row.bits_per_value === null ? "?" : row.bits_per_value, number: true },
    { text: row.kl ? withError("predicted_kl", row.kl.value, row.kl.error) : "-", number: true },
    { text: `${row.flagged} of ${row.layers}`, number: true },
  ]), { id: "formats" });
}

function formatsTable(rows) {
  const gaussian = (spec) => page.formats.find((row) => row.spec === spec).gaussian.sqnr_db;
  const headings = ["format:rule", { text: "bits a value", number: true }, { text: "mean SQNR dB", number: true },
    { text: "on Gaussian data", number: true, class: "gaussian" }, { text: "layers beyond its limits", number: true }, "verdict"];
  return table(headings, rows.map((row) => [
    el("span", { class: "name" }, row.format),
    { text: row.bits_per_value === null ? "?" : row.bits_per_value, number: true },
    { text: show("sqnr_db", row.sqnr_db), number: true },
    { text: show("sqnr_db", gaussian(row.format)), number: true, class: "gaussian" },
    { text: `${row.flagged} of ${row.layers}`, number: true },
    { text: row.passes ? "passes" : "too many", class: row.passes ? "good" : "beyond" },
  ]), { id: "formats" });
}
