"""A scan report with the documents that may stand beside it, checked to be of the same model.

Not here: what is shown of them (overview.py, page_data.py, exporters/). A page that mixed two models would lie in every
figure, so another model is refused, by the fields `srdd compare` goes by and, for documents that hold no more, by
the hash of the weight files. Another scan of the same model does no harm and is said in `notes`.

Worked number: a report of 30 layers with zones of a model whose weights hash differs is refused; zones that were made
from an older report of the same weights give one note.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srdd.analysis.comparison.comparability import comparable
from srdd.documents.experiment import Experiment
from srdd.documents.impact import Impact
from srdd.documents.opening import open_document
from srdd.documents.probe import Probe
from srdd.documents.report import Report
from srdd.documents.rin import RinConfig
from srdd.documents.schema import KINDS, Kind, other_model
from srdd.documents.zones import ZoneMap
from srdd.errors import OptionError, ReportError


@dataclass(frozen=True)
class Choices:
    """What a reader asked to see; None: the default. An exporter that does not use one is not given it."""

    suffix: str = ""
    title: str | None = None
    figure: str | None = None
    metric: str | None = None
    site: str | None = None
    quant: str | None = None


@dataclass(frozen=True)
class Bundle:
    """Everything an exporter may show."""

    report: Report
    impact: Impact | None = None
    zones: ZoneMap | None = None
    multipliers: RinConfig | None = None
    baseline: Report | None = None
    probe: Probe | None = None
    experiment: Experiment | None = None
    name: str = "srdd-report.json"  # of the report's file
    source: bytes | None = None  # the report's file as it is; None: made from a report in memory
    notes: list[str] = field(default_factory=list)


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
    """Read all documents. Raises ReportError or OptionError in one line for one that is no such document."""
    opened = open_document(path, Report)
    report, sha256 = opened.document, opened.sha256
    notes: list[str] = []
    costs = open_document(impact, Impact).document if impact else None
    chart = open_document(zones, ZoneMap).document if zones else None
    config = open_document(multipliers, RinConfig).document if multipliers else None
    base = Report.load(baseline) if baseline else None
    borne = open_document(probe, Probe).document if probe else None
    trial = open_document(experiment, Experiment).document if experiment else None
    for option, given, document in (
        ("impact", impact, costs),
        ("probe", probe, borne),
        ("experiment", experiment, trial),
    ):
        for name, a, b in other_model(report.model, document.model) if document is not None else ():
            raise OptionError(f"--{option} {given}: another model: {name} is {b}, in the report {a}")
    if trial is not None and trial.settings.report_sha256 != sha256:
        notes.append("the experiment chose its layers from another report of this model")
    if costs is not None:
        notes += _other_text(report, costs)
    if chart is not None:
        notes += _same_weights(report, sha256, chart.provenance, f"--zones {zones}", "the zones")
        _same_layers(report, [layer for zone in chart.zones for layer in zone.layers], f"--zones {zones}")
    if config is not None:
        notes += _same_weights(report, sha256, config.provenance, f"--multipliers {multipliers}", "the multipliers")
        _same_layers(report, list(config.layer_multipliers), f"--multipliers {multipliers}")
    if base is not None:
        for name, a, b in other_model(base.model, report.model):
            raise OptionError(f"--baseline {baseline}: another model: {name} is {a}, in the report {b}")
        notes += [f"baseline: {note}" for note in comparable(base, report, *_shared(base, report))]
    return Bundle(report, costs, chart, config, base, borne, trial, path.name, opened.content, notes)


def _same_weights(report: Report, sha256: str, made_from: Any, option: str, what: str) -> list[str]:
    """`made_from` is the provenance of a document that knows its model by id and by the hash of its weights."""
    if made_from.report_sha256 == sha256:
        return []
    mine, theirs = report.model.weights_hash, made_from.weights_hash
    by_hash = bool(mine and theirs)
    if (by_hash and mine != theirs) or (not by_hash and made_from.model != report.model.id):
        why = "its weights hash differs" if by_hash else "it knows no weights hash and the ids differ"
        raise OptionError(f"{option}: another model ({made_from.model}; the report has {report.model.id}): {why}")
    return [f"{what} were made from another report of this model"]


def _same_layers(report: Report, layers: list[int], option: str) -> None:
    beyond = [layer for layer in layers if report.model.layer_count and layer >= report.model.layer_count]
    if beyond:
        raise OptionError(f"{option}: layer {beyond[0]} is beyond the model's {report.model.layer_count} layers")


def _other_text(report: Report, impact: Impact) -> list[str]:
    mine, theirs = report.settings.calibration, impact.settings.calibration
    if mine is None or set(mine.sequence_hashes) == set(theirs.sequence_hashes):
        return []
    return ["the costs were measured on other tokens than the scan"]


def _shared(base: Report, report: Report) -> tuple[list[Kind], list[str]]:
    """The kinds and formats both have; a baseline may hold more or less than what is shown."""
    kinds = [kind for kind in KINDS if all(any(s.kind == kind for s in r.sites) for r in (base, report))]
    specs = [spec for spec in report.settings.formats if spec in base.settings.formats]
    if not kinds or not specs:
        what = "kind of site" if not kinds else "format with its scale rule"
        raise ReportError(f"the baseline shares no {what} with the report; scan both alike")
    return kinds, specs
