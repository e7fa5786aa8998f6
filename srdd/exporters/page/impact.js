"use strict";
// What quantization costs: the whole model, each layer alone, the costliest Linears and groups.

const MODES = { weight: "W", input: "A", both: "W+A" };

/** 1.206 ± 0.079 of an estimate; times 100 for a share. */
function estimate(given, digits, times) {
  if (!given) return "-";
  const text = (value) => ((times || 1) * value).toFixed(digits);
  return given.error === null ? text(given.value) : `${text(given.value)} ± ${text(given.error)}`;
}

function impactTables(section) {
  const found = page.impact;
  if (found.clean) {
    section.append(el("p", { class: "soft" }, `Reference: loss ${estimate(found.clean.loss, 3)}, perplexity `
      + `${found.clean.perplexity.toFixed(2)}. KL is in nats per token; ± is one standard error over sequences.`));
  }
  const numbers = ["loss", "change %", "perplexity", "KL", "KL p99", "same top token %"].map((text) => ({ text, number: true }));
  section.append(table(["format", "quantized", ...numbers], found.whole.map((row) => [
    row.format, MODES[row.mode],
    ...[estimate(row.loss, 3), estimate(row.loss_change, 1, 100), row.perplexity.toFixed(2), estimate(row.kl, 4),
      row.kl_p99 === null ? "-" : row.kl_p99.toFixed(3), estimate(row.top1, 1, 100)].map((text) => ({ text, number: true })),
  ]), { id: "whole" }));
}

/** The costliest Linears, each with what its weights, its input and both do to its output and to the model. */
function linearTables(section) {
  const found = page.impact;
  for (const part of found.groups) {
    section.append(el("h3", {}, `Fusion groups, ${part.format}: the ${part.rows.length} costliest of ${part.of}, by ${part.by}`),
      filled(["group", "measured KL", "predicted KL"], part.rows.map((row) => [row.name, estimate(row.measured, 4), estimate(row.predicted, 4)]),
        listed(`Fusion groups, ${part.format}`)));
  }
  const modes = ["W", "A", "W+A"];
  const numbers = [...modes.map((text) => `output error % ${text}`), "interaction", ...modes.map((text) => `predicted KL ${text}`)];
  for (const part of found.linears) {
    const errors = part.rows.some((row) => row.errors.some((given) => given));
    section.append(el("h3", {}, `Linears, ${part.format}: the ${part.rows.length} costliest of ${part.of}, by ${part.by}`),
      el("p", { class: "soft" }, `${errors ? `Errors on ${part.taken}. Interaction: how much of the squared W+A error is more than its `
        + "parts; below 0 they cancel. " : ""}KL in nats per token.`),
      filled(["module", ...numbers], part.rows.map((row) => [row.module, ...row.errors.map((given) => estimate(given, 1, 100)),
        signed(row.interaction, 2), ...row.kl.map((given) => estimate(given, 4))]), listed(`Linears, ${part.format}`)));
  }
}

/** A table of a name and numbers, without the columns in which nothing was measured. */
function filled(headings, rows, attributes) {
  const kept = headings.map((_, i) => i).filter((i) => i === 0 || rows.some((row) => row[i] !== "-"));
  return table(kept.map((i) => (i ? { text: headings[i], number: true } : headings[i])),
    rows.map((row) => kept.map((i) => (i ? { text: row[i], number: true } : { text: row[i], class: "name module" }))), attributes);
}

/** A long table scrolls inside the page, by keyboard too. */
function listed(what) {
  return { class: "scroll long", tabindex: 0, role: "region", "aria-label": what };
}

/** "+0.12": which side of 0. */
function signed(value, digits) {
  return value === null ? "-" : `${value > 0 ? "+" : ""}${value.toFixed(digits)}`;
}

function impactFigure() {
  const mine = page.impact.layers.filter((row) => row.format === state.format);  // several formats hide each other
  const costs = mine.length ? mine : page.impact.layers;
  const cases = [...new Map(costs.map((row) => [`${row.format} ${row.mode}`, row])).values()];
  const kinds = [["measured_kl", "measured KL, this layer alone"], ["predicted_kl", "predicted KL"], ["isolated", "output error of the layer"]];
  const traces = [];
  const colours = css("--series").split(" ");
  const series = [];
  const hasKl = costs.some((row) => row.measured_kl || row.predicted_kl);
  cases.forEach(({ format, mode }, place) => {
    const rows = costs.filter((row) => row.format === format && row.mode === mode);
    kinds.filter(([field]) => (field === "isolated") !== hasKl).forEach(([field, title], nth) => {
      const seen = rows.filter((row) => row[field]);
      if (!seen.length) return;
      series.push({ title: `${title}, ${format} ${MODES[mode]}`, rows: new Map(seen.map((row) => [row.layer, row[field]])) });
      traces.push({
        x: seen.map((row) => row.layer), y: seen.map((row) => row[field].value), mode: "lines+markers",
        error_y: { type: "data", array: seen.map((row) => row[field].error || 0), thickness: 1, width: 3 },
        name: plain(`${title}, ${format} ${MODES[mode]}`),
        customdata: seen.map((row) => estimate(row[field], 4)), hovertemplate: "%{customdata}",
        line: { color: colours[(2 * place + nth) % colours.length], dash: DASHES[nth], width: 2 },
        marker: { symbol: MARKERS[(2 * place + nth) % MARKERS.length], size: 7 },
      });
    });
  });
  if (!traces.length) return "No layer has costs.";
  const layers = [...new Set(costs.map((row) => row.layer))].sort((a, b) => a - b);
  const text = (one, layer) => estimate(one.rows.get(layer), 4);
  return {
    traces,
    layout: {
      xaxis: { title: { text: "decoder layer" }, ...layerTicks(layers) },
      yaxis: { title: { text: hasKl ? "KL, nats per token" : "relative error" }, type: hasKl ? "log" : "linear" },
      hovermode: "x unified",
      height: 400,
    },
    caption: "What each layer costs when it alone is quantized. An error of a tensor is not yet a loss of the model; this is.",
    label: `Line chart: cost of each of ${layers.length} layers quantized alone. ${series.map((one) => `${one.title} `
      + ends(layers.map((layer) => (one.rows.get(layer) || {}).value), (i) => `layer ${layers[i]}`, (v) => v.toFixed(4))).join("; ")}.`,
    table: {
      headings: [{ text: "layer", number: true }, ...series.map((one) => ({ text: one.title, number: true }))],
      rows: layers.map((layer) => [{ text: layer, number: true }, ...series.map((one) => ({ text: text(one, layer), number: true }))]),
    },
    keys: {
      columns: layers.length,
      rows: series.length,
      text: (i, nth) => `layer ${layers[i]}, ${series[nth].title}: ${text(series[nth], layers[i])}`,
      mark: (i) => upright(layers[i], 0.5),
    },
  };
}
