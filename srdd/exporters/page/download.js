"use strict";
// What a reader can take along: the data of this page, and the report it was made from when it lies packed in the page.

function downloads() {
  const why = page.report_missing;
  const tooltip = why ? `The report is not inside: ${why}` : "The report that this page was made from, byte by byte";
  return [
    el("button", { id: "download", type: "button", click: () => save(new Blob([JSON.stringify({ page, sums: sums() })],
      { type: "application/json" }), "srdd-page.json") }, "Download the data of this page (JSON)"),
    // not `disabled`: the tooltip must be reachable by keyboard and screen reader
    el("button", { id: "download-report", type: "button", title: tooltip, "aria-disabled": why ? "true" : null,
      click: (event) => !why && saveReport(event.currentTarget) }, "Download the report (JSON)"),
  ];
}

async function saveReport(button) {
  try {
    save(await unpackedReport(), "srdd-report.json");
  } catch (problem) {
    button.textContent = "This browser cannot unpack the report";
  }
}

/** The report's own bytes. */
async function unpackedReport() {
  const packed = Uint8Array.from(atob(document.getElementById("report").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).blob();
}

function save(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
