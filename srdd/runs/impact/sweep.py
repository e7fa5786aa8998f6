"""One batch through the model, clean and quantized side by side: errors of every layer, loss and KL of the whole.

Not here: statistics (the caller's) and single Linears (linears.py). While the clean pass runs, each layer runs twice
more per format and mode: on the clean state (isolated: only this layer is quantized) and on the state that quantized
layers below have made (cumulative). The isolated outputs are also where a swap starts: they go up through clean layers
to the head, and the KL they end in is what quantizing this one layer costs.

Worked number: L layers, one format and mode: 3 forwards' layers without swaps; with them L / 2 forwards' layers more,
and L times norm and head, which are a fifth of SmolLM2: 12 + 6 forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from srdd.core.modes import Mode
from srdd.errors import SiteError, setting
from srdd.kernels.precision import to_float64
from srdd.models.fake import EXCLUDE, FakeQuantized, fake_quantize
from srdd.models.quantizer import Quantizer
from srdd.models.sites import Site
from srdd.models.stack import LayerCall, LayerStack, first, logits_of
from srdd.runs.divergence import ReferenceLogits


@dataclass(frozen=True)
class Variant:
    """A format in one mode: the unit of all results."""

    quantizer: Quantizer
    mode: Mode

    @property
    def key(self) -> tuple[str, Mode]:
        return self.quantizer.name, self.mode


def layer_quantized(stack: LayerStack, index: int, variant: Variant, exclude: Sequence[str]) -> FakeQuantized | None:
    """The Linears of one layer, to be quantized; None when it holds none."""
    pattern = f"{stack.names[index]}.*"
    try:
        return fake_quantize(
            stack.model, variant.quantizer, variant.mode, modules=pattern, exclude=exclude, default_exclude=()
        )
    except SiteError:
        return None


@dataclass(frozen=True)
class Unit:
    """Linears of one layer that are swapped together: a fusion group, or one Linear that belongs to none."""

    name: str
    layer: int
    modules: tuple[str, ...]


def units_of(stack: LayerStack, sites: Sequence[Site]) -> list[Unit]:
    """The fusion groups of every layer, in order; a Linear that is fused with nothing stands alone."""
    members: dict[tuple[str, int], list[str]] = {}
    for site in sites:
        layer = next((i for i, name in enumerate(stack.names) if site.module.startswith(f"{name}.")), None)
        if layer is not None:
            members.setdefault((site.group or site.module, layer), []).append(site.module)
    return [Unit(name, layer, tuple(modules)) for (name, layer), modules in members.items()]


@dataclass
class LayerErrors:
    """Squared norms by sequence, float64: of the clean output, and of the two errors."""

    clean: list[float] = field(default_factory=list)
    isolated: list[float] = field(default_factory=list)
    cumulative: list[float] = field(default_factory=list)


# What quantizing one layer alone changes at its output [sequences, length, features], by (format, mode, layer).
Changes = dict[tuple[str, str, int], Tensor]


@dataclass
class SweepResult:
    """What one sweep leaves: layer errors by (format, mode, layer), and each token's cost by what was changed."""

    layers: dict[tuple[str, str, int], LayerErrors] = field(default_factory=dict)
    reference: dict[str, Tensor] = field(default_factory=dict)  # loss, entropy: [sequences, length - 1]
    whole: dict[tuple[str, str], dict[str, Tensor]] = field(default_factory=dict)
    swaps: dict[tuple[str, str, int], Tensor] = field(default_factory=dict)  # KL: [sequences, length - 1]
    noises: dict[tuple[str, str, int], Tensor] = field(default_factory=dict)
    unit_swaps: dict[tuple[str, Mode, str], Tensor] = field(default_factory=dict)  # by (format, mode, unit)
    # Squared norms by sequence at the last layer's output: clean, and of its error with one layer alone quantized.
    last: list[float] = field(default_factory=list)
    swap_errors: dict[tuple[str, str, int], list[float]] = field(default_factory=dict)
    changes: Changes = field(default_factory=dict)  # only when they are kept: a state per layer and mode


