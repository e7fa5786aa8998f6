"""sigma and the layers' multipliers at a step, under the path that trainers import.

The code stands beside the document that it reads, in srdd.documents.schedule.
"""

from srdd.documents.schedule import Stretch, levels, multiplier, sigma, stretches, warmup

__all__ = ["Stretch", "levels", "multiplier", "sigma", "stretches", "warmup"]
