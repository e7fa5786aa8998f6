"""Every mistake that a user can fix: one class per cause, each with a short code for the documentation.

Not here: bugs. A bug keeps its traceback. The command line turns an `SrddError` into one line and exit code 2; callers
of the library catch the class they can handle. A message says what was found, what was expected and what to do.

The library speaks of settings, a shell of options. A message names a setting by `setting(...)`, never by a flag;
`str(error)` is for a notebook, and `error.told(...)` lets the command line write its own names in their place.

Worked number: SettingError("batch_size", 0, "expected 1 or more") reads `batch_size=0: expected 1 or more` in a
notebook and `--batch-size 0: expected 1 or more` in a shell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

# A setting inside a message, between control characters that no text of a user's keeps: name, and perhaps =value.
_MARK = re.compile("\x02([a-z_]+)(?:=([^\x02\x03]*))?\x03")
_ABSENT = object()


def setting(name: str, value: object = _ABSENT) -> str:
    """A setting inside a message: `batch_size` or `batch_size=4` to callers, `--batch-size 4` in a shell."""
    shown = "" if value is _ABSENT else "=" + re.sub("[\x02\x03]", "", str(value))
    return f"\x02{name}{shown}\x03"


def _as_keyword(name: str, value: str | None) -> str:
    return name if value is None else f"{name}={value}"


class SrddError(Exception):
    """Base of everything that srdd raises on purpose."""

    code: ClassVar[str] = "srdd"

    def __init__(self, message: str = "") -> None:
        self._marked = message
        super().__init__(self.told(_as_keyword))

    def told(self, named: Callable[[str, str | None], str]) -> str:
        """The message, each setting written as `named(name, value)` says; value is None where only its name stands."""
        return _MARK.sub(lambda found: named(found[1], found[2]), self._marked)

    def __reduce__(self) -> tuple[Any, ...]:
        """Whole again on the other side of a process border, whatever the class takes as arguments."""
        return _restored, (type(self), self._marked, self.__dict__)


def _restored(kind: type[SrddError], marked: str, state: dict[str, Any]) -> SrddError:
    error = kind.__new__(kind)
    SrddError.__init__(error, marked)
    error.__dict__.update(state)
    return error


class FormatError(SrddError):
    """A quant spec names no known format or rule, or is given twice."""

    code = "format"


class TensorError(SrddError):
    """A tensor cannot be quantized as asked: an integer type, no generator for stochastic rounding, ..."""

    code = "tensor"


class BackendError(SrddError):
    """A kernel backend that was asked for by name cannot run here, or gives other numbers than the reference."""

    code = "backend"


class SourceError(SrddError):
    """A model or checkpoint cannot be opened: missing, incomplete, truncated or not understood."""

    code = "source"


class CalibrationError(SrddError):
    """The calibration data is missing, unreadable or too short."""

    code = "calibration"


class SiteError(SrddError):
    """A selection of sites, layers or modules matches nothing, or a hook never fired."""

    code = "site"


class BusyError(SrddError):
    """A model is measured or quantized already, so that it cannot be entered, left or copied now."""

    code = "busy"


class NonfiniteError(SrddError):
    """A weight, a loss or an error is NaN or infinite, so that no cost of the model is a number."""

    code = "nonfinite"


class ReportError(SrddError):
    """A document (report, rin.yaml, zones, policy, ...) cannot be read, upgraded, merged or compared."""

    code = "report"


class WriteError(SrddError):
    """A file or the standard output cannot be written."""

    code = "write"


class OptionError(SrddError):
    """A setting is wrong, without effect, or contradicts another; what is raised is one of the three below."""

    code = "option"


class SettingError(OptionError):
    """A setting is out of range or not understood. `setting`, `found` and `expected` say which, what and why."""

    code = "setting"

    def __init__(self, name: str, found: object, expected: str) -> None:
        self.setting, self.found, self.expected = name, found, expected
        super().__init__(f"{setting(name) if found is None else setting(name, found)}: {expected}")


class NoEffectError(OptionError):
    """Settings that would be ignored where they are given. `settings` names them."""

    code = "no-effect"

    def __init__(self, names: str | Sequence[str], when: str) -> None:
        self.settings = (names,) if isinstance(names, str) else tuple(names)
        verb, them = ("has", "it") if len(self.settings) == 1 else ("have", "them")
        super().__init__(f"{', '.join(map(setting, self.settings))} {verb} no effect {when}; leave {them} out")


class ConflictError(OptionError):
    """Two settings exclude each other. `settings` names them."""

    code = "conflict"

    def __init__(self, first: str, second: str, instead: str = "give one of them") -> None:
        self.settings = (first, second)
        super().__init__(f"{setting(first)} and {setting(second)} exclude each other; {instead}")


class MissingExtraError(SrddError):
    """An optional package is needed for what was asked."""

    code = "extra"


class NoiseError(SrddError):
    """Noise would reach nothing, reach the wrong thing, be applied twice, or break the weights."""

    code = "noise"


class NoiseWarning(UserWarning):
    """Noise is on but does little: part of it is rounded away by the weights' type."""
