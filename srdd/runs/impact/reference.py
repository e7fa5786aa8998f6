"""What a packed model costs against its 16-bit original, beside what rounding the original anew costs.

Both models run on the same tokens, sequence by sequence: KL(original || packed), loss and agreement of the whole, and
by how much the output of each layer has moved. A codec that bends errors to cancel in the outputs (GPTQ and its kin)
has larger errors of weights and smaller costs: the cost decides.

Not here: errors of weights (srdd.runs.scans.stored). Two models are in memory at once, and one more copy of the weights
for each fresh format. Packed values are rounded to the model's own type when they are opened, as they are for fresh
ones: in bfloat16 either moves by up to 2^-9 of a value.

Worked number: six sequences and one form are 18 forward passes: original, packed, fresh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from srdd.core.formats import BlockFormat
from srdd.core.modes import Mode
from srdd.documents.costs import Costs, CostSettings, LayerCost
from srdd.errors import SettingError, SourceError
from srdd.kernels.precision import to_float64
from srdd.models.fake import FakeQuantized, fake_quantize
from srdd.models.placement import device_of, refuse_nonfinite
from srdd.models.quantizer import Quantizer
from srdd.models.running import evaluating
from srdd.models.stack import LayerCall, LayerStack, first, logits_of
from srdd.runs.calibration import Sequences
from srdd.runs.divergence import ReferenceLogits
from srdd.runs.impact.rows import Tokens, clean_row, ratio, whole_row
from srdd.runs.impact.subject import has_head, headless
from srdd.runs.setup import Progress, Run, backend_used, open_loss_run, silent

MODE: Mode = "weight"


@dataclass(frozen=True)
class Fresh:
    """The original rounded anew: the name it has in the report, and the modules of each format."""

    spec: str
    modules: Mapping[BlockFormat, Sequence[str]]


@dataclass
class _Gathered:
    """Of one variant: numbers of every token, and squared norms of the change of each layer's output by sequence."""

    tokens: list[Tokens] = field(default_factory=list)
    moved: list[list[float]] = field(default_factory=list)  # by layer


def reference_costs(
    packed: nn.Module,
    original: nn.Module,
    sequences: Tensor | Sequences,
    stored: str,
    fresh: Sequence[Fresh] = (),
    *,
    backend: str = "auto",
    seed: int = 0,
    progress: Progress = silent,
) -> Costs:
    """The costs of `packed` under the name `stored`, and of `original` with its weights rounded as `fresh` says.

    `sequences` is int64 [count, length] of at least 2 tokens. Raises SettingError for a model without a language-model
    head, SourceError for models of other depths, SiteError, CalibrationError, NonfiniteError.
    """
    formats = tuple(dict.fromkeys(fmt for one in fresh for fmt in one.modules))
    run = open_loss_run(original, sequences, formats, repeats=1, backend=backend)
    refuse_nonfinite(packed)
    stacks = LayerStack(original), LayerStack(packed)
    if len(stacks[0]) != len(stacks[1]):
        raise SourceError(f"the reference has {len(stacks[0])} layers, the packed model {len(stacks[1])}")
    with evaluating(original), evaluating(packed), torch.no_grad():
        for stack in stacks:
            if not has_head(stack, run.token_ids[:1].to(device_of(stack.model))):
                raise SettingError("costs", "measured", f"{headless(stack.model)} to measure costs at")
        handles = {one.spec: _handles(original, one, run, seed) for one in fresh}
        clean, norms, found = _gather(run, stacks, stored, handles, progress)
    assert run.calibration is not None, "a run of losses has tokens"
    quantized = {name for one in handles.values() for handle in one for name in handle.modules}
    return Costs(
        settings=CostSettings(
            formats=[*found],
            modes=[MODE],
            how=[],
            calibration=run.calibration,
            left_out=sorted({site.module for site in run.sites.of("weight")} - quantized) if fresh else [],
            seed=seed,
            backend=backend_used(run.backend)[0],
        ),
        clean=clean_row(clean),
        whole=[whole_row(spec, MODE, one.tokens, moved=any(map(any, one.moved))) for spec, one in found.items()],
        layers=[
            LayerCost(layer=layer, format=spec, mode=MODE, cumulative=ratio(moved, norms[layer]))
            for spec, one in found.items()
            for layer, moved in enumerate(one.moved)
        ],
    )


def _handles(original: nn.Module, fresh: Fresh, run: Run, seed: int) -> list[FakeQuantized]:
    return [
        fake_quantize(
            original, Quantizer(fmt, run.backend, seed, kept={}), MODE, modules=list(modules), default_exclude=()
        )
        for fmt, modules in fresh.modules.items()
    ]


def _gather(
    run: Run,
    stacks: tuple[LayerStack, LayerStack],
    stored: str,
    handles: Mapping[str, Sequence[FakeQuantized]],
    progress: Progress,
) -> tuple[list[Tokens], list[list[float]], dict[str, _Gathered]]:
    """Costs of every token, clean and of each variant; squared norms of clean layer outputs by layer and sequence."""
    original, packed = stacks
    clean: list[Tokens] = []
    norms: list[list[float]] = [[] for _ in original.names]
    found = {name: _Gathered(moved=[[] for _ in original.names]) for name in (stored, *handles)}
    done, total = 0, len(run.token_ids) * (1 + len(found))
    for row in run.token_ids:
        ids, outputs = row[None].to(run.device), list[Tensor]()
        reference = ReferenceLogits.of(_run(original, ids, partial(_keep, outputs)), ids)
        clean.append(reference.own())
        for layer, output in enumerate(outputs):
            norms[layer].append(_norm(output))
        for name, one in found.items():
            done += 1
            progress("costs", done, total)
            with ExitStack() as entered:
                for handle in handles.get(name, ()):
                    entered.enter_context(handle)
                stack = packed if name == stored else original
                logits = _run(stack, ids.to(device_of(stack.model)), partial(_compare, outputs, one.moved))
            one.tokens.append(reference.against(logits.to(reference.logits.device)))
        done += 1
        progress("costs", done, total)
    return clean, norms, found


def _keep(outputs: list[Tensor], layer: int, x: Tensor) -> None:
    outputs.append(x)


def _compare(outputs: Sequence[Tensor], moved: Sequence[list[float]], layer: int, x: Tensor) -> None:
    moved[layer].append(_norm(x.to(outputs[layer].device).float() - outputs[layer].float()))


def _run(stack: LayerStack, ids: Tensor, seen: Callable[[int, Tensor], object]) -> Tensor:
    """The logits; every layer's output is shown on the way."""

    def visitor(call: LayerCall) -> Any:
        output = call.output(call.hidden)
        seen(call.index, first(output))
        return output

    logits = logits_of(stack.visit(ids, visitor))
    assert logits is not None, "there is a head"
    return logits


def _norm(x: Tensor) -> float:
    return float(to_float64(x).square().sum())
