"use strict";
// The figures that put two things side by side: SQNR against relative error, causes of the noise, sigma multipliers,
// bits against error, and what an impact run measured.

const CRESTS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];

function scatter() {
  const { kind, format: spec } = state;
  const column = page.values[spec] || {};
  if (!column.sqnr_db || !column.relative_error) return `SQNR and relative error are not both known under ${spec}.`;
  const places = page.cells.row.map((_, i) => i).filter((i) => page.cells.kind[i] === kind);
  const of = (name) => (i) => drawn(name, column[name][page.cells.row[i]]);
  const crest = (i) => (column.crest ? column.crest[page.cells.row[i]] : null);
  const named = page.outliers[kind][spec];
  const gaussian = page.formats.find((row) => row.spec === spec).gaussian;
  const label = (i) => `${page.cells.layer[i] === null ? "" : `layer ${page.cells.layer[i]} `}${page.cells.role[i] === "decoder_layer" ? "" : page.cells.role[i]}`.trim();
  const decades = (v) => (typeof v === "number" && v > 0 ? Math.log10(v) : 0);
  const narrow = window.innerWidth < 700;
  const traces = [{
    type: "scatter",
    mode: "markers",
    x: places.map(of("sqnr_db")),
    y: places.map(of("relative_error")),
    customdata: places,
    hovertext: places.map((i) => `${plain(short(label(i), 60))}<br>SQNR ${show("sqnr_db", column.sqnr_db[page.cells.row[i]])} dB<br>`
      + `relative error ${show("relative_error", column.relative_error[page.cells.row[i]])} %<br>crest ${show("crest", crest(i))}`),
    hoverinfo: "text",
    marker: {
      size: 9,
      color: places.map((i) => decades(crest(i))),
      colorscale: "Cividis",
      reversescale: !isDark(),
      line: { width: 0.6, color: css("--soft") },
      colorbar: { title: { text: "crest", side: narrow ? "top" : "right" }, tickvals: CRESTS.map(decades), ticktext: CRESTS.map(String), thickness: 12,
        ...(narrow ? { orientation: "h", y: -0.28, yanchor: "top" } : {}) },
    },
    showlegend: false,
  }];
  if (typeof gaussian.sqnr_db === "number") {
    traces.push({
      x: [drawn("sqnr_db", gaussian.sqnr_db)], y: [drawn("relative_error", gaussian.relative_error)], mode: "markers+text",
      text: ["Gaussian data"], textposition: "bottom center", hoverinfo: "skip", showlegend: false,
      marker: { symbol: "star", size: 15, color: css("--bad") },
    });
  }
  return {
    traces,
    layout: {
      xaxis: { title: { text: "SQNR dB (higher is better)" } },
      yaxis: { title: { text: "relative error % (lower is better)" } },
      height: narrow ? 520 : 460,
      annotations: named.filter((i) => of("sqnr_db")(i) !== null).map((i, place) => ({
        x: of("sqnr_db")(i), y: of("relative_error")(i), text: plain(short(label(i), 32)), arrowcolor: css("--soft"),
        arrowwidth: 1, ax: place % 2 ? -34 : 34, ay: [-26, 26, -44, 44][place % 4], font: { size: 12 },
      })),
    },
    caption: `Each point is a module (or the experts of a place together) of the ${titleOfKind(kind)} under ${spec}. A few massive `
      + "values (high crest) carry most of a tensor's power and lift its SQNR while the mean relative error does not move: "
      + "points far right at the same height. Those that stand farthest out are named.",
    label: `Scatter chart of ${places.length} places of the ${titleOfKind(kind)} under ${spec}: ${["sqnr_db", "relative_error"].map((name) =>
      `${name} ${endsOf(name, places.map((i) => column[name][page.cells.row[i]]), (i) => cellText(places[i]))}`).join("; ")}. `
      + `Farthest out: ${named.map((i) => cellText(i)).join("; ")}.`,
    table: scatterTable(places, named, column, crest),
    click: (point) => typeof point.customdata === "number" && openCell(point.customdata),
  };
}

const MOST_ROWS = 400;

/** Those that stand farthest out first. */
function scatterTable(places, named, column, crest) {
  const rows = [...named.filter((i) => places.includes(i)), ...places.filter((i) => !named.includes(i))];
  const numbers = ["sqnr_db", "relative_error", "crest"];
  return {
    note: `Those that stand farthest out come first.${rows.length > MOST_ROWS ? ` ${MOST_ROWS} of ${rows.length}; the table of all sites has the rest.` : ""}`,
    headings: [{ text: "layer", number: true }, "role", ...numbers.map((name) => ({ text: titleOf(name), number: true }))],
    rows: rows.slice(0, MOST_ROWS).map((i) => [{ text: page.cells.layer[i], number: true }, { text: page.cells.role[i], class: "name" },
      ...numbers.map((name) => ({ text: show(name, name === "crest" ? crest(i) : column[name][page.cells.row[i]]), number: true }))]),
  };
}

