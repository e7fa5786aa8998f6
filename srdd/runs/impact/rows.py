"""Rows of the impact document from what a run has gathered.

Not here: measuring. Sequences are the unit of every standard error; tokens of quantiles are taken all together.
Worked number: predictions of 0.2 and 0.4 nats, summed over two sequences of 511 tokens each, are 0.00059 a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from torch import Tensor

from srdd.core.modes import MODES, Mode
from srdd.documents.parts import Estimate
from srdd.kernels.precision import to_float64
from srdd.models.sites import Site
from srdd.runs.divergence import quantile
from srdd.runs.impact.as_version_1 import LayerImpact, LinearImpact, Reference, WholeImpact
from srdd.runs.impact.estimates import mean, ratio_of_sums, share_change
from srdd.runs.impact.fisher import Fisher, Score
from srdd.runs.impact.linears import OutputErrors
from srdd.runs.impact.sweep import LayerErrors, SweepResult, Variant

_LARGEST_EXPONENT = 700.0  # exp of more overflows a float64


def linear_row(
    site: Site,
    spec: str,
    measured: OutputErrors,
    predicted: dict[tuple[str, str, str], Score],
    tokens: int,
) -> LinearImpact:
    """One Linear under one format; its prediction costs the same for one mode as for all."""
    squares = {mode: math.fsum(measured.errors[mode]) for mode in MODES}
    both = squares["both"]
    kls = {}
    for mode in MODES:
        score = predicted.get((spec, mode, site.module))
        if score is not None:
            kls[mode] = mean([value / tokens for value in score.diagonal])
    return LinearImpact(
        module=site.module,
        role=site.role,
        layer=site.layer,
        group=site.group,
        format=spec,
        output_error={mode: ratio_of_sums(measured.errors[mode], measured.output) for mode in MODES},
        interaction=(both - squares["weight"] - squares["input"]) / both if both > 0 else 0.0,
        predicted_kl=kls,
    )


def rows_of_layers(
    names: Sequence[str],
    variants: Sequence[Variant],
    results: Sequence[SweepResult],
    fisher: Fisher | None,
    tokens: int,
    scores: dict[tuple[str, int], dict[str, float]],
) -> list[LayerImpact]:
    rows = []
    for variant in variants:
        spec, mode = variant.quantizer.name, variant.mode
        below: float | None = None
        for index in range(len(names)):
            key = (spec, mode, index)
            parts = [r.layers[key] for r in results]
            joined = _joined(parts)
            cumulative = ratio_of_sums(joined.cumulative, joined.clean)
            swaps = [kl for r in results if key in r.swaps for kl in r.swaps[key]]
            noises = [kl for r in results if key in r.noises for kl in r.noises[key]]
            rows.append(
                LayerImpact(
                    layer=index,
                    format=spec,
                    point=mode,
                    isolated=ratio_of_sums(joined.isolated, joined.clean),
                    cumulative=cumulative,
                    growth=cumulative.value / below if below else None,
                    predicted_kl=_per_token(fisher.layers.get(key), tokens) if fisher else None,
                    predicted_kl_joint=_per_token(fisher.layer_sums.get(key), tokens) if fisher else None,
                    predicted_kl_modules=_summed(fisher, key, names[index], tokens) if fisher else None,
                    swap_error=_swap_error(results, key),
                    swap_kl=mean([to_float64(kl).mean().item() for kl in swaps]) if swaps else None,
                    noise_kl=mean([to_float64(kl).mean().item() for kl in noises]) if noises else None,
                    scores=scores.get((spec, index), {}),
                )
            )
            below = cumulative.value
    return rows


def _swap_error(results: Sequence[SweepResult], key: tuple[str, str, int]) -> Estimate | None:
    if not all(key in result.swap_errors for result in results):
        return None
    errors = [value for result in results for value in result.swap_errors[key]]
    return ratio_of_sums(errors, [value for result in results for value in result.last])


def _joined(parts: Sequence[LayerErrors]) -> LayerErrors:
    """The sequences of all batches, one after the other."""
    joined = LayerErrors()
    for part in parts:
        joined.clean += part.clean
        joined.isolated += part.isolated
        joined.cumulative += part.cumulative
    return joined


def _per_token(score: Score | None, tokens: int) -> Estimate | None:
    return None if score is None else mean([value / tokens for value in score.diagonal])


def _summed(fisher: Fisher, key: tuple[str, str, int], layer: str, tokens: int) -> Estimate | None:
    """The predictions of a layer's Linears, added sequence by sequence."""
    scores = [
        score
        for (spec, mode, name), score in fisher.modules.items()
        if (spec, mode) == key[:2] and name.startswith(f"{layer}.")
    ]
    if not scores:
        return None
    return mean([math.fsum(column) / tokens for column in zip(*(s.diagonal for s in scores), strict=True)])


