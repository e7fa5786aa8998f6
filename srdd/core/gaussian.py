"""What every format and rule does to standard normal data: the numbers to read a layer against.

A format costs this much on data without outliers. E8M0 scales are powers of two, so the figures move slightly (0.1 dB)
with the standard deviation; these are for 1. They lie in gaussian.json, which `benchmarks/make_baselines.py` writes
from 2^23 values with the reference kernel, as matrices [1024, 1024] of weights: scales of a row or a tensor, and
tiles, move SQNR by 0.3 dB (fp8_block: 31.55 dB in a weight's tiles, 31.80 dB in an input's).

Worked number: mxfp4:floor gives 18.8 dB, with 8.8 % of the values becoming zero and 2.3 % clipped.
"""

from __future__ import annotations

from functools import cache

from srdd.core.formats import FORMATS, is_stored


def gaussian_metrics(spec: str) -> dict[str, float] | None:
    """Metrics by name for a canonical spec such as "mxfp4:even"; None for one that was not tabulated.

    What a checkpoint stores is read against its format's default rule.
    """
    name = spec.partition(":")[0]
    return _table().get(FORMATS[name].spec if is_stored(spec) and name in FORMATS else spec)


@cache
def _table() -> dict[str, dict[str, float]]:
    import json
    from importlib.resources import files  # slower to import than all else in core

    text = files("srdd.core").joinpath("gaussian.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, float]] = json.loads(text)
    return table