function noise() {
  const { kind, format: spec } = state;
  const rows = page.layers[kind];
  const parts = rows.noise[spec];
  if (!parts || !parts.rounding.some((share) => typeof share === "number")) return "The report holds no sums of the noise by cause.";
  const colours = css("--series").split(" ");
  const usual = page.formats.find((row) => row.spec === spec).gaussian;
  const gaussian = typeof usual.noise_clipped === "number"
    ? ` On Gaussian data: clipping ${show("noise_clipped", usual.noise_clipped)} %, underflow ${show("noise_deadzone", usual.noise_deadzone)} %.` : "";
  const names = ["clipping", "underflow", "rounding"];
  return {
    traces: names.map((part, place) => ({
      type: "bar",
      name: part,
      x: rows.layers,
      y: parts[part].map((share) => (typeof share === "number" ? 100 * share : null)),
      customdata: parts[part].map((share) => show("noise_clipped", share)),
      hovertemplate: `${part} %{customdata} %<extra></extra>`,
      marker: { color: colours[[1, 0, 2][place]], pattern: { shape: PATTERNS[place], size: 6, solidity: 0.3, fillmode: "overlay", fgcolor: css("--page") } },
    })),
    layout: {
      barmode: "stack",
      bargap: 0.15,
      xaxis: { title: { text: "decoder layer" }, ...layerTicks(rows.layers) },
      yaxis: { title: { text: "share of the noise power %" }, range: [0, 100] },
      height: 340,
    },
    caption: `Where the noise power of the ${titleOfKind(kind)} under ${spec} comes from: values clipped at the largest of their block, `
      + `values that became zero (underflow), rounding of the rest.${gaussian}`,
    label: `Stacked bars: shares of the noise power of the ${titleOfKind(kind)} under ${spec} over ${rows.layers.length} layers. ${names.map((part) =>
      `${part} ${ends(parts[part], (i) => `layer ${rows.layers[i]}`, (share) => `${show("noise_clipped", share)} %`)}`).join("; ")}.`,
    keys: {
      columns: rows.layers.length,
      rows: 1,
      text: (i) => `layer ${rows.layers[i]}: ${names.map((part) => `${part} ${show("noise_clipped", parts[part][i])} %`).join(", ")}`,
      mark: (i) => upright(rows.layers[i], 0.5),
      open: (i) => openLayer(kind, rows.layers[i]),
    },
    table: {
      headings: [{ text: "layer", number: true }, ...names.map((part) => ({ text: `${part} %`, number: true }))],
      rows: rows.layers.map((layer, i) => [{ text: layer, number: true },
        ...names.map((part) => ({ text: show("noise_clipped", parts[part][i]), number: true }))]),
    },
  };
}

function multipliers() {
  const found = page.multipliers;
  if (!found) return "No multipliers follow from this report.";
  return {
    traces: [{
      type: "bar", x: found.layers, y: found.values, marker: { color: css("--series").split(" ")[0] },
      hovertemplate: "layer %{x}: %{y:.3f}<extra></extra>",
    }],
    layout: {
      xaxis: { title: { text: "decoder layer" }, ...layerTicks(found.layers) },
      yaxis: { title: { text: "times the base sigma" }, rangemode: "tozero" },
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { dash: "dash", width: 1, color: css("--soft") } }],
      height: 300,
      showlegend: false,
    },
    caption: `Relative noise per layer for training (${found.source}). ${found.dose.map((line) => `${line[0].toUpperCase()}${line.slice(1)}.`).join(" ")}`,
    label: `Bars: noise multiplier of ${found.layers.length} layers, ${ends(found.values, (i) => `layer ${found.layers[i]}`, (v) => significant(v, 3))}.`,
    keys: {
      columns: found.layers.length,
      rows: 1,
      text: (i) => `layer ${found.layers[i]}: ${significant(found.values[i], 4)} times the base sigma`,
      mark: (i) => upright(found.layers[i], 0.5),
    },
    table: {
      headings: [{ text: "layer", number: true }, { text: "multiplier", number: true }],
      rows: found.layers.map((layer, i) => [{ text: layer, number: true }, { text: significant(found.values[i], 4), number: true }]),
    },
  };
}

function tradeoff() {
  const { kind, metric: name } = state;
  const rows = page.summary.filter((row) => row.kind === kind && row.metric === name && row.mean !== null);
  const bits = (spec) => page.formats.find((row) => row.spec === spec).bits;
  const known = rows.filter((row) => bits(row.format) !== null);
  if (!known.length) return `${name} has no better side, or no number in this report: choose another metric.`;
  return {
    traces: known.map((row) => {
      const style = styleOf(row.format);
      const shown = (value) => drawn(name, value);
      return {
        x: [bits(row.format)], y: [shown(row.mean)], name: plain(row.format), mode: "markers",
        marker: { symbol: style.symbol, size: 14, color: style.color },
        error_y: { type: "data", symmetric: false, array: [shown(row.max) - shown(row.mean)], arrayminus: [shown(row.mean) - shown(row.min)],
          color: style.color, thickness: 1.5, width: 6 },
        hovertemplate: `${plain(row.format)}<br>mean ${show(name, row.mean)}, ${show(name, row.min)} to ${show(name, row.max)}${unitOf(name)}<extra></extra>`,
      };
    }),
    layout: {
      xaxis: { title: { text: "bits per value, block scales included" } },
      yaxis: { title: { text: `${name}${unitOf(name)}` } },
      height: 340,
      showlegend: true,
    },
    caption: `What a bit buys: mean of ${name} over the layers (${titleOfKind(kind)}), with the range from the smallest to the largest layer.`,
    label: `Mean ${name} over bits per value: ${known.map((row) => `${row.format} with ${bits(row.format)} bits ${show(name, row.mean)}${unitOf(name)}, `
      + `layers from ${show(name, row.min)} to ${show(name, row.max)}`).join("; ")}.`,
    table: {
      headings: ["format", ...["bits", "min", "mean", "max", "Gaussian"].map((text) => ({ text, number: true }))],
      rows: known.map((row) => [row.format, { text: bits(row.format), number: true },
        ...["min", "mean", "max", "gaussian"].map((field) => ({ text: show(name, row[field]), number: true }))]),
    },
  };
}
