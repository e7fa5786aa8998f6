"""A report as one HTML page that needs nothing but itself.

Names come from strangers' checkpoints, so three walls stand. Data is JSON that no name can end, because <, > and & are
written as \\uXXXX: a layer called "</script><b>" becomes "\\u003c/script\\u003e\\u003cb\\u003e". The scripts put text
into text nodes only. And a content security policy allows the scripts of this file by their hashes, nothing else, and
no request at all.

Not here: numbers and how they look (srdd.exporters.page).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from srdd.analysis.bundle import Bundle, View
from srdd.errors import MissingExtraError
from srdd.exporters.page.columns import shared
from srdd.exporters.page.data import build

REPORT_SUFFIXES = (".html", ".htm")
USES = frozenset(
    {"title", "metric", "kind", "formats", "impact", "zones", "multipliers", "baseline", "probe", "experiment"}
)
# in the order in which they are read; main.js starts the page, Plotly follows, ready.js draws
SCRIPTS = (
    "core.js",
    "keys.js",
    "figures.js",
    "profile.js",
    "heatmap.js",
    "spread.js",
    "impact.js",
    "probe.js",
    "experiment.js",
    "detail.js",
    "answers.js",
    "download.js",
    "table.js",
    "main.js",
)
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}  # json does U+2028, U+2029 and all beyond ASCII
MOST_BYTES = 600_000  # of the report's own file inside the page, gzip and base64


def render(bundle: Bundle, view: View) -> str:
    """The page. Raises MissingExtraError without plotly. Same input, same text."""
    from importlib.metadata import version

    data, sums = build(bundle, view, version("srdd"))
    data["values"] = shared(data["values"])
    report = packed(bundle.source)
    data["report_missing"] = report.why_not
    scripts = [*(_part(name) for name in SCRIPTS), _plotly(), _part("ready.js")]
    pieces = {
        "policy": _policy(scripts),
        "title": html.escape(data["title"]),
        "style": _part("page.css"),
        "data": embedded(data),
        "sums": embedded(sums),
        "report": report.text,
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    # one pass, so that a name that looks like a placeholder stays a name
    return re.sub(r"@@(\w+)@@", lambda match: pieces[match[1]], _part("page.html"))


def embedded(document: Any) -> str:
    """JSON that is safe inside a script element, whatever its strings hold."""
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda match: _ESCAPES[match[0]], text)


@dataclass(frozen=True)
class Packed:
    """The report's own file inside the page, gzip in base64; or nothing, and the reason."""

    text: str
    why_not: str = ""


def packed(source: bytes | None) -> Packed:
    """The file's bytes for the page; without a time in them, so that the same report makes the same page."""
    if source is None:
        return Packed("", "the page was made from a report in memory")
    text = base64.b64encode(gzip.compress(source, 9, mtime=0)).decode()
    if len(text) > MOST_BYTES:
        size, most = len(text) / 1e6, MOST_BYTES / 1e6
        return Packed("", f"packed it has {size:.1f} MB, the page takes up to {most:.1f} MB; ask for the file itself")
    return Packed(text)


def _policy(scripts: list[str]) -> str:
    """Only these scripts; styles inline, because Plotly sets them; pictures made in the page; everything else not."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _part(name: str) -> str:
    return files("srdd.exporters.page").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtraError("the page needs plotly: pip install 'srdd[html]'") from None
    script: str = get_plotlyjs()
    # a browser hashes the text after turning line ends into \n
    return script.replace("\r\n", "\n").replace("\r", "\n")
