"""The planted fault of an experiment, with or without dither before it.

Not here: faults themselves (srdd.models.faults). The original study put noise before a deadzone to carry small signals
over its threshold; "before" is on the same tensor, right where the fault acts.

Worked number: a token (1.0, 0.02, -0.005) with deadzone 0.01 becomes (1.0, 0.02, 0).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from srdd.core.faults import Fault
from srdd.errors import SettingError
from srdd.models.faults import plant


def check_fault(fault: Fault, layers: int, *, training: bool = False) -> None:
    """Raises SettingError for a layer that a model of so many layers does not have, and for a weight that trains."""
    if fault.layer >= layers:
        raise SettingError("fault", f"layer={fault.layer}", f"the model has layers 0 to {layers - 1}")
    if training and fault.at == "weight":
        raise SettingError("fault", str(fault), "a weight that trains would heal; expected at=input or at=output")


@contextmanager
def planted(model: nn.Module, fault: Fault, dither: float, seed: int) -> Iterator[None]:
    """The fault until the block ends. `dither` is the noise before it, in units of each token's root mean square.

    Raises SettingError for a layer that the model does not have, NoEffectError for one that never ran.
    """
    faults = [fault]
    if dither:
        before = replace(fault, kind="noise", size=dither, seed=seed)
        faults = [fault, before] if fault.at == "input" else [before, fault]  # what is planted later stands outside
    with plant(model, *faults):
        yield
