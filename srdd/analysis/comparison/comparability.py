"""Whether two reports may be compared: what must agree, and what may differ but is mentioned.

Not here: pairs of measurements (pairing.py). What must agree is the model (architecture, layers, parameters: a later
checkpoint of a training run is the same model), the calibration, the sites and the format with its scale rule. Ids,
devices and dtypes may differ.

Worked number: reports of 16 sequences in another order are comparable, since sums are the same in any; 15 of the 16 are
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from srdd.core.layers import span
from srdd.documents.parts import KINDS, Calibration, Kind, other_model, same_sequences
from srdd.errors import ReportError, setting

if TYPE_CHECKING:
    from srdd.documents.report import Report


def comparable(
    base: Report,
    new: Report,
    kinds: Sequence[Kind] | None = None,
    specs: Sequence[str] | None = None,
    *,
    across_quant: bool = False,
    allow_different_model: bool = False,
    allow_other_text: bool = False,
) -> list[str]:
    """What differs and does no harm, as sentences. `kinds` and `specs` are what will be compared, None all.
    Without a kind, as for costs alone, only the models are.

    Raises ReportError, naming the field and both values, for what cannot be compared.
    """
    for which, report in (("base", base), ("new", new)):
        if not report.sites and report.costs is None:
            raise ReportError(f"the {which} report is empty: it has no sites")
    notes = _models(base, new, allow_different_model)
    wanted = [kind for kind in KINDS if kind in _kinds(base) | _kinds(new)] if kinds is None else kinds
    for kind in wanted:
        for which, report in (("base", base), ("new", new)):
            if kind not in _kinds(report):
                has = ", ".join(kind for kind in KINDS if kind in _kinds(report))
                raise ReportError(
                    f"site set differs: the {which} report has no {kind} sites, only {has}; choose with "
                    f"{setting('kind')}"
                )
    if any(kind != "weight" for kind in wanted):
        version_0 = base.is_version_0 or new.is_version_0
        a, b = base.settings.calibration, new.settings.calibration
        if allow_other_text and a is not None and b is not None and a.seq_len == b.seq_len:
            other = "calibrated on other text; standard errors are those of two samples"
            notes += [] if same_sequences(a, b) else [other]
        else:
            notes += _calibrations(a, b, allow_different_model, version_0)
    if wanted and not across_quant:
        _formats(base.settings.formats, new.settings.formats, specs)
    for kind in wanted:
        if allow_different_model or not (base.has_sums and new.has_sums):  # other names for the same layers
            notes += _layers_only(base, new, kind, allow_different_model)
        else:
            notes += _sites(base, new, kind, specs or base.settings.formats, across_quant)
    for field in ("device", "dtype", "seed"):
        a, b = getattr(base.settings, field), getattr(new.settings, field)
        if a != b and "unknown" not in (a, b):
            notes.append(f"{field} differs: {a} and {b}")
    return notes


def _kinds(report: Report) -> set[Kind]:
    return {site.kind for site in report.sites}


def _models(base: Report, new: Report, allow: bool) -> list[str]:
    notes = []
    for field, a, b in other_model(base.model, new.model):
        if not allow:
            raise ReportError(
                f"another model: {field} differs (base {base.model.id}: {a}, new {new.model.id}: {b}); "
                f"{setting('allow_different_model')} compares them anyway"
            )
        notes.append(f"{field} differs: {a} and {b}")
    if base.model.id != new.model.id:
        notes.append(f"model ids differ: {base.model.id} and {new.model.id}")
    adapters = [f"{r.adapter.id}, {r.adapter.form}" if r.adapter else "none" for r in (base, new)]
    if len(set(adapters)) > 1:
        notes.append(f"adapters differ: {adapters[0]} and {adapters[1]}")
    for which, report in (("base", base), ("new", new)):
        if report.is_version_0:
            notes.append(f"the {which} report is of version 0: no sums, no standard errors, calibration unknown")
    return notes


def _calibrations(a: Calibration | None, b: Calibration | None, allow: bool, version_0: bool) -> list[str]:
    """Order does not matter: sums are the same in any. Reports without one (version 0) cannot be checked."""
    if a is None or b is None:
        return [] if version_0 else ["calibration unknown in one report: not compared"]
    if same_sequences(a, b):
        return []
    if allow and a.data_sha256 is not None and a.data_sha256 == b.data_sha256:
        return ["the same calibration text in other tokens; standard errors are not paired"]
    if a.seq_len != b.seq_len:
        raise ReportError(f"calibration differs: seq_len is {a.seq_len} in the base and {b.seq_len} in the new report")
    raise ReportError(
        f"calibration differs: tokens_sha256 is {_short(a)} in the base and {_short(b)} in the new report; "
        f"scan both with the same {setting('data')}, {setting('samples')}, {setting('seq_len')} and {setting('seed')}"
    )


def _short(calibration: Calibration) -> str:
    return f"{calibration.tokens_sha256[:12]} ({len(calibration.sequence_hashes)} sequences of {calibration.source})"


def _formats(base: Sequence[str], new: Sequence[str], specs: Sequence[str] | None) -> None:
    for spec in specs or dict.fromkeys([*base, *new]):
        for which, mine, other in (("base", base, new), ("new", new, base)):
            if spec in mine:
                continue
            name = spec.partition(":")[0]
            twin = next((s for s in mine if s.partition(":")[0] == name and s not in other), None)
            if twin is not None:
                a, b = (twin, spec) if which == "base" else (spec, twin)
                raise ReportError(
                    f"scale rule differs: {a} in the base and {b} in the new report; "
                    f"scan with the same rule, or use `srdd compare` with {setting('across_quant')}"
                )
            raise ReportError(
                f"formats differ: the {which} report has no {spec} ({', '.join(mine)}); choose with {setting('spec')}"
            )


def _layers_only(base: Report, new: Report, kind: Kind, allow: bool) -> list[str]:
    a, b = _layers(base, kind), _layers(new, kind)
    alone = span(sorted(a ^ b))
    if (alone and not allow) or (alone and not a & b):
        raise ReportError(f"site set differs: {kind} layer(s) {alone} are in one report only")
    return [f"{kind} layer(s) {alone} are in one report only and left out"] if alone else []


def _sites(base: Report, new: Report, kind: Kind, specs: Sequence[str], across: bool) -> list[str]:
    # an expert that got no tokens has no site, and the next checkpoint may route to it
    idle = {*base.coverage.uncovered, *new.coverage.uncovered} if kind == "input" else set()
    outside = {site.name for report in (base, new) for site in report.sites if site.kind == kind and site.beside_text}
    lone: set[str] = set()
    for spec in [None] if across else specs:
        a, b = (
            {
                site.name
                for site in report.sites
                if site.kind == kind and (spec is None or spec in site.formats) and not _under(site.name, idle)
            }
            for report in (base, new)
        )
        lone |= (a ^ b) & outside  # a file may hold heads that the model which is opened has not
        for which, names in (("base", sorted(a - b - outside)), ("new", sorted(b - a - outside))):
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                under = f" under {spec}" if spec else ""
                raise ReportError(f"site set differs: {kind} {names[0]}{more} is only in the {which} report{under}")
    notes = [f"{len(idle)} expert(s) got no tokens in one of the reports and are in one layer only"] if idle else []
    if lone:
        notes.append(f"{len(lone)} {kind} site(s) beside the text model are in one report only: {min(lone)} ...")
    return notes


def _under(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _layers(report: Report, kind: Kind) -> set[int]:
    return {site.layer for site in report.sites if site.kind == kind and site.layer is not None}
