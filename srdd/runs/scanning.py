"""`scan`: error statistics of the tensors of a model in memory and, where asked for, what formats cost it.

Not here: the tensors (scans/model.py), which tokens costs are measured on (cost_tokens.py), measuring costs
(srdd.runs.impact), checkpoints without a model (scans/checkpoint.py) and the terminal.

    report = srdd.scan(model, token_ids, formats="mxfp4,nvfp4")      # token_ids: [sequences, length]
    report = srdd.scan(model, token_ids, formats="mxfp4,nvfp4", costs="predicted")
    report.save("srdd-report.json")
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from srdd.core.formats import BlockFormat, parse_list
from srdd.documents.costs import Costs
from srdd.documents.parts import KINDS, Model, Note
from srdd.documents.report import Report
from srdd.errors import CalibrationError, NoEffectError, SettingError, SrddError, setting
from srdd.models.fake import EXCLUDE, left_out_by
from srdd.models.modules import fused_experts, is_linear, require_module
from srdd.models.placement import device_of
from srdd.models.running import evaluating
from srdd.models.selection import Selection
from srdd.models.sites import SiteMap
from srdd.models.stack import LayerStack
from srdd.models.wrapped import named_modules
from srdd.runs.calibration import Sequences
from srdd.runs.cost_tokens import cost_sequences
from srdd.runs.impact.predict import WHOLE, predict_costs
from srdd.runs.impact.request import Sensitive, chosen
from srdd.runs.impact.run import measure_impact
from srdd.runs.impact.subject import has_head, headless
from srdd.runs.scans.model import scan_tensors
from srdd.runs.setup import Progress, silent
from srdd.runs.token_ids import token_ids_of

CostKind = Literal["none", "auto", "predicted", "measured"]
_WEAK = "layers are ranked by error statistics, which predict damage poorly"


def scan(
    model: nn.Module,
    sequences: Tensor | Sequences | None = None,
    formats: str | BlockFormat | Sequence[str | BlockFormat] = "mxfp4",
    sites: str | Sequence[str] | Selection | SiteMap = KINDS,
    *,
    costs: CostKind = "none",
    cost_tokens: int | None = None,
    sensitive: Sensitive | Sequence[Sensitive] = ("norm",),
    unquantized: str | Sequence[str] = (),
    default_exclude: Sequence[str] = EXCLUDE,
    batch_size: int = 4,
    backend: str = "auto",
    seed: int = 0,
    thresholds: dict[str, float] | None = None,
    identity: Model | None = None,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Report:
    """Measure weights, Linear inputs and layer outputs of `model` under every format in one pass.

    `sequences` is int64 [count, length] without padding, needed for activations; each row is one unit of the standard
    errors. `sites` are kinds, a Selection, or what a Selection found in this model. The model runs as it is, in eval
    mode and without gradients; every module's own mode is restored. `thresholds` replaces the classic limits, by
    metric, ratios as 0.1 for 10 %; `seed` is that of stochastic rounding.

    `costs` adds what the formats cost the model: "predicted" from gradients, "measured" also by quantizing every layer
    alone, "auto" predicts where that is possible and notes why where it is not, as `srdd scan` does. The default is
    "none": costs need a backward pass, a copy of the weights per format and a language-model head, and none of that
    should befall whoever scans a model in the middle of its training. `cost_tokens` of the tokens serve, about 1,280
    where it is not given; `sensitive`, `unquantized` and `default_exclude` are the `sensitive`, `exclude` and
    `default_exclude` of measure_impact.

    Raises SrddError subclasses: FormatError, SiteError, SettingError, CalibrationError, BackendError, TensorError.
    """
    started = time.monotonic()
    parsed = parse_list([formats] if isinstance(formats, str | BlockFormat) else formats)
    chosen("costs", costs, get_args(CostKind))
    sensitivities = chosen("sensitive", sensitive, get_args(Sensitive))
    if costs == "none" and cost_tokens is not None:
        raise NoEffectError("cost_tokens", f"with {setting('costs', 'none')}")
    require_module(model)
    some, missing = _tokens_of_costs(model, sequences, costs, cost_tokens)
    report = scan_tensors(
        model,
        sequences,
        parsed,
        sites,
        batch_size=batch_size,
        backend=backend,
        seed=seed,
        thresholds=thresholds,
        identity=identity,
        notes=notes,
        progress=progress,
    )
    found: Costs | None = None
    if some is not None:
        try:
            exclude = _matching(model, left_out_by(unquantized, default_exclude))
            if costs == "measured":
                found = measure_impact(
                    model,
                    some,
                    parsed,
                    WHOLE,
                    how=("predicted", "layers"),
                    sensitive=sensitivities,
                    exclude=exclude,
                    default_exclude=(),
                    backend=backend,
                    seed=seed,
                    progress=lambda _, done, total: progress("costs", done, total),
                ).costs
            else:
                found = predict_costs(
                    model,
                    some,
                    parsed,
                    sensitive=sensitivities,
                    exclude=exclude,
                    default_exclude=(),
                    backend=backend,
                    seed=seed,
                    progress=progress,
                )
        except (SrddError, MemoryError, RuntimeError, NotImplementedError) as problem:
            missing = _why(problem)
            if costs != "auto" or missing is None:
                raise
    warnings = [*report.warnings, *([] if missing is None else [Note(f"no costs: {missing}; {_WEAK}")])]
    provenance = {**report.provenance, "seconds": round(time.monotonic() - started, 2)}
    return report.model_copy(update={"costs": found, "warnings": warnings, "provenance": provenance})


def _tokens_of_costs(
    model: nn.Module, sequences: Tensor | Sequences | None, costs: CostKind, cost_tokens: int | None
) -> tuple[Sequences | None, str | None]:
    """The sequences that costs are measured on, or why they cannot be; refused before anything runs if asked for.

    Raises CalibrationError, SettingError.
    """
    if costs == "none":
        return None, None
    if sequences is None:
        if costs == "auto":
            return None, "no tokens were run"
        raise CalibrationError(f"{setting('costs', costs)} needs token ids: pass sequences [count, length]")
    token_ids_of(sequences, model)
    some = cost_sequences(sequences, cost_tokens)
    try:
        if some.token_ids.shape[1] < 2:
            raise CalibrationError("sequences of 1 token predict nothing; expected at least 2 tokens")
        stack = LayerStack(model)
        with evaluating(model):
            there = has_head(stack, some.token_ids[:1].to(device_of(model)))
    except SrddError as problem:
        if costs == "auto":
            return None, str(problem)
        raise
    if there:
        return some, None
    if costs == "auto":
        return None, headless(model)
    raise SettingError("costs", costs, f"{headless(model)} to measure costs at")


def _why(problem: Exception) -> str | None:
    """A failure that leaves the statistics as they are, in words; None for a bug."""
    if isinstance(problem, SrddError):
        return str(problem)
    if isinstance(problem, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(problem):
        return "too little memory for a backward pass and a copy of the weights per format"
    if isinstance(problem, NotImplementedError):
        return f"the model has no backward pass ({problem})"
    return None


def _matching(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The patterns that leave a Linear out: others are about sites that do not quantize."""
    names = [name for name, module in named_modules(model) if is_linear(module) or fused_experts(module)]
    return [p for p in patterns if p in EXCLUDE or any(fnmatchcase(name, p) for name in names)]
