"""`predict_costs`: the costs of a scan. One forward and one backward pass per sequence price every layer, fusion group,
Linear and expert in all formats and modes; two forward passes more per format measure the whole model.

Not here: sweeps over layers (run.py), and which tokens of a scan are taken (srdd.runs.cost_tokens). What is predicted
takes the routing of a mixture as it is (fisher.py). Quantized weights are kept for the run: one more copy of the
weights per format. Formats that round stochastically run again with every draw, with the same labels.

    costs = predict_costs(model, sequences, ["mxfp4", "nvfp4"])

Worked number: three formats on 6 sequences are 6 forward and 6 backward passes, and 36 quantized forward passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from srdd.core.formats import BlockFormat
from srdd.core.modes import MODES, Mode
from srdd.documents.costs import Costs, CostSettings
from srdd.documents.mean_of_draws import mean_of_draws
from srdd.documents.parts import Calibration
from srdd.errors import SettingError
from srdd.models.fake import EXCLUDE, fake_quantize, left_out_by
from srdd.models.quantizer import Quantizer
from srdd.models.running import evaluating, run
from srdd.models.stack import logits_of
from srdd.runs.calibration import Sequences
from srdd.runs.divergence import ReferenceLogits
from srdd.runs.impact.fisher import Fisher
from srdd.runs.impact.priced import expert_rows, group_rows, linear_rows, sensitivity_rows, unpriced_rows
from srdd.runs.impact.request import DRAWS, Sensitive
from srdd.runs.impact.rows import Tokens, clean_row, predicted_layers, whole_row
from srdd.runs.impact.subject import Subject, headless, subject_of
from srdd.runs.setup import Progress, Run, backend_used, open_loss_run, part_of, silent

WHOLE: tuple[Mode, ...] = ("weight", "both")  # what deployed stacks quantize
_BACKWARD = 4  # a prediction takes as long as so many quantized forward passes, about


def predict_costs(
    model: nn.Module,
    sequences: Tensor | Sequences,
    formats: Sequence[BlockFormat],
    *,
    sensitive: Sequence[Sensitive] = ("norm",),
    label_samples: int = 1,
    exclude: str | Sequence[str] = (),
    default_exclude: Sequence[str] = EXCLUDE,
    backend: str = "auto",
    seed: int = 0,
    progress: Progress = silent,
) -> Costs:
    """What each format costs, on int64 `sequences` [count, length] of at least 2 tokens.

    Formats that round stochastically get the mean and the spread over 4 draws. Raises SettingError for a model without
    a language-model head, SiteError for one whose layers cannot be found, CalibrationError, NonfiniteError.
    """
    patterns = left_out_by(exclude, default_exclude)
    opened = open_loss_run(model, sequences, formats, repeats=_repeats(model, sequences), backend=backend)
    with evaluating(model):
        subject = subject_of(model, opened.sites, opened.token_ids[:1].to(opened.device), patterns)
        if not subject.has_head:
            raise SettingError("costs", "predicted", f"{headless(model)} to measure costs at")
        settings = CostSettings(
            formats=[],
            modes=list(MODES),
            how=["predicted"],
            calibration=_calibration(opened),
            label_samples=label_samples,
            exclude=patterns,
            left_out=list(subject.left_out),
            sensitive=list(sensitive),
            seed=seed,
        )
        drawn = [fmt for fmt in formats if fmt.stochastic]
        rounds = [formats, *[drawn] * (DRAWS - 1 if drawn else 0)]
        parts = []
        for draw, some in enumerate(rounds):
            quantizers = [Quantizer(fmt, opened.backend, seed, draw, kept={}) for fmt in some]
            wanted = () if draw else sensitive
            fisher = subject.fisher(quantizers, wanted, label_samples=label_samples, seed=seed)
            clean, whole = _run(model, opened, fisher, quantizers, patterns, part_of(progress, draw, len(rounds)))
            used = {"formats": [fmt.spec for fmt in some], "backend": backend_used(opened.backend)[0]}
            parts.append(_costs(settings.model_copy(update=used), subject, fisher, clean, whole))
    return mean_of_draws(parts, [fmt.spec for fmt in drawn])


def _costs(
    settings: CostSettings,
    subject: Subject,
    fisher: Fisher,
    clean: Sequence[Tokens],
    whole: Mapping[tuple[str, Mode], list[Tokens]],
) -> Costs:
    specs, tokens = settings.formats, settings.calibration.seq_len - 1
    return Costs(
        settings=settings,
        clean=clean_row(clean),
        whole=[whole_row(spec, mode, whole[spec, mode]) for spec in specs for mode in WHOLE],
        layers=list(predicted_layers(subject.stack.names, specs, fisher.scores, tokens)),
        groups=group_rows(subject, specs, fisher, tokens),
        linears=linear_rows(subject, specs, fisher, tokens),
        experts=expert_rows(subject, specs, fisher, tokens),
        sensitivities=sensitivity_rows(subject, fisher, tokens),
        unpriced=unpriced_rows(subject, fisher),
    )


def _calibration(opened: Run) -> Calibration:
    assert opened.calibration is not None, "a run of losses has tokens"
    return opened.calibration


def _repeats(model: nn.Module, sequences: Tensor | Sequences) -> int:
    """How much is quantized, in units of all weights: they once, and inputs twice, a hidden size for a weight's row."""
    ids = sequences if isinstance(sequences, Tensor) else sequences.token_ids
    config = getattr(model, "config", None)
    hidden = getattr(getattr(config, "text_config", config), "hidden_size", None)
    return 1 + 2 * ids.numel() // (hidden if isinstance(hidden, int) and hidden > 0 else 1024)


def _run(
    model: nn.Module,
    opened: Run,
    fisher: Fisher,
    quantizers: Sequence[Quantizer],
    exclude: Sequence[str],
    progress: Progress,
) -> tuple[list[Tokens], dict[tuple[str, Mode], list[Tokens]]]:
    """Costs of every token, clean and in each format and mode; only one sequence's logits are ever held."""
    handles = {
        (q.name, mode): fake_quantize(model, q, mode, exclude=exclude, default_exclude=())
        for q in quantizers
        for mode in WHOLE
    }
    clean: list[Tokens] = []
    whole: dict[tuple[str, Mode], list[Tokens]] = {key: [] for key in handles}
    done, total = 0, len(opened.token_ids) * (_BACKWARD + len(handles))
    for row, name in zip(opened.token_ids, _calibration(opened).sequence_hashes, strict=True):
        for quantizer in quantizers:
            quantizer.sequences[:] = [name]
        ids = row[None].to(opened.device)
        reference = ReferenceLogits.of(fisher.run(ids, {}), ids)
        clean.append(reference.own())
        done += _BACKWARD
        progress("costs", done, total)
        for key, handle in handles.items():
            with handle, torch.no_grad():
                logits = logits_of(run(model, ids))
            assert logits is not None, "the clean pass gave logits"
            whole[key].append(reference.against(logits))
            done += 1
            progress("costs", done, total)
    return clean, whole
