"""What is counted and what it is called: formats, tallies, metrics and their errors, names of layers and roles.

Only the standard library is needed. A new format is a row in formats.py, a new metric over existing sums a row in
metrics.py; a new raw sum is a field of tally.py and changes the kernels and the report with it.

Not here: arithmetic on tensors (srdd.kernels) and documents (srdd.documents).
"""

from srdd.core.formats import FORMATS, parse, parse_list
from srdd.core.gaussian import gaussian_metrics
from srdd.core.metrics import METRICS
from srdd.core.modes import Mode, mode_name
from srdd.core.tally import Tally

__all__ = ["FORMATS", "METRICS", "Mode", "Tally", "gaussian_metrics", "mode_name", "parse", "parse_list"]
