"""Rows of costs from what a run has gathered.

Not here: measuring, and means with their errors (srdd.documents.costs). Every number keeps one value per sequence;
tokens of quantiles are taken all together. Worked number: predictions of 0.2 and 0.4 nats, summed over two sequences of
511 predicted tokens each, are 0.00059 a token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from srdd.core.modes import MODES, Mode
from srdd.documents.costs import Clean, Cost, LayerCost, LinearCost, Ratio, WholeCost
from srdd.errors import NonfiniteError, setting
from srdd.kernels.precision import to_float64
from srdd.models.sites import Site
from srdd.runs.divergence import quantile
from srdd.runs.impact.linears import OutputErrors
from srdd.runs.impact.scores import Score, Scores
from srdd.runs.impact.sweep import LayerErrors, SweepResult, Variant

Tokens = dict[str, Tensor]  # numbers of every token, [sequences, length - 1]


def cost(values: Sequence[float]) -> Cost:
    """The mean of one number per sequence. Raises NonfiniteError."""
    _refuse_nonfinite(values)
    return Cost.of(list(values))


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """sqrt(sum above / sum below). Raises NonfiniteError."""
    _refuse_nonfinite([*above, *below])
    return Ratio.of(list(above), list(below))


def per_token(score: Score | None, tokens: int) -> Cost | None:
    """A prediction in nats a token; None where there is none."""
    return None if score is None else cost([value / tokens for value in score.diagonal])


def by_mode(scores: Mapping[tuple[str, str, str], Score], spec: str, name: str, tokens: int) -> dict[Mode, Cost]:
    """The predictions of a module or fusion group in all modes: one costs the same as all."""
    found = {mode: per_token(scores.get((spec, mode, name)), tokens) for mode in MODES}
    return {mode: kl for mode, kl in found.items() if kl is not None}


def linear_row(
    site: Site, spec: str, measured: OutputErrors | None, predicted: dict[Mode, Cost], parameters: int
) -> LinearCost:
    errors: dict[Mode, Ratio] = {}
    interaction = None
    if measured is not None:
        errors = {mode: ratio(measured.errors[mode], measured.output) for mode in MODES}
        squares = {mode: math.fsum(measured.errors[mode]) for mode in MODES}
        both = squares["both"]
        interaction = (both - squares["weight"] - squares["input"]) / both if both > 0 else 0.0
    return LinearCost(
        module=site.module,
        role=site.role,
        layer=site.layer,
        group=site.group,
        parameters=parameters,
        format=spec,
        predicted_kl=predicted,
        output_error=errors,
        interaction=interaction,
    )


def predicted_layers(names: Sequence[str], specs: Sequence[str], scores: Scores, tokens: int) -> Iterator[LayerCost]:
    """The layers of a prediction without a sweep, in all modes."""
    for spec in specs:
        for mode in MODES:
            for index, name in enumerate(names):
                joint = per_token(scores.layer_sums.get((spec, mode, index)), tokens)
                if joint is not None:
                    yield LayerCost(
                        layer=index,
                        format=spec,
                        mode=mode,
                        predicted_kl=joint,
                        predicted_kl_linears=_summed(scores, (spec, mode, index), name, tokens),
                    )


def swept_layers(
    names: Sequence[str],
    variants: Sequence[Variant],
    results: Sequence[SweepResult],
    scores: Scores | None,
    tokens: int,
    classic: Mapping[tuple[str, int], dict[str, float]],
) -> list[LayerCost]:
    """The layers of a run with sweeps; `classic` are the scores of a scan by format and layer."""
    rows = []
    for variant in variants:
        spec, mode = variant.key
        for index, name in enumerate(names):
            key = (spec, mode, index)
            joined = _joined([r.layers[key] for r in results])
            swaps = [kl for r in results if key in r.swaps for kl in r.swaps[key]]
            noises = [kl for r in results if key in r.noises for kl in r.noises[key]]
            rows.append(
                LayerCost(
                    layer=index,
                    format=spec,
                    mode=mode,
                    isolated=ratio(joined.isolated, joined.clean),
                    cumulative=ratio(joined.cumulative, joined.clean),
                    predicted_kl=per_token(scores.layer_sums.get(key), tokens) if scores else None,
                    predicted_kl_own=per_token(scores.layers.get(key), tokens) if scores else None,
                    predicted_kl_linears=_summed(scores, key, name, tokens) if scores else None,
                    measured_error=_swap_error(results, key),
                    measured_kl=cost(_means(swaps)) if swaps else None,
                    noise_kl=cost(_means(noises)) if noises else None,
                    scores=dict(classic.get((spec, index), {})),
                )
            )
    return rows


def clean_row(tokens: Sequence[Tokens]) -> Clean:
    """The model as it is, from loss and entropy of every token of every batch."""
    return Clean(
        loss=cost(_per_sequence(tokens, "loss")),
        entropy=cost(_per_sequence(tokens, "entropy")),
    )


def whole_row(spec: str, mode: Mode, tokens: Sequence[Tokens], *, moved: bool = False) -> WholeCost:
    """Everything quantized, from loss, KL and agreement of every token; `moved`: some output changed."""
    kls = [value for batch in tokens for value in batch["kl"].flatten().tolist()]
    return WholeCost(
        format=spec,
        mode=mode,
        loss=cost(_per_sequence(tokens, "loss")),
        kl=cost(_per_sequence(tokens, "kl")),
        top1=cost(_per_sequence(tokens, "top1")),
        kl_quantiles={"0.5": quantile(kls, 0.5), "0.9": quantile(kls, 0.9), "0.99": quantile(kls, 0.99), "1": max(kls)},
        no_effect=not moved and not any(kls),
    )


def measured_groups(results: Sequence[SweepResult]) -> dict[tuple[str, str], dict[Mode, Cost]]:
    """Measured KL of each group quantized alone, by format and group."""
    groups: dict[tuple[str, str], dict[Mode, Cost]] = {}
    for key in results[0].unit_swaps if results else ():
        spec, mode, name = key
        kls = [kl for result in results for kl in result.unit_swaps[key]]
        groups.setdefault((spec, name), {})[mode] = cost(_means(kls))
    return groups


def _refuse_nonfinite(values: Sequence[float]) -> None:
    if not all(map(math.isfinite, values)):
        raise NonfiniteError(
            "a loss or an error came out as NaN or infinite: the model overflows in its type, with quantization or "
            f"without; take {setting('dtype', 'float32')} or bfloat16"
        )


def _swap_error(results: Sequence[SweepResult], key: tuple[str, str, int]) -> Ratio | None:
    if not all(key in result.swap_errors for result in results):
        return None
    errors = [value for result in results for value in result.swap_errors[key]]
    return ratio(errors, [value for result in results for value in result.last])


def _joined(parts: Sequence[LayerErrors]) -> LayerErrors:
    """The sequences of all batches, one after the other."""
    joined = LayerErrors()
    for part in parts:
        joined.clean += part.clean
        joined.isolated += part.isolated
        joined.cumulative += part.cumulative
    return joined


def _summed(scores: Scores, key: tuple[str, str, int], layer: str, tokens: int) -> Cost | None:
    """The predictions of a layer's modules, added sequence by sequence."""
    mine = [
        score
        for (spec, mode, name), score in scores.modules.items()
        if (spec, mode) == key[:2] and name.startswith(f"{layer}.")
    ]
    if not mine:
        return None
    return cost([math.fsum(column) / tokens for column in zip(*(s.diagonal for s in mine), strict=True)])


def _means(rows: Sequence[Tensor]) -> list[float]:
    return [to_float64(row).mean().item() for row in rows]


def _per_sequence(tokens: Sequence[Tokens], name: str) -> list[float]:
    return _means([row for batch in tokens for row in batch[name]])
