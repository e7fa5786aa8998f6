"use strict";
// The table of all sites: filtered, sorted and paged, so that twenty thousand sites stay quick.

const ROWS_A_PAGE = 50;
const TEXT_COLUMNS = [["kind", "site"], ["layer", "layer"], ["role", "role"], ["name", "module"]];
const NUMBER_COLUMNS = ["sqnr_db", "relative_error", "relative_rms", "deadzone_ratio", "saturation_ratio", "kurtosis", "crest"];
const shown = { text: "", kind: "", sort: null, down: true, at: 0 };

function tableColumns() {
  const known = NUMBER_COLUMNS.filter((name) => name === state.metric || name !== "relative_rms");
  if (!known.includes(state.metric) && (page.values[state.format] || {})[state.metric]) known.push(state.metric);
  const first = (name) => (name === state.metric ? 0 : 1);  // a narrow screen shows few columns
  return known.filter((name) => (page.values[state.format] || {})[name]).sort((a, b) => first(a) - first(b));
}

/** Sites that pass the filter, sorted. Words are looked for in name, role, site and "layer 7". */
function matching() {
  const words = shown.text.toLowerCase().split(/\s+/).filter(Boolean);
  const { kind, role, name, layer } = page.sites;
  const found = [];
  for (let i = 0; i < name.length; i += 1) {
    if (shown.kind && kind[i] !== shown.kind) continue;
    const text = words.length ? `${name[i]} ${role[i]} ${kind[i]} layer=${layer[i]}`.toLowerCase() : "";
    if (words.every((word) => text.includes(word))) found.push(i);
  }
  return sorted(found);
}

function sorted(found) {
  const key = shown.sort || state.metric;
  const column = key in page.sites ? page.sites[key] : (page.values[state.format] || {})[key];
  if (!column) return found;
  const sign = shown.down ? -1 : 1;
  const value = (v) => (v === "exact" ? Infinity : v === "-inf" ? -Infinity : v);
  return found.sort((a, b) => {
    const [x, y] = [value(column[a]), value(column[b])];
    if (x === null || y === null) return (x === null) - (y === null) || a - b;  // what has no number comes last
    return x < y ? -sign : x > y ? sign : a - b;
  });
}

/** Worst first, until the reader sorts. */
function sortByMetric() {
  shown.sort = state.metric;
  shown.down = metricOf(state.metric).better !== "up";
  shown.at = 0;
}

function sitesTable(section) {
  const body = el("div", { id: "sites" });
  const filter = el("input", { id: "filter", type: "search", placeholder: "mlp layer=7", input: () => {
    shown.text = filter.value;
    shown.at = 0;
    fill();
  } });
  const kinds = [["", "all"], ...page.kinds.map((row) => [row.name, row.title])];
  const kind = select("table-kind", kinds, "", (value) => {
    shown.kind = value;
    shown.at = 0;
    fill();
  });
  const count = el("p", { class: "soft", id: "count", "aria-live": "polite" });
  const pager = el("div", { class: "row pager" });
  const fill = () => fillTable(body, count, pager, fill);
  section.append(el("div", { class: "row only-screen" }, labelled("Filter", filter), labelled("Site", kind),
    ...downloads()), count, body, pager);
  sortByMetric();
  fill();
  let metric = state.metric;
  listeners.push(() => {
    if (metric !== state.metric) sortByMetric();
    metric = state.metric;
    fill();
  });
}

function fillTable(body, count, pager, fill) {
  const found = matching();
  const pages = Math.max(1, Math.ceil(found.length / ROWS_A_PAGE));
  shown.at = Math.min(shown.at, pages - 1);
  const names = tableColumns();
  const headings = [...TEXT_COLUMNS.map(([key, title]) => heading(key, title, key === "layer", fill)),
    ...names.map((name) => heading(name, titleOf(name), true, fill))];
  const rows = found.slice(shown.at * ROWS_A_PAGE, (shown.at + 1) * ROWS_A_PAGE).map((i) => [
    { text: page.sites.kind[i], class: "site" }, { text: page.sites.layer[i], number: true }, { text: page.sites.role[i], class: "name role" },
    { text: el("button", { class: "link name", type: "button", click: () => openSite(i) }, page.sites.name[i]), class: "module" },
    ...names.map((name) => ({
      text: withError(name, page.values[state.format][name][i], ((page.errors[state.format] || {})[name] || [])[i]), number: true,
    })),
  ]);
  put(body, table(headings, rows));
  count.textContent = `${found.length.toLocaleString("en")} of ${page.sites.name.length.toLocaleString("en")} sites, ${state.format}, `
    + `page ${shown.at + 1} of ${pages}`;
  const move = (by, text) => el("button", { type: "button", disabled: shown.at + by < 0 || shown.at + by >= pages, click: () => {
    shown.at += by;
    fill();
  } }, text);
  put(pager, move(-1, "Previous"), move(1, "Next"));
}

function heading(key, title, number, fill) {
  const active = shown.sort === key;
  const press = () => {
    shown.down = active ? !shown.down : number;
    shown.sort = key;
    shown.at = 0;
    fill();
    document.querySelector(`#sites button[data-key="${key}"]`).focus();
  };
  const mark = active ? (shown.down ? " ▼" : " ▲") : "";
  return {
    text: el("button", { type: "button", "data-key": key, click: press }, title + mark),
    number,
    class: key === "kind" ? "site" : key,
    "aria-sort": active ? (shown.down ? "descending" : "ascending") : "none",
  };
}
