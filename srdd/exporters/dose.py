"""How much noise a rin.yaml starts with, what it costs and what the model bears, in words for terminal and page.

Not here: the numbers (srdd.analysis.dose).

Worked number: sigma 0.0107 where the model breaks at 0.0262 is "0.41 of it".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from srdd.analysis.breaks import source_in_words
from srdd.core.metrics import significant

if TYPE_CHECKING:
    from srdd.documents.rin import RinConfig

_UNKNOWN = (
    "how much noise the model bears is not known here: scan it with costs, or `srdd probe` it. What a model with "
    "16-bit activations bears can break one with 4-bit activations."
)


def dose_lines(config: RinConfig) -> list[str]:
    """What the first noise costs, how loud it is, and how far from the break."""
    dose, start = config.dose, config.schedule.sigma_start
    if dose is None:
        return [_UNKNOWN]
    lines = []
    if dose.predicted_kl is not None:
        cost = significant(dose.predicted_kl.value, dose.predicted_kl.error)
        lines.append(f"at sigma {start:g} it costs {cost} nats a token, predicted to second order")
    if dose.rms_share is not None:
        lines.append(f"its rms is {100 * dose.rms_share:.2g} % of that of the weights")
    if dose.break_sigma is None:
        return [*lines, _UNKNOWN]
    between = f" ({dose.break_interval[0]:.3g} to {dose.break_interval[1]:.3g})" if dose.break_interval else ""
    breaking = f"{dose.break_sigma:.3g}{between}"
    return [
        *lines,
        f"the model breaks at sigma {breaking}, {source_in_words(dose)}: {start / dose.break_sigma:.2g} of it",
    ]
