"use strict";
// Data, formatting and DOM building. Not here: what is shown. All text becomes text nodes: a name cannot become markup.

const page = JSON.parse(document.getElementById("data").textContent);
for (const columns of Object.values(page.values)) {  // a column that another format has too is that format's name
  for (const [name, column] of Object.entries(columns)) {
    if (typeof column === "string") columns[name] = page.values[column][name];
  }
}
const state = { kind: page.start.kind, format: page.start.format, metric: page.start.metric };
const listeners = [];
let sumsRead = null;

/** The sums behind the numbers, parsed when first asked for. */
function sums() {
  sumsRead = sumsRead || JSON.parse(document.getElementById("sums").textContent);
  return sumsRead;
}

/** Change what is shown and tell everybody. */
function choose(changes) {
  Object.assign(state, changes);
  listeners.forEach((listener) => listener());
}

/** An element with attributes; a function is an event listener; children are nodes or text. */
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

function put(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child));
  return node;
}

function labelled(text, control) {
  return el("label", {}, text, control);
}

function select(id, options, chosen, onChange) {
  const node = el("select", { id, change: () => onChange(node.value) });
  for (const [value, text] of options) node.append(el("option", { value, selected: value === chosen }, text));
  return node;
}

/** A table from headings and rows; a cell is text, a node, or {text, number, class}. */
function table(headings, rows, attributes) {
  const cell = (tag, given) => {
    const plain = given instanceof Node || typeof given !== "object" || given === null;
    const { text, number, ...rest } = plain ? { text: given } : given;
    if (number) rest.class = `number ${rest.class || ""}`.trim();
    return el(tag, tag === "th" ? { scope: "col", ...rest } : rest, text === null ? "-" : text);
  };
  return el("div", { class: "scroll", ...attributes },
    el("table", {},
      el("thead", {}, el("tr", {}, headings.map((heading) => cell("th", heading)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((one) => cell("td", one)))))));
}

function metricOf(name) {
  return page.metrics.find((metric) => metric.name === name);
}

const TITLES = { sqnr_db: "SQNR dB", relative_error: "rel. error %", deadzone_ratio: "zeroed %", saturation_ratio: "clipped %" };

/** A heading for a column: short for the main metrics, else the name with its unit. */
function titleOf(name) {
  const unit = metricOf(name).unit;
  return TITLES[name] || (unit ? `${name} (${unit})` : name);
}

function unitOf(name) {
  const unit = metricOf(name).unit;
  return unit ? ` ${unit}` : "";
}

/** As C's %.4g: four significant digits without trailing zeros, an exponent of two digits where it is large. */
function significant(value, digits) {
  if (value === 0) return "0";
  const exponent = Number(value.toExponential(digits - 1).split("e")[1]);
  if (exponent >= -4 && exponent < digits) return String(Number(value.toPrecision(digits)));
  const [mantissa, power] = value.toExponential(digits - 1).split("e");
  const sign = power[0] === "-" ? "-" : "+";
  return `${Number(mantissa)}e${sign}${power.replace(/^[+-]/, "").padStart(2, "0")}`;
}

/** A value as tables show it: 18.74, 9.70 (of %), 0.9962. null is a dash, a word stays one. */
function show(name, value) {
  if (value === null || value === undefined) return "-";
  if (typeof value === "string") return value;
  if (metricOf(name).cost) return costText(value);
  const unit = metricOf(name).unit;
  if (unit === "%") return (100 * value).toFixed(2);
  return unit === "dB" ? value.toFixed(2) : significant(value, 4);
}

/** A cost with three digits that count, and its error with as many decimals: "0.0123 ± 0.0005", as terminals show it. */
function costText(value, error) {
  const decimals = value ? Math.max(2 - Math.floor(Math.log10(Math.abs(value))), 0) : 2;
  const text = (number) => (decimals <= 7 ? number.toFixed(decimals) : number.toExponential(2));
  return typeof error === "number" ? `${text(value)} ± ${text(error)}` : text(value);
}

/** "41.74 ± 0.35": the standard error where there is one. */
function withError(name, value, error) {
  if (metricOf(name).cost && typeof value === "number") return costText(value, error);
  const known = typeof error === "number" && typeof value === "number";
  return known ? `${show(name, value)} ± ${show(name, error)}` : show(name, value);
}

/** What is drawn: percent for ratios; what is no number leaves a gap. */
function drawn(name, value) {
  if (typeof value !== "number") return null;
  return metricOf(name).unit === "%" ? 100 * value : value;
}

/** Text for Plotly, which reads <b>, <a href> and entities in labels. */
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function short(text, length) {
  return text.length > length ? `${text.slice(0, length / 2)}…${text.slice(-length / 2)}` : text;
}

function titleOfKind(kind) {
  return page.kinds.find((row) => row.name === kind).title;
}

function layerText(layer) {
  return layer === null ? "outside the layers" : `layer ${layer}`;
}
