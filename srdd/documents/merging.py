"""Merging reports of parts of one run into the report of the whole, and a scan with the costs of the same model.

Parts may hold other sites, other formats, other calibration sequences or costs of the same model; what both hold must
agree: weights equal, sequences disjoint. Two halves of the calibration give exactly the whole, standard errors
included, because activations and costs are stored per sequence, and every sequence knows its document.

Not here: merging costs (merging_costs.py) and comparing reports (srdd.analysis.comparison).
"""

from __future__ import annotations

from srdd.core.uncertainty import total
from srdd.documents.adapter import AdapterPart
from srdd.documents.costs import Costs
from srdd.documents.merging_costs import merge_costs
from srdd.documents.parts import Calibration, Model, Note, joined, notes_on_units
from srdd.documents.report import Report, in_order
from srdd.documents.schema import Coverage, Measurement, Settings, Site, measurement
from srdd.errors import ReportError


def merge(first: Report, second: Report) -> Report:
    """One report from two parts, for more of them `functools.reduce(srdd.merge, reports)`.

    Raises ReportError when they do not belong together or overlap, or are no reports.
    """
    for part in (first, second):
        if not isinstance(part, Report):
            raise ReportError(
                f"expected two reports, found {type(part).__name__}; tallies are merged by srdd.kernels.merge"
            )
    for field in Model.model_fields:
        a, b = getattr(first.model, field), getattr(second.model, field)
        if a != b:
            raise ReportError(f"these reports are not of one model: {field} of the model differs ({a} and {b})")
    fields = ["device", "dtype"]
    if first.sites and second.sites:  # what costs need of these stands in their own settings
        fields += ["seed", "thresholds"]
    for field in fields:
        a, b = getattr(first.settings, field), getattr(second.settings, field)
        if a != b:
            raise ReportError(f"these reports are not parts of one run: {field} differs ({a} and {b})")
    costs = merge_costs(first.costs, second.costs) if first.costs and second.costs else first.costs or second.costs
    if not first.sites or not second.sites:
        held = second if second.sites else first  # only one has sites, or none has
        return _complete(held, first, second, held.settings, held.coverage, held.sites, costs)
    disjoint = _calibrations_disjoint(first.settings.calibration, second.settings.calibration)
    sites = {(site.kind, site.name): site for site in first.sites}
    for site in second.sites:
        key = (site.kind, site.name)
        sites[key] = _merge_site(sites[key], site, disjoint) if key in sites else site
    settings, coverage = _merge_settings(first.settings, second.settings), _merge_coverage(first, second)
    return _complete(first, first, second, settings, coverage, list(sites.values()), costs)


def _complete(
    held: Report,
    first: Report,
    second: Report,
    settings: Settings,
    coverage: Coverage,
    sites: list[Site],
    costs: Costs | None,
) -> Report:
    """The merged report. Raises ReportError when its costs are of other tokens than its sites."""
    if costs is not None and not sites:
        calibration = costs.settings.calibration
        settings = settings.model_copy(update={"formats": costs.settings.formats, "calibration": calibration})
    elif costs is not None and settings.calibration is not None:
        seen, paid = set(settings.calibration.sequence_hashes), set(costs.settings.calibration.sequence_hashes)
        if not (paid <= seen or seen <= paid):
            missing = f"{len(paid - seen)} of {len(paid)} sequences"
            raise ReportError(f"costs of other tokens than the scan's: {missing} are not in the scan")
    return in_order(
        held.model_copy(
            update={
                "settings": settings,
                "coverage": coverage,
                "sites": sites,
                "costs": costs,
                "adapter": _merge_adapters(first.adapter, second.adapter),
                "warnings": _warnings(first, second, settings),
            }
        )
    )


def _merge_adapters(a: AdapterPart | None, b: AdapterPart | None) -> AdapterPart | None:
    """Of parts with one adapter, which their models' names and hashes have made sure of; costs alone have none."""
    if a is None or b is None:
        return a or b
    if (a.weights_hash, a.form) != (b.weights_hash, b.form):
        raise ReportError(
            f"these reports are not of one model: the adapters differ ({a.id}, {a.form} and {b.id}, {b.form})"
        )
    rows = {(row.name, row.format): row for row in (*a.survival, *b.survival)}
    return a.model_copy(update={"survival": list(rows.values())})


def _warnings(first: Report, second: Report, settings: Settings) -> list[Note]:
    """Of either; what was said of the text of a part is said anew of the text of the whole."""
    of_parts = {note for part in (first, second) for note in notes_on_units(part.settings.calibration)}
    kept = [note for note in (*first.warnings, *second.warnings) if note not in of_parts]
    return list(dict.fromkeys([*kept, *notes_on_units(settings.calibration)]))


def _calibrations_disjoint(a: Calibration | None, b: Calibration | None) -> bool:
    """True when the two saw other sequences of equal length; False when they saw the same. Raises on a mix."""
    if a is None or b is None or a.sequence_hashes == b.sequence_hashes:
        return False
    twice = set(a.sequence_hashes) & set(b.sequence_hashes)
    if twice:
        raise ReportError(f"{len(twice)} calibration sequence(s) are in both reports; merging would count them twice")
    if a.seq_len != b.seq_len or a.source != b.source:
        raise ReportError(
            f"calibrations differ: {a.source} at {a.seq_len} tokens a sequence and {b.source} at {b.seq_len}"
        )
    return True


def _merge_site(a: Site, b: Site, disjoint: bool) -> Site:
    formats = dict(a.formats)
    for spec, other in b.formats.items():
        mine = formats.get(spec)
        formats[spec] = other if mine is None else _merge_one(a, spec, mine, other, disjoint)
    members = list(dict.fromkeys([*a.members, *b.members]))
    return a.model_copy(
        update={"formats": formats, "members": members, "notes": list(dict.fromkeys([*a.notes, *b.notes]))}
    )


def _merge_one(site: Site, spec: str, a: Measurement, b: Measurement, disjoint: bool) -> Measurement:
    if site.kind == "weight" or not disjoint:
        if (a.tally, a.given) == (b.tally, b.given):
            return a
        raise ReportError(f"{site.kind} {site.name} under {spec} is in both reports with different sums")
    sequences = [*a.per_sequence(), *b.per_sequence()]
    return measurement(total(sequences), sequences)


def _merge_settings(a: Settings, b: Settings) -> Settings:
    calibration = a.calibration or b.calibration
    if a.calibration and b.calibration and a.calibration.sequence_hashes != b.calibration.sequence_hashes:
        calibration = joined(a.calibration, b.calibration)
    elif b.calibration and not (a.calibration and a.calibration.documents):
        calibration = b.calibration  # of the same sequences, and may know the documents
    return a.model_copy(
        update={
            "formats": list(dict.fromkeys([*a.formats, *b.formats])),
            "kinds": [kind for kind in ("weight", "input", "output") if kind in {*a.kinds, *b.kinds}],
            "calibration": calibration,
            "selection": a.selection if a.selection == b.selection else None,
        }
    )


def _merge_coverage(first: Report, second: Report) -> Coverage:
    """Measured in either is measured; an expert is uncovered only when it is in both, for its tokens may be in one."""
    a, b = first.coverage, second.coverage
    skipped_both = {s.name for s in a.skipped} & {s.name for s in b.skipped}
    skipped = [s for s in a.skipped if s.name in skipped_both]
    uncovered = [name for name in a.uncovered if name in b.uncovered]
    return Coverage(
        parameters=a.parameters,
        measured=a.parameters - sum(s.parameters for s in skipped),
        skipped=skipped,
        uncovered=uncovered,
    )
