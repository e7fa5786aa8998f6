"""What somebody may have meant: the known name that is nearest to the one that was typed.

Not here: which names are known, which is the caller's.

Worked number: "mxpf4" and "mxfp4" have 4 of 5 letters in order, 2 * 4 / (5 + 5) = 0.8 alike; names less than 0.6 alike
are not suggested.
"""

from __future__ import annotations

from collections.abc import Iterable

_ALIKE = 0.6


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: "; did you mean mxfp4?", or nothing where no name is near."""
    from difflib import get_close_matches  # slow to import for what is seldom wanted

    by_lower = {name.lower(): name for name in known}
    nearest = get_close_matches(typed.strip().lower(), by_lower, n=1, cutoff=_ALIKE)
    return f"; did you mean {by_lower[nearest[0]]}?" if nearest else ""
