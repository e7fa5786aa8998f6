"""A scan report with the documents that may stand beside it, checked to be of the same model.

Not here: what is shown of them (overview.py, srdd.exporters). A page that mixed two models would lie in every
figure, so another model is refused: by the fields that `srdd compare` looks at or, for documents that hold less, by the
hash of the weight files. Another scan of the same model does no harm; `notes` mentions it.

Worked number: a report of 30 layers with zones of a model whose weights hash differs is refused; zones that were made
from an older report of the same weights give one note.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from srdd.analysis.comparison.comparability import comparable
from srdd.documents.costs import Costs
from srdd.documents.experiment import Experiment
from srdd.documents.opening import open_document
from srdd.documents.parts import KINDS, Kind, other_model
from srdd.documents.probe import Probe
from srdd.documents.report import Report
from srdd.documents.rin import RinConfig
from srdd.documents.zones import ZoneMap
from srdd.errors import ReportError, setting


@dataclass(frozen=True)
class View:
    """What a reader asked to see; None: the default. An exporter is given no setting that it does not use."""

    suffix: str = ""
    title: str | None = None
    figure: str | None = None
    metric: str | None = None
    kind: str | None = None
    formats: str | None = None  # a comma list


@dataclass(frozen=True)
class Bundle:
    """Everything an exporter may show."""

    report: Report
    impact: Report | None = None  # whose costs are shown in place of the report's own
    zones: ZoneMap | None = None
    multipliers: RinConfig | None = None
    baseline: Report | None = None
    probe: Probe | None = None
    experiment: Experiment | None = None
    name: str = "srdd-report.json"  # of the report's file
    source: bytes | None = None  # the report's file as it is; None: made from a report in memory
    notes: list[str] = field(default_factory=list)

    @property
    def costs(self) -> Costs | None:
        """Those of the document given for them, else the report's own."""
        return self.report.costs if self.impact is None else self.impact.costs


def gather(
    path: Path,
    *,
    impact: Path | None = None,
    zones: Path | None = None,
    multipliers: Path | None = None,
    baseline: Path | None = None,
    probe: Path | None = None,
    experiment: Path | None = None,
) -> Bundle:
    """Read all documents. Raises ReportError for one that cannot be read, holds nothing or is of another model."""
    opened = open_document(path, Report)
    if not opened.document.sites and opened.document.costs is not None:
        raise ReportError(f"{path} holds costs and no sites to show; join it with a scan by `srdd merge`")
    bundle = Bundle(
        opened.document,
        impact=Report.load(impact) if impact else None,
        zones=open_document(zones, ZoneMap).document if zones else None,
        multipliers=open_document(multipliers, RinConfig).document if multipliers else None,
        baseline=Report.load(baseline) if baseline else None,
        probe=open_document(probe, Probe).document if probe else None,
        experiment=open_document(experiment, Experiment).document if experiment else None,
        name=path.name,
        source=opened.content,
    )
    places = {
        "impact": impact,
        "zones": zones,
        "multipliers": multipliers,
        "baseline": baseline,
        "probe": probe,
        "experiment": experiment,
    }
    notes = _checked(bundle, {name: setting(name, place) for name, place in places.items()})
    # costs that are given rank everything, as the report's own would
    return replace(bundle, report=bundle.report.model_copy(update={"costs": bundle.costs}), notes=notes)


def _checked(bundle: Bundle, places: Mapping[str, str]) -> list[str]:
    """What differs and does no harm. `places` is how a message names each document. Raises ReportError."""
    report = bundle.report
    sha256 = hashlib.sha256(bundle.source or b"").hexdigest()
    notes: list[str] = []
    for name, document in (("impact", bundle.impact), ("probe", bundle.probe), ("experiment", bundle.experiment)):
        for field_name, a, b in other_model(report.model, document.model) if document is not None else ():
            raise ReportError(f"{places[name]}: another model: {field_name} is {b}, in the report {a}")
    if bundle.experiment is not None and bundle.experiment.settings.report_sha256 != sha256:
        notes.append("the experiment chose its layers from another report of this model")
    if bundle.impact is not None:
        if bundle.impact.costs is None:
            raise ReportError(f"{places['impact']}: this report holds no costs; write one with `srdd impact`")
        if report.costs is not None:
            notes.append("the report has costs of its own; those of the other document are shown")
        notes += _other_text(report, bundle.impact.costs)
    if bundle.zones is not None:
        notes += _same_weights(report, sha256, bundle.zones.provenance, places["zones"], "the zones")
        _same_layers(report, [layer for zone in bundle.zones.zones for layer in zone.layers], places["zones"])
    if bundle.multipliers is not None:
        notes += _same_weights(report, sha256, bundle.multipliers.provenance, places["multipliers"], "the multipliers")
        _same_layers(report, list(bundle.multipliers.layer_multipliers), places["multipliers"])
    if bundle.baseline is not None:
        for field_name, a, b in other_model(bundle.baseline.model, report.model):
            raise ReportError(f"{places['baseline']}: another model: {field_name} is {a}, in the report {b}")
        differences = comparable(bundle.baseline, report, *_shared(bundle.baseline, report))
        notes += [f"baseline: {note}" for note in differences]
    return notes


def _same_weights(report: Report, sha256: str, made_from: Any, place: str, name: str) -> list[str]:
    """`made_from` is the provenance of a document that knows its model by id and by the hash of its weights."""
    if made_from.report_sha256 == sha256:
        return []
    mine, theirs = report.model.weights_hash, made_from.weights_hash
    by_hash = bool(mine and theirs)
    if (by_hash and mine != theirs) or (not by_hash and made_from.model != report.model.id):
        why = "its weights hash differs" if by_hash else "it knows no weights hash and the ids differ"
        raise ReportError(f"{place}: another model ({made_from.model}; the report has {report.model.id}): {why}")
    return [f"{name} were made from another report of this model"]


def _same_layers(report: Report, layers: list[int], place: str) -> None:
    beyond = [layer for layer in layers if report.model.layer_count and layer >= report.model.layer_count]
    if beyond:
        raise ReportError(f"{place}: layer {beyond[0]} is beyond the model's {report.model.layer_count} layers")


def _other_text(report: Report, costs: Costs) -> list[str]:
    mine, theirs = report.settings.calibration, costs.settings.calibration
    if mine is None or set(theirs.sequence_hashes) <= set(mine.sequence_hashes):
        return []
    return ["the costs were measured on other tokens than the scan"]


def _shared(base: Report, report: Report) -> tuple[list[Kind], list[str]]:
    """The kinds and formats both have; a baseline may hold more or less than what is shown."""
    kinds = [kind for kind in KINDS if all(any(s.kind == kind for s in r.sites) for r in (base, report))]
    specs = [spec for spec in report.settings.formats if spec in base.settings.formats]
    if not kinds or not specs:
        missing = "kind of site" if not kinds else "format with its scale rule"
        raise ReportError(f"the baseline shares no {missing} with the report; scan both alike")
    return kinds, specs
