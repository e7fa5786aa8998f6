"""The report's own file inside the page, so that whoever gets the page has the report too.

Not here: the page's data, which is another document (page_data.py). The file is packed as it is, its provenance
included: it is the report. A large one would make the page too heavy to send and stays outside, which the page says.

Worked number: a report of 4.7 MB is 2.2 MB packed, more than the limit of 0.6 MB: left out.
"""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass

MOST_BYTES = 600_000  # gzip and base64


@dataclass(frozen=True)
class Packed:
    """gzip in base64, or nothing and the reason."""

    text: str
    why_not: str = ""


def packed(source: bytes | None) -> Packed:
    """mtime=0, so that the same report makes the same page."""
    if source is None:
        return Packed("", "the page was made from a report in memory")
    text = base64.b64encode(gzip.compress(source, 9, mtime=0)).decode()
    if len(text) > MOST_BYTES:
        size, most = len(text) / 1e6, MOST_BYTES / 1e6
        return Packed("", f"packed it has {size:.1f} MB, the page takes up to {most:.1f} MB; ask for the file itself")
    return Packed(text)
