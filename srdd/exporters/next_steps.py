"""What to do next about a report, each step with the command to type where srdd can do it.

Not here: the verdict (srdd.analysis.overview). Commands with flags are the language of shells, so they are composed
here and not in the analysis. Names come from strangers' checkpoints and a command is copied into a shell, so a name
that is more than a name becomes a placeholder.

Worked number: the model "a; rm -rf ~" is typed as MODEL, a folder called llama as path/to/llama.
"""

from __future__ import annotations

from dataclasses import dataclass

from srdd.analysis.bundle import Bundle
from srdd.analysis.overview import Overview
from srdd.analysis.short_names import name_of, short_name
from srdd.core.formats import is_stored
from srdd.core.layers import span
from srdd.core.metrics import significant
from srdd.documents.advice import Advice, NoiseAdvice
from srdd.exporters.typed import typed as _typed
from srdd.exporters.typed import typed_model as _model

_NAMED = 4  # groups of a keep-list


@dataclass(frozen=True)
class Step:
    """One thing to do next, where srdd can do it the command to type, and the section of a page that shows more."""

    why: str
    command: str | None = None
    section: str | None = None


def next_steps(bundle: Bundle, answers: Overview) -> list[Step]:
    """In the order in which they help."""
    kind, spec, advice = answers.kind, answers.spec, answers.advice
    model, file = _model(bundle.report.model), _typed(bundle.name, "REPORT")
    of = "" if answers.ranked_by else f"--site {kind} "  # a cost is of whole layers
    quant = (f"{of}--quant {spec}" if _typed(spec) == spec else of).strip()
    if bundle.report.has_errors:  # whatever else the numbers say, they say it of what is left of the tensors
        return [Step("Repair the tensors with NaN or infinities, then scan again.")]
    steps = []
    if advice and advice.remedies:
        steps += _remedies(advice, file, quant)
    elif advice and advice.verdict == "reconsider_format":
        passes = "it costs less" if answers.ranked_by else "it passes"
        why = f"Take {_with_bits(advice)}: {passes}." if advice.next_format else "No format of this report passes."
        scan = None if advice.next_format else f"srdd scan --model {model} --quant {_others(bundle)}"
        steps.append(Step(why, scan, "tradeoff"))
    elif advice and advice.flagged:
        kept = [row.layer for row in advice.flagged if row.action == "higher precision"]
        why = f"Keep layer(s) {span(sorted(kept))} in higher precision."
        steps.append(Step(why, f"srdd advise {file} {quant}", "heatmap"))
        if advice.verdict == "mixed_approach":
            noise = f"srdd multipliers {file} {quant} --out rin.yaml"
            steps.append(Step("Train the others with noise.", noise, "multipliers"))
    if answers.worst:
        look = f"srdd show {file} --layer {answers.worst[0].layer}"
        steps.append(Step("Look inside the worst layer.", look, "impact" if answers.ranked_by else "heatmap"))
    if bundle.costs is None:
        why = "An error of a tensor is not yet a loss of the model: measure what it costs."
        quant_of_cost = spec if _typed(spec) == spec else "FORMAT"
        impact = f"srdd impact --model {model} --quant {quant_of_cost} --out impact.json"
        steps.append(Step(why, f"srdd scan {model} --reference ORIGINAL" if is_stored(spec) else impact))
    if advice and advice.noise is not None:
        steps.append(_with_noise(advice.noise, file))
    steps.append(Step("Let no later checkpoint be worse.", f"srdd check new.json --baseline {file}"))
    return steps


def _remedies(advice: Advice, file: str, quant: str) -> list[Step]:
    """Where to begin, and the cheapest other format."""
    steps = []
    kept = next((one for one in advice.remedies if one.higher is not None), None)
    if kept is not None and kept.higher is not None:
        names = [short_name(group) for group in kept.keep[:_NAMED]]
        more = f" and {len(kept.keep) - _NAMED} more groups" if len(kept.keep) > _NAMED else ""
        kl = f"{significant(kept.kl.value, kept.kl.error)} nats predicted at {kept.bits_per_value:.2f} bits"
        why = f"Keep {', '.join(names)}{more} in {name_of(kept.higher)}: {kl}."
        steps.append(Step(why, f"srdd advise {file} {quant}".strip(), "impact"))
    other = next((one for one in advice.remedies if one.higher is None), None)
    if other is not None:
        kl = f"{significant(other.kl.value, other.kl.error)} nats measured at {other.bits_per_value:.2f} bits"
        steps.append(Step(f"Or take {name_of(other.base)} throughout: {kl}.", None, "tradeoff"))
    return steps


def _with_noise(noise: NoiseAdvice, file: str) -> Step:
    cost = noise.dose.predicted_kl
    said = "" if cost is None else f", which costs {significant(cost.value, cost.error)} nats"
    why = f"For noise in training start at sigma {noise.sigma_start:g}{said}."
    return Step(why, f"srdd multipliers {file} --strategy {noise.strategy} --out rin.yaml", "multipliers")


def _with_bits(advice: Advice) -> str:
    bits = {row.format: row.bits_per_value for row in advice.formats}
    new, old = bits[advice.next_format or ""], bits[advice.quant]
    return f"{advice.next_format}" + (f" ({new:g} bits a value instead of {old:g})" if new and old else "")


def _others(bundle: Bundle) -> str:
    measured = {spec.partition(":")[0] for spec in bundle.report.settings.formats}
    wanted = [name for name in ("nvfp4", "mxfp6_e2m3", "mxfp8_e4m3", "mxint8") if name not in measured]
    return ",".join(wanted) or "mxfp8_e4m3"
