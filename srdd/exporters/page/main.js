"use strict";
// Puts the page together, in the order in which a stranger asks.

function section(id, title) {
  const node = el("section", { id }, el("h2", {}, title));
  document.getElementById("main").append(node);
  return node;
}

function start() {
  const wantsDark = window.matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.theme = wantsDark.matches ? "dark" : "light";
  wantsDark.addEventListener("change", (event) => {
    document.documentElement.dataset.theme = event.matches ? "dark" : "light";
    nameTheme();
    redraw();
  });
  head();
  controls();
  listeners.push(answers);
  if (page.impact) {
    const costs = section("impact", "What it costs");
    impactTables(costs);
    figure(costs, "impact", impactFigure);
    linearTables(costs);
  }
  figure(section("profile", "Over the depth of the model"), "profile", profile);
  if (page.probe) probeSection(section("probe", "How much noise it bears"));
  if (page.experiment) experimentSection(section("experiment", "Does guided noise help?"));
  const places = section("heatmap", "Layer by role");
  const kinds = heatmapKinds();
  let kind = kinds[0];
  const which = select("heatmap-kind", kinds.map((name) => [name, titleOfKind(name)]), kind, (value) => {
    kind = value;
    entry.stale = true;
    draw(entry);
  });
  places.append(el("div", { class: "row only-screen" }, labelled("Site", which)));
  const entry = figure(places, "heatmap", () => heatmap(kind));
  figure(section("scatter", "SQNR against relative error"), "scatter", scatter);
  figure(section("noise", "Where the noise comes from"), "noise", noise);
  figure(section("tradeoff", "Bits against error"), "tradeoff", tradeoff);
  figure(section("multipliers", "Noise for training, by layer"), "multipliers", multipliers);
  sitesTable(section("table", "All sites"));
  const node = el("section", { id: "background" });
  document.getElementById("answers").after(node);
  background(node);
  answers();  // last: its steps link to the sections that there are
  contents();
  put(document.getElementById("foot"), el("p", { class: "soft" }, `Made by srdd ${page.srdd}. This file holds its data and loads nothing.`));
}

start();
