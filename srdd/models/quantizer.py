"""A format applied to the weights and activations of a running model.

Not here: which modules compute with them (fake.py), and arithmetic (srdd.kernels). Stochastic rounding draws by (seed,
name, draw, call, part), where a part is a sequence of a batch or an expert of a fused weight.

Worked number: draw 0 of a weight under mxfp4_sr is always the same; draws 0 to 199 have the weight for their mean, to
within 1 / sqrt(200) of one draw's error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from srdd import kernels
from srdd.core.formats import BlockFormat
from srdd.kernels.backend import Backend
from srdd.kernels.seeds import generator_for
from srdd.models.straight_through import version_of


@dataclass(frozen=True)
class Quantizer:
    """A format applied to tensors of a running model; `fmt` None leaves every tensor as it is (the control)."""

    fmt: BlockFormat | None
    backend: str | Backend = "auto"
    seed: int = 0
    draw: int = 0  # of stochastic rounding; another number draws anew
    fresh: bool = False  # stochastic rounding draws anew at every call of a module; False: what the first call draws
    # Quantized weights by name, with the version they were made from; None: none are kept between blocks.
    kept: dict[str, tuple[int, Tensor]] | None = field(default=None, compare=False, repr=False)
    # Names of the sequences at hand, in the order of the batch: they draw by name, so that batches of any size draw the
    # same. Empty: by place.
    sequences: list[str] = field(default_factory=list, compare=False, repr=False)

    @property
    def name(self) -> str:
        return "identity" if self.fmt is None else self.fmt.spec

    @property
    def stochastic(self) -> bool:
        return self.fmt is not None and self.fmt.stochastic

    def activation(self, x: Tensor, name: str, call: int = 0) -> Tensor:
        """An activation [sequences, ..., features], quantized; each sequence has its own tensor scale, as in a scan."""
        named = self.sequences if len(self.sequences) == (len(x) if x.dim() > 2 else 1) else None
        if self.fmt is not None and (self.fmt.has_tensor_scale or self.fmt.stochastic) and x.dim() > 2:
            places: Sequence[str | int] = named or range(len(x))
            parts = zip(x, places, strict=True)
            return torch.stack([self._apply(self.fmt, part, name, call, at) for part, at in parts])
        return self._apply(self.fmt, x, name, call, named[0] if named else 0)

    def weight(self, w: Tensor, name: str, call: int = 0, *, transposed: bool = False) -> Tensor:
        """A weight [out, in], [in, out] if transposed, or [experts, out, in], each expert with its own tensor scale."""
        version = None if self.fresh else version_of(w)
        known = None if self.kept is None or version is None else self.kept.get(name)
        if known is not None and known[0] == version:
            return known[1]
        fmt = None if self.fmt is None else self.fmt.for_weights
        turned = w.transpose(-1, -2) if transposed else w
        if turned.dim() == 3:
            q = torch.stack([self._apply(fmt, part, name, call, expert) for expert, part in enumerate(turned)])
        else:
            q = self._apply(fmt, turned, name, call, 0)
        q = q.transpose(-1, -2) if transposed else q
        if self.kept is not None and version is not None:
            self.kept[name] = (version, q)
        return q

    def _apply(self, fmt: BlockFormat | None, x: Tensor, name: str, call: int, place: str | int) -> Tensor:
        if fmt is None:
            return x
        drawn = (f"draw {self.draw}", f"call {call}", f"part {place}")
        generator = generator_for((fmt,), x.device, self.seed, name, *drawn)
        return kernels.quant_dequant(x.detach(), fmt, generator=generator, backend=self.backend)
