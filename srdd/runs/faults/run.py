"""`find_faults`: every layer and module of a model run alone, and the document of what is broken.

    found = srdd.find_faults(model, token_ids)
    for finding in found.findings: print(finding.kind, finding.layer, finding.module, finding.size)

Not here: one layer (alone.py), the verdict (srdd.analysis.faults), opening models and the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from srdd.analysis.faults import judged
from srdd.core.formats import BlockFormat
from srdd.core.formats import parse as parse_format
from srdd.documents.fault import Faults, FaultSettings, ModuleHealth
from srdd.documents.parts import Model
from srdd.documents.report import Report
from srdd.errors import SettingError
from srdd.kernels.precision import to_float64
from srdd.models.fake import EXCLUDE, fake_quantize
from srdd.models.faults import planted_in
from srdd.models.placement import device_of
from srdd.models.running import evaluating, explained, run
from srdd.models.sites import find_sites
from srdd.models.stack import LayerStack
from srdd.runs.calibration import Sequences
from srdd.runs.faults.against import note_agreement
from srdd.runs.faults.alone import PERTURBATIONS, Draw, gains, layer_health
from srdd.runs.faults.capture import Call, Capture
from srdd.runs.setup import Progress, open_run, silent

Depth = Literal["layer", "linear"]
AT_SIZE = 2  # of PERTURBATIONS, for the study's criterion


def find_faults(
    model: nn.Module,
    sequences: Tensor | Sequences,
    *,
    depth: Depth = "linear",
    reference: Faults | Report | None = None,
    reference_sha256: str | None = None,
    against: nn.Module | None = None,
    spec: str | BlockFormat | None = "mxfp4",
    backend: str = "auto",
    seed: int = 0,
    identity: Model | None = None,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Faults:
    """Which layer or module is broken, and how. `sequences` is int64 [count, length]; all run in one batch.

    `depth` "layer" leaves Linears out, which is faster and finds less. `reference` is an earlier document of the same
    model. `against` is the same model on another device. `spec` is the format of the study's criterion, None for none.
    Raises SettingError, SiteError, CalibrationError, ReportError for a reference of another model.
    """
    if depth not in ("layer", "linear"):
        raise SettingError("depth", repr(depth), "expected layer or linear")
    fmt = None if spec is None else parse_format(spec)
    started = time.monotonic()
    sites = find_sites(model, ("weight", "input"))
    opened = open_run(
        model, sequences, [fmt] if fmt else [], sites, elements=lambda n: n, backend=backend, identity=identity
    )
    assert opened.calibration is not None, "inputs have tokens"
    stack, ids = LayerStack(model), opened.token_ids.to(opened.device)
    modules: list[ModuleHealth] = []

    def on_layer(index: int, layer: Call, inside: list[Call]) -> None:
        modules.extend(
            layer_health(model, capture, index, layer, inside, linears=depth == "linear", draw=_normal(seed))
        )
        progress("layers alone", index + 1, len(stack))

    capture = Capture(stack, on_layer)
    with evaluating(model), explained(model, ids[:1]), torch.no_grad():
        with capture.hooked():
            run(model, ids)
        if against is not None:
            note_agreement(modules, model, against, ids)
        if fmt is not None:
            _note_quantized(model, stack, fmt, ids, modules, seed, backend, progress)
    document = Faults(
        model=opened.identity,
        settings=FaultSettings(
            depth=depth,
            perturbations=list(PERTURBATIONS),
            against=None if against is None else str(device_of(against)),
            format=None if fmt is None else fmt.spec,
            seed=seed,
            **opened.settings(),
        ),
        modules=modules,
        warnings=[*notes, *planted_in(model)],
        provenance={**opened.provenance(), "seconds": round(time.monotonic() - started, 2)},
    )
    return judged(document, reference, reference_sha256)


def _note_quantized(
    model: nn.Module,
    stack: LayerStack,
    fmt: BlockFormat,
    ids: Tensor,
    modules: Sequence[ModuleHealth],
    seed: int,
    backend: str,
    progress: Progress,
) -> None:
    """Gain and kurtosis of every layer while the model computes in the format, over those without."""
    layers = {row.layer: row for row in modules if not row.module}

    def on_layer(index: int, layer: Call, inside: list[Call]) -> None:
        row = layers[index]
        if row.gains and layer.output is not None:
            answer = gains(capture, layer, _normal(seed))[AT_SIZE]
            row.quantized_gain = answer / row.gains[AT_SIZE] if row.gains[AT_SIZE] else None
            y = to_float64(layer.output)
            kurtosis = float((y / y.square().mean().sqrt()).pow(4).mean())
            row.quantized_kurtosis = kurtosis / row.kurtosis_out if row.kurtosis_out else None
            for name in ("quantized_gain", "quantized_kurtosis"):
                value = getattr(row, name)
                if value is not None and not abs(value) < 1e300:
                    setattr(row, name, None)
        progress("quantized", index + 1, len(stack))

    capture = Capture(stack, on_layer)
    with fake_quantize(model, fmt, "both", exclude=EXCLUDE, backend=backend), capture.hooked():
        run(model, ids)


def _normal(seed: int) -> Draw:
    def draw(x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(x.shape, generator=generator, device="cpu").to(x)

    return draw
