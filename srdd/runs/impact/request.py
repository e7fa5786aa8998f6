"""What `measure_impact` is asked to measure, checked before anything runs.

Not here: running it (run.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from srdd.core.formats import BlockFormat, parse
from srdd.core.modes import Mode
from srdd.documents.costs import How
from srdd.errors import NoEffectError, SettingError, setting
from srdd.runs.calibration import check_batch_size

DRAWS = 4  # of stochastic rounding, where nothing else is said: they tell the spread to some 40 %
Sensitive = Literal["norm", "linear"]
T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What is asked of a model."""

    formats: list[BlockFormat | None]  # None: the control, which changes nothing
    modes: list[Mode]
    how: list[How]
    sensitive: list[Sensitive]
    tokens_per_sequence: int
    label_samples: int
    batch_size: int
    exclude: list[str]
    noise: bool
    backend: str
    seed: int
    draws: int | None = None  # of formats that round stochastically; None: DRAWS

    @property
    def real_formats(self) -> list[BlockFormat]:
        return [fmt for fmt in self.formats if fmt is not None]

    @property
    def drawn(self) -> list[BlockFormat]:
        """The formats that round stochastically."""
        return [fmt for fmt in self.real_formats if fmt.stochastic]

    def rounds(self) -> list[Request]:
        """What is measured with each draw: everything with the first, what is drawn with the others."""
        others = (DRAWS if self.draws is None else self.draws) - 1 if self.drawn else 0
        return [self, *[replace(self, formats=[*self.drawn], sensitive=[])] * others]

    def check(self) -> None:
        """Refuses what no model is needed to refuse. Raises SettingError, NoEffectError."""
        if self.label_samples < 1:
            raise SettingError("label_samples", self.label_samples, "expected at least 1")
        check_batch_size(self.batch_size)
        if self.tokens_per_sequence < 0:
            raise SettingError("tokens_per_sequence", self.tokens_per_sequence, "expected 0 (all) or more")
        if self.label_samples > 1 and "predicted" not in self.how:
            raise NoEffectError("label_samples", f"without {setting('how', 'predicted')}")
        check_draws(self.draws, self.real_formats)


def check_draws(draws: int | None, formats: Sequence[BlockFormat]) -> None:
    """Raises SettingError, NoEffectError."""
    if draws is None:
        return
    if draws < 1:
        raise SettingError("draws", draws, "expected 1 or more")
    if not any(fmt.stochastic for fmt in formats):
        raise NoEffectError("draws", "when no format rounds stochastically")


def formats_of(formats: str | BlockFormat | Sequence[str | BlockFormat | None]) -> list[BlockFormat | None]:
    """From a list, or a text such as "mxfp4,identity". Raises SettingError, FormatError."""
    listed: Sequence[str | BlockFormat | None] = (
        [formats] if isinstance(formats, BlockFormat) else formats.split(",") if isinstance(formats, str) else formats
    )
    if not listed:
        raise SettingError("formats", None, "no format given; expected e.g. mxfp4, or identity for the control")
    return [
        None if fmt is None or (isinstance(fmt, str) and fmt.strip() == "identity") else parse(fmt) for fmt in listed
    ]


def chosen(name: str, given: str | Sequence[T], known: Sequence[T]) -> list[T]:
    """One name or several, refused before the run and not after it. Raises SettingError."""
    names: list[Any] = [given] if isinstance(given, str) else list(given)
    if not set(names) <= set(known):
        raise SettingError(name, ", ".join(map(repr, names)), f"expected some of {', '.join(map(str, known))}")
    return names
