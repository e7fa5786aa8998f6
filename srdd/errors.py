"""Every mistake a user can fix, one class per cause.

Not here: bugs. A bug keeps its traceback. The command line turns an `SrddError` into one line and exit code 2;
library callers catch the class they can handle. A message says what was found, what was expected and what to do,
e.g. "unknown format 'mxfp5'; known: mxfp4, ...; see `srdd formats`".
"""


class SrddError(Exception):
    """Base of everything srdd raises on purpose."""


class FormatError(SrddError):
    """A quant spec names no known format or rule, or is given twice."""


class TensorError(SrddError):
    """A tensor cannot be quantized as asked (integer type, no generator for stochastic rounding, ...)."""


class BackendError(SrddError):
    """A kernel backend was asked for by name and cannot run here."""


class SourceError(SrddError):
    """A model or checkpoint cannot be opened: missing, incomplete, truncated or not understood."""


class CalibrationError(SrddError):
    """The calibration data is missing, unreadable or too short."""


class SiteError(SrddError):
    """A selection of sites, layers or modules matches nothing, or a hook never fired."""


class ReportError(SrddError):
    """A report cannot be read, written, upgraded or merged."""


class OptionError(SrddError):
    """A command line option or setting is out of range or has no effect."""


class MissingExtraError(SrddError):
    """An optional package is needed for what was asked."""


class NoiseError(SrddError):
    """Noise would reach nothing, reach the wrong thing, be applied twice, or break the weights."""


class NoiseWarning(UserWarning):
    """Noise is on but does little: part of it is rounded away by the weights' type."""
