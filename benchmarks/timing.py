"""Medians of repeated runs, for the other benchmarks. Ratios only mean something when both sides ran in one process."""

import statistics
import time
from collections.abc import Callable


def median_seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of `repeats` runs after one that is thrown away."""
    run()
    return statistics.median(_seconds(run) for _ in range(repeats))


def median_ratio(run: Callable[[], object], beside: Callable[[], object], repeats: int = 5) -> tuple[float, float]:
    """Median seconds of `run`, and the median of its ratios to `beside`, each pair run one after the other."""
    run(), beside()
    seconds, ratios = [], []
    for _ in range(repeats):
        other = _seconds(beside)
        seconds.append(_seconds(run))
        ratios.append(seconds[-1] / other)
    return statistics.median(seconds), statistics.median(ratios)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def verdict(value: float, target: float, *, at_most: bool) -> str:
    met = value <= target if at_most else value >= target
    return f"{value:.2f} (target {'at most' if at_most else 'at least'} {target:g}: {'met' if met else 'MISSED'})"