class Sweep:
    """Runs batches; `swap` adds the KL of every single layer, `units` that of parts of layers, `noise` that of Gaussian
    noise with the norm of each layer's error."""

    def __init__(
        self,
        stack: LayerStack,
        variants: Sequence[Variant],
        *,
        exclude: Sequence[str] = EXCLUDE,
        swap: bool = False,
        units: Sequence[Unit] = (),
        noise: bool = False,
        keep_changes: bool = False,
        seed: int = 0,
    ) -> None:
        self._stack, self._variants, self._swap, self._noise, self._keep = stack, variants, swap, noise, keep_changes
        self._generator = torch.Generator().manual_seed(seed)
        self._handles = {
            (variant.key, index): layer_quantized(stack, index, variant, exclude)
            for variant in variants
            for index in range(len(stack))
        }
        self._units = [
            (
                variant,
                unit,
                fake_quantize(
                    stack.model,
                    variant.quantizer,
                    variant.mode,
                    modules=unit.modules,
                    exclude=exclude,
                    default_exclude=(),
                ),
            )
            for variant in variants
            for unit in units
        ]
        if all(handle is None for handle in self._handles.values()):
            raise SiteError(f"no decoder layer holds a Linear that is quantized; look at {setting('exclude')}")

    def run(self, token_ids: Tensor, progress: Callable[[], None] = lambda: None) -> SweepResult:
        """One batch [sequences, length]."""
        result = SweepResult()
        states: dict[tuple[str, str], Tensor] = {}
        swapped: dict[tuple[str, str, int], Tensor] = {}
        noisy: dict[tuple[str, str, int], Tensor] = {}
        parts: dict[tuple[str, str, str], Tensor] = {}

        def visitor(call: LayerCall) -> Any:
            output = call.output(call.hidden)
            clean = first(output)
            for flight in (swapped, noisy, parts):
                for key, state in flight.items():
                    flight[key] = call.run(state)  # type: ignore[index]
            for variant, unit, handle in self._units:
                if unit.layer == call.index:
                    with handle:
                        parts[*variant.key, unit.name] = call.run(call.hidden)
            for variant in self._variants:
                key = (*variant.key, call.index)
                with self._quantized(variant, call.index):
                    isolated = call.run(call.hidden)
                    below = states.get(variant.key)
                    # the first layer's two are the same run
                    cumulative = isolated if below is None else call.run(below)
                states[variant.key] = cumulative
                result.layers[key] = LayerErrors(_norms(clean), _norms(isolated - clean), _norms(cumulative - clean))
                if self._keep:
                    result.changes[key] = isolated - clean
                if self._swap:
                    swapped[key] = isolated
                if self._noise:
                    noisy[key] = clean + self._alike(isolated - clean)
            if call.index == len(self._stack) - 1:
                result.last = _norms(clean)
                result.swap_errors = {key: _norms(state - clean) for key, state in swapped.items()}
            progress()
            return output

        reference = self._reference(self._stack.visit(token_ids, visitor), token_ids)
        if reference is None:
            return result
        result.reference = reference.own()
        for mode_key, state in states.items():
            result.whole[mode_key] = reference.against(self._logits(token_ids, state))
        flights = ((swapped, result.swaps), (noisy, result.noises), (parts, result.unit_swaps))
        for flight, target in flights:
            for key in list(flight):
                target[key] = reference.kl(self._logits(token_ids, flight.pop(key)))  # type: ignore[index,arg-type]
                progress()
        return result

    def _quantized(self, variant: Variant, index: int) -> AbstractContextManager[Any]:
        return self._handles[variant.key, index] or nullcontext()

    def _reference(self, output: Any, token_ids: Tensor) -> ReferenceLogits | None:
        logits = logits_of(output)
        return None if logits is None else ReferenceLogits.of(logits, token_ids)

    def _logits(self, token_ids: Tensor, state: Tensor) -> Tensor:
        logits = logits_of(self._stack.tail(token_ids, state))
        assert logits is not None, "the clean pass gave logits"
        return logits

    def _alike(self, error: Tensor) -> Tensor:
        """Gaussian noise with the norm of each token's error."""
        noise = torch.randn(error.shape, generator=self._generator, dtype=torch.float32, device="cpu").to(error)
        scaled: Tensor = noise * (error.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True))
        return scaled


def _norms(x: Tensor) -> list[float]:
    result: list[float] = to_float64(x).flatten(1).square().sum(1).tolist()
    return result
