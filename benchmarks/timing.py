"""Medians of repeated runs, for the other benchmarks. Ratios only mean something when both sides ran in one process."""

import statistics
import time
from collections.abc import Callable


def median_seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of `repeats` runs after one that is thrown away."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def verdict(value: float, target: float, *, at_most: bool) -> str:
    met = value <= target if at_most else value >= target
    return f"{value:.2f} (target {'at most' if at_most else 'at least'} {target:g}: {'met' if met else 'MISSED'})"
