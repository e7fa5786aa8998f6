"""Whether a packed checkpoint is better or worse than rounding to nearest, from a scan against its original.

Not here: measuring (srdd.runs.scans.stored, srdd.runs.impact.reference), words and columns
(srdd.exporters.screen.stored).

Worked number: codes with sum_e2 2 and fresh ones with 1 are 3.01 dB worse, whatever the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from srdd.analysis.verdicts import FIRM
from srdd.core.formats import FORMATS, is_stored
from srdd.core.uncertainty import mean_and_error
from srdd.documents.costs import Costs, WholeCost
from srdd.documents.report import Report
from srdd.documents.schema import Site

MUCH_DB = 0.5  # by which a weight's codes are called worse than fresh ones


@dataclass(frozen=True)
class Errors:
    """Weights taken together, their ratios of sums; nan of what was not measured, inf without noise."""

    weights: int
    stored_db: float
    fresh_db: float

    @property
    def gain_db(self) -> float:
        """How much better the codes are; 0 where neither has an error."""
        return 0.0 if self.stored_db == self.fresh_db else self.stored_db - self.fresh_db


@dataclass(frozen=True)
class Form:
    """All weights of one form."""

    stored: str
    fresh: str | None  # the format rounded to nearest; None where none has the form's tiles
    errors: Errors
    roles: tuple[tuple[str, Errors], ...]  # worst first
    much_worse: tuple[tuple[str, float], ...]  # names and gain_db of weights that are MUCH_DB worse, worst first
    much_better: int


@dataclass(frozen=True)
class CostBeside:
    """What the packed model costs beside the fresh one, paired by unit of text."""

    stored: WholeCost
    fresh: WholeCost
    difference: float  # of KL in nats a token, stored less fresh
    error: float | None

    @property
    def firm(self) -> bool:
        """Whether the difference is more than two of its standard errors, or known without any."""
        return self.error is not None and abs(self.difference) > FIRM * self.error


@dataclass(frozen=True)
class Stored:
    """All facts; `costs` is None where they were not measured, or not both."""

    forms: tuple[Form, ...]
    costs: CostBeside | None

    @property
    def errors_and_cost_disagree(self) -> bool:
        """Larger errors of weights and a smaller cost, as of codecs that bend errors to cancel; or the reverse."""
        gains = [form.errors.gain_db for form in self.forms if form.fresh is not None]
        if self.costs is None or not self.costs.firm or not gains:
            return False
        return all(gain < 0 for gain in gains) if self.costs.difference < 0 else all(gain > 0 for gain in gains)


def stored_facts(report: Report) -> Stored | None:
    """The facts; None for a report that names no stored codes."""
    specs = [spec for spec in report.settings.formats if is_stored(spec)]
    if not specs:
        return None
    return Stored(tuple(_form(report, spec) for spec in specs), _costs(report.costs))


def _form(report: Report, spec: str) -> Form:
    sites = [site for site in report.sites if spec in site.formats]
    default = FORMATS[name].spec if (name := spec.partition(":")[0]) in FORMATS else None
    fresh = default if any(default in site.formats for site in sites) else None
    by_role: dict[str, list[Site]] = {}
    for site in sites:
        by_role.setdefault(site.role, []).append(site)
    roles = [(role, _errors(of_role, spec, fresh)) for role, of_role in by_role.items()]
    gains = [(site.name, _errors([site], spec, fresh).gain_db) for site in sites]
    return Form(
        stored=spec,
        fresh=fresh,
        errors=_errors(sites, spec, fresh),
        roles=tuple(sorted(roles, key=lambda row: (row[1].gain_db, row[1].stored_db))),
        much_worse=tuple(sorted(((n, db) for n, db in gains if db < -MUCH_DB), key=lambda row: row[1])),
        much_better=sum(db > MUCH_DB for _, db in gains),
    )


def _errors(sites: Sequence[Site], spec: str, fresh: str | None) -> Errors:
    return Errors(len(sites), _db(sites, spec), _db(sites, fresh))


def _db(sites: Sequence[Site], spec: str | None) -> float:
    tallies = [site.formats[spec].merged() for site in sites if spec in site.formats]
    signal, noise = (math.fsum(getattr(tally, name) for tally in tallies) for name in ("sum_x2", "sum_e2"))
    if not signal:
        return math.nan
    return 10 * math.log10(signal / noise) if noise else math.inf


def _costs(costs: Costs | None) -> CostBeside | None:
    rows = costs.whole if costs is not None else []
    stored = next((row for row in rows if is_stored(row.format)), None)
    if stored is None:
        return None
    names = [part.partition(":")[0] for part in stored.format.split("+")]
    wanted = {"+".join(sorted(FORMATS[name].spec for name in names if name in FORMATS))}
    fresh = next((row for row in rows if row.format in wanted), None)
    if fresh is None:
        return None
    pairs = zip(stored.kl.by_unit, fresh.kl.by_unit, strict=False)
    differences = [a - b for a, b in pairs] if len(stored.kl.by_unit) == len(fresh.kl.by_unit) else []
    if len(differences) < 2:
        return CostBeside(stored, fresh, stored.kl.value - fresh.kl.value, None)
    return CostBeside(stored, fresh, *mean_and_error(differences))