def _per_sequence(results: Sequence[SweepResult], of: Callable[[SweepResult], Tensor]) -> list[float]:
    return [to_float64(row).mean().item() for result in results for row in of(result)]


def reference_row(results: Sequence[SweepResult]) -> Reference:
    loss = mean(_per_sequence(results, lambda r: r.reference["loss"]))
    entropy = mean(_per_sequence(results, lambda r: r.reference["entropy"]))
    return Reference(loss=loss, perplexity=math.exp(min(loss.value, _LARGEST_EXPONENT)), entropy=entropy)


def whole_row(variant: Variant, results: Sequence[SweepResult], layers: Sequence[LayerImpact]) -> WholeImpact:
    key = variant.key
    clean = _per_sequence(results, lambda r: r.reference["loss"])
    losses = _per_sequence(results, lambda r: r.whole[key]["loss"])
    kls = [value for r in results for value in r.whole[key]["kl"].flatten().tolist()]
    kl = mean(_per_sequence(results, lambda r: r.whole[key]["kl"]))
    mine = [row for row in layers if (row.format, row.point) == key]
    swaps = [row.swap_kl.value for row in mine if row.swap_kl is not None]
    predicted = [row.predicted_kl.value for row in mine if row.predicted_kl is not None]
    changed = any(value != 0 for value in kls) or any(row.cumulative.value != 0 for row in mine)
    return WholeImpact(
        format=variant.quantizer.name,
        point=variant.mode,
        loss=mean(losses),
        loss_change=share_change(losses, clean),
        perplexity=math.exp(min(fmean(losses), _LARGEST_EXPONENT)),
        kl=kl,
        kl_median=quantile(kls, 0.5),
        kl_p90=quantile(kls, 0.9),
        kl_p99=quantile(kls, 0.99),
        kl_max=max(kls),
        top1=mean(_per_sequence(results, lambda r: r.whole[key]["top1"])),
        additivity=math.fsum(swaps) / kl.value if swaps and kl.value > 0 else None,
        additivity_predicted=math.fsum(predicted) / kl.value if predicted and kl.value > 0 else None,
        no_effect=not changed,
    )


def group_sums(rows: Sequence[LinearImpact]) -> dict[str, dict[str, dict[Mode, float]]]:
    """Predicted KL of the Linears that serving stacks fuse, added."""
    groups: dict[str, dict[str, dict[Mode, float]]] = {}
    for row in rows:
        if row.group is None or not row.predicted_kl:
            continue
        sums = groups.setdefault(row.format, {}).setdefault(row.group, {})
        for mode, estimate in row.predicted_kl.items():
            sums[mode] = sums.get(mode, 0.0) + estimate.value
    return groups


def group_swaps(results: Sequence[SweepResult]) -> dict[str, dict[str, dict[Mode, Estimate]]]:
    """Measured KL of each group quantized alone, by format, group and mode."""
    groups: dict[str, dict[str, dict[Mode, Estimate]]] = {}
    for key in results[0].unit_swaps if results else ():
        spec, mode, name = key
        kls = [to_float64(row).mean().item() for result in results for row in result.unit_swaps[key]]
        groups.setdefault(spec, {}).setdefault(name, {})[mode] = mean(kls)
    return groups
