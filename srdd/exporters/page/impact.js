"use strict";
// What quantization costs, from an impact document: the whole model, and each layer alone.

const POINTS = { weight: "W", input: "A", both: "W+A" };

/** 1.206 ± 0.079 of an estimate; times 100 for a share. */
function estimate(given, digits, times) {
  if (!given) return "-";
  const text = (value) => ((times || 1) * value).toFixed(digits);
  return given.error === null ? text(given.value) : `${text(given.value)} ± ${text(given.error)}`;
}

function impactTables(section) {
  const found = page.impact;
  if (found.reference) {
    section.append(el("p", { class: "soft" }, `Reference: loss ${estimate(found.reference.loss, 3)}, perplexity `
      + `${found.reference.perplexity.toFixed(2)}. KL is in nats per token; ± is one standard error over sequences.`));
  }
  const numbers = ["loss", "change %", "perplexity", "KL", "KL p99", "same top token %"].map((text) => ({ text, number: true }));
  section.append(table(["format", "quantized", ...numbers], found.whole.map((row) => [
    row.format, POINTS[row.point],
    ...[estimate(row.loss, 3), estimate(row.loss_change, 1, 100), row.perplexity.toFixed(2), estimate(row.kl, 4),
      row.kl_p99.toFixed(3), estimate(row.top1, 1, 100)].map((text) => ({ text, number: true })),
  ]), { id: "whole" }));
}

function impactFigure() {
  const cases = [...new Map(page.impact.layers.map((row) => [`${row.format} ${row.point}`, row])).values()];
  const kinds = [["swap_kl", "measured KL, this layer alone"], ["predicted_kl", "predicted KL"], ["isolated", "output error of the layer"]];
  const traces = [];
  const colours = css("--series").split(" ");
  const hasKl = page.impact.layers.some((row) => row.swap_kl || row.predicted_kl);
  cases.forEach(({ format, point }, place) => {
    const rows = page.impact.layers.filter((row) => row.format === format && row.point === point);
    kinds.filter(([field]) => (field === "isolated") !== hasKl).forEach(([field, title], nth) => {
      const seen = rows.filter((row) => row[field]);
      if (!seen.length) return;
      traces.push({
        x: seen.map((row) => row.layer), y: seen.map((row) => row[field].value), mode: "lines+markers",
        error_y: { type: "data", array: seen.map((row) => row[field].error || 0), thickness: 1, width: 3 },
        name: plain(`${title}, ${format} ${POINTS[point]}`),
        customdata: seen.map((row) => estimate(row[field], 4)), hovertemplate: "%{customdata}",
        line: { color: colours[(2 * place + nth) % colours.length], dash: DASHES[nth], width: 2 },
        marker: { symbol: MARKERS[(2 * place + nth) % MARKERS.length], size: 7 },
      });
    });
  });
  if (!traces.length) return "The impact document has no layers.";
  return {
    traces,
    layout: {
      xaxis: { title: { text: "decoder layer" }, ...layerTicks(page.impact.layers.map((row) => row.layer)) },
      yaxis: { title: { text: hasKl ? "KL, nats per token" : "relative error" }, type: hasKl ? "log" : "linear" },
      hovermode: "x unified",
      height: 400,
    },
    caption: "What each layer costs when it alone is quantized. An error of a tensor is not yet a loss of the model; this is.",
  };
}
