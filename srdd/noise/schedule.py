"""sigma and the layers' multipliers at a step, for trainers; the code stands beside the document it reads.

Not here: the schedule itself (srdd.documents.schedule).
"""

from srdd.documents.schedule import Stretch, levels, multiplier, sigma, stretches, warmup

__all__ = ["Stretch", "levels", "multiplier", "sigma", "stretches", "warmup"]
