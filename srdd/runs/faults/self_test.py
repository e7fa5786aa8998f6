"""Plants every kind of fault in several sizes, one at a time, and says what is found: how blind this search is here.

Not here: tables. Layers and modules are drawn by the seed; the same seed plants the same faults.

Worked number: 9 kinds in 2 to 4 sizes at the output of a layer, 31 runs of two seconds each on a tiny model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from srdd.core.faults import KINDS, At, Fault
from srdd.models.faults import plant
from srdd.models.modules import is_linear
from srdd.models.stack import LayerStack
from srdd.runs.calibration import Sequences
from srdd.runs.faults.run import find_faults
from srdd.runs.setup import Progress, silent


@dataclass(frozen=True)
class Trial:
    """One planted fault, "none" for the healthy model, and the first of what was found; "" for nothing."""

    planted: str
    size: float
    layer: int
    module: str
    at: str
    found: str
    found_layer: int | None
    found_module: str
    found_at: str
    found_size: float | None
    others: int  # findings beside it

    @property
    def is_located(self) -> bool:
        """In the right layer and module, and in no other."""
        return self.found_layer == self.layer and self.found_module == self.module and not self.others


def self_tested(
    model: nn.Module,
    sequences: Tensor | Sequences,
    *,
    places: Sequence[At] = ("output",),
    seed: int = 0,
    progress: Progress = silent,
) -> list[Trial]:
    """The healthy model first, then every kind and size at the output of a layer and of a Linear that is drawn."""
    stack, generator = LayerStack(model), random.Random(seed)
    faults: list[Fault | None] = [None]
    for kind in KINDS.values():
        for size in kind.trial_sizes:
            layer = generator.randrange(len(stack))
            linears = [name for name, part in stack.layers[layer].named_modules() if is_linear(part)]
            if kind.name == "dead_head":
                faults.append(Fault(layer, kind.name, size, at="input", seed=seed))
                continue
            for at in places:
                module = (
                    generator.choice([None, generator.choice(linears)]) if at != "weight" else generator.choice(linears)
                )
                faults.append(Fault(layer, kind.name, size, module, at, seed=seed))
    trials = []
    for done, fault in enumerate(faults):
        trials.append(_trial(model, sequences, fault, seed))
        progress("planted", done + 1, len(faults))
    return trials


def _trial(model: nn.Module, sequences: Tensor | Sequences, fault: Fault | None, seed: int) -> Trial:
    if fault is None:
        found = find_faults(model, sequences, spec=None, seed=seed).findings
    else:
        with plant(model, fault) as planted:
            found = find_faults(model, sequences, spec=None, seed=seed).findings
            name = planted.modules[0]
    first = found[0] if found else None
    return Trial(
        planted="none" if fault is None else fault.kind,
        size=0.0 if fault is None else fault.size,
        layer=-1 if fault is None else fault.layer,
        module="" if fault is None else name,
        at="" if fault is None else fault.at,
        found=first.kind if first else "",
        found_layer=first.layer if first else None,
        found_module=first.module if first else "",
        found_at=first.at if first else "",
        found_size=first.size if first else None,
        others=max(0, len(found) - 1),
    )
