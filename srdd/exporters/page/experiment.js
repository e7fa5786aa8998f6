"use strict";
// Does guided noise help: the arms of an experiment with every seed, the comparisons and the verdict.
// Not here: tests and verdicts; they come with the data.

function experimentSection(section) {
  const found = page.experiment;
  section.append(el("p", { class: "verdict name", id: "noise-verdict" }, `${found.verdict}.`),
    el("p", { class: "soft name" }, `${found.facts}.`), found.said.length || found.warnings.length ? list([...found.warnings, ...found.said]) : "");
  figure(section, "experiment", experimentFigure);
  const numbers = ["difference", "95 %", "effect size", "p", "p (Holm)"].map((text) => ({ text, number: true }));
  section.append(el("h3", {}, "Differences, paired by seed; below 0 the first has the lower loss"),
    table(["comparison", ...numbers, "verdict"], found.comparisons.map((row) => [
      { text: `${row.a} - ${row.b}`, class: "name brief" },
      ...[signed(row.difference, 4), row.interval === null ? "-" : `${signed(row.interval[0], 4)} to ${signed(row.interval[1], 4)}`,
        signed(row.effect_size, 2), chance(row.p), chance(row.p_holm)].map((text) => ({ text, number: true })),
      { text: row.verdict, class: "name wide" },
    ]), { id: "comparisons" }),
    el("h3", {}, "Arms"),
    table(["arm", { text: "loss, mean ± std", number: true }, { text: "noise rms", number: true }, "layers with noise", "what it is"],
      found.arms.map((arm) => [{ text: arm.name, class: "name brief" }, { text: arm.text, number: true },
        { text: arm.rms === null ? "-" : significant(arm.rms, 3), number: true }, { text: arm.layers, class: "name wide" },
        { text: arm.meaning, class: "name wide" }]), { id: "arms" }));
}

function chance(p) {
  return p === null ? "-" : significant(p, 2);
}

function experimentFigure() {
  const { arms, seeds } = page.experiment;
  if (!arms.length) return "The experiment document has no arms.";
  const colours = css("--series").split(" ");
  const shift = (i) => (seeds.length > 1 ? 0.36 * (i / (seeds.length - 1) - 0.5) : 0);
  const loss = (arm, i) => (typeof arm.losses[i] === "number" ? arm.losses[i] : null);
  const narrow = window.innerWidth < 700;
  const lost = arms.map((arm, place) => ({ place, count: arm.losses.filter((value) => value === null).length })).filter((one) => one.count);
  const lineOf = (seed, i) => ({
    x: arms.map((_, place) => place + shift(i)), y: arms.map((arm) => loss(arm, i)), mode: "lines+markers", showlegend: false,
    line: { color: css("--line"), width: 1 }, marker: { size: 7, color: colours[0], opacity: 0.85 },
    customdata: arms.map((arm) => plain(`${short(arm.name, 40)}, seed ${seed}: ${loss(arm, i) === null ? "collapsed" : loss(arm, i).toFixed(4)}`)),
    hovertemplate: "%{customdata}<extra></extra>",
  });
  const traces = seeds.map(lineOf);
  traces.push({
    x: arms.map((_, place) => place), y: arms.map((arm) => arm.mean), mode: "markers", name: "mean over seeds",
    marker: { symbol: "line-ew", size: narrow ? 22 : 44, line: { width: 3.5, color: colours[1] } },
    customdata: arms.map((arm) => plain(`${short(arm.name, 40)}: ${arm.text}`)), hovertemplate: "%{customdata}<extra></extra>",
  });
  if (lost.length) {
    traces.push({
      x: lost.map((one) => one.place), y: lost.map(() => 0.97), yaxis: "y2", mode: "markers", name: "collapsed",
      marker: { symbol: "x", size: 13, color: css("--bad") }, customdata: lost.map((one) => plain(`${short(arms[one.place].name, 40)}: ${arms[one.place].text}`)),
      hovertemplate: "%{customdata}<extra></extra>",
    });
  }
  return {
    traces,
    layout: {
      xaxis: { range: [-0.5, arms.length - 0.5], tickvals: arms.map((_, place) => place), ticktext: arms.map((arm) => plain(short(arm.name, 16))), showgrid: false, tickangle: narrow ? -40 : 0 },
      yaxis: { title: { text: "loss, nats per token" } },
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
      height: 380,
    },
    caption: `${page.experiment.measured}: a dot per seed, thin lines join the same seed (same text), bars the mean. Differences `
      + `count within a seed, not between the clouds.${lost.length ? " A cross at the top: the model collapsed." : ""}`,
    label: `Dots: ${page.experiment.measured} of ${arms.length} arms over ${seeds.length} seeds. ${arms.map((arm) => `${arm.name} ${arm.text}`).join("; ")}.`,
    table: {
      headings: [{ text: "seed", number: true }, ...arms.map((arm) => ({ text: arm.name, number: true, class: "name" }))],
      rows: seeds.map((seed, i) => [{ text: seed, number: true },
        ...arms.map((arm) => ({ text: loss(arm, i) === null ? "collapsed" : loss(arm, i).toFixed(4), number: true }))]),
    },
    keys: {
      columns: arms.length,
      rows: 1,
      text: (i) => `${arms[i].name}: ${arms[i].text}; noise on ${arms[i].layers}`,
      mark: (i) => upright(i, 0.45),
    },
  };
}
