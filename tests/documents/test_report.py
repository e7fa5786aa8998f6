"""The report: what is saved is loaded, what is derived is never trusted, what is wrong is refused in one line."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from builders import make_costs

from srdd.core.metrics import BY_NAME
from srdd.core.tally import Tally
from srdd.core.uncertainty import mean_and_error, standard_errors, total
from srdd.documents.costs import Cost, Ratio
from srdd.documents.merging import merge
from srdd.documents.opening import open_document
from srdd.documents.parts import Calibration, Model, Note
from srdd.documents.report import Report, dumps, in_order, json_schema
from srdd.documents.schema import Coverage, Settings, Site, measurement
from srdd.errors import ReportError, WriteError

SPEC = "mxfp4:even"


def tally(power: float, noise: float, n: int = 64) -> Tally:
    """Magnitudes of which none is far from the others, and errors of a fifth."""
    x, e = math.sqrt(power / n), math.sqrt(noise / n)
    return Tally(
        n=n,
        nonzero=n,
        sum_abs_x=n * x,
        sum_x2=power,
        sum_x4=power * power / n,
        max_abs_x=x,
        sum_abs_e=n * e,
        sum_e2=noise,
        max_abs_e=e,
        sum_rel=n * 0.2 if noise else 0.0,
        sum_q2=power,
        sum_xq=power - noise / 2,
    )


def make(noises: list[list[float]] | None = None, weight_noise: float = 1.0, hashes: tuple[str, ...] = ("a", "b", "c")):
    """A report of four layers; noises[layer][sequence] is the noise power of its output."""
    noises = noises or [[1.0, 2.0, 3.0]] * 4
    sites = [
        Site(kind="weight", name=f"l.{i}.w", role="w", layer=i, formats={SPEC: measurement(tally(100, weight_noise))})
        for i in range(len(noises))
    ]
    for i, row in enumerate(noises):
        sequences = [tally(100, e) for e in row]
        sites.append(
            Site(
                kind="output",
                name=f"l.{i}",
                role="o",
                layer=i,
                formats={SPEC: measurement(total(sequences), sequences)},
            )
        )

    return in_order(
        Report(
            model=Model(id="toy", parameter_count=256, layer_count=4),
            settings=Settings(
                formats=[SPEC],
                kinds=["weight", "output"],
                calibration=Calibration(source="toy", seq_len=8, sequence_hashes=list(hashes)),
                device="cpu",
                dtype="float32",
                backend="reference",
                backend_reason="asked for",
                thresholds={"sqnr_db": 20.0},
                versions={},
            ),
            coverage=Coverage(parameters=256, measured=256),
            sites=sites,
            provenance={"created": "today"},
        )
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    report = make()
    report.save(tmp_path / "r.json")
    assert Report.load(tmp_path / "r.json") == report
    assert dumps(Report.load(tmp_path / "r.json")) == dumps(report)


def test_document_fits_its_published_schema() -> None:
    jsonschema.validate(json.loads(dumps(make())), json_schema())


def with_costs() -> Report:
    return make().model_copy(update={"costs": make_costs({SPEC: [0.1, 0.2, 0.3, 0.4], "nvfp4": [0.1] * 4})})


def test_costs_are_part_of_the_report(tmp_path: Path) -> None:
    report = with_costs()
    report.save(tmp_path / "r.json")
    again = Report.load(tmp_path / "r.json")
    assert again == report
    assert dumps(again) == dumps(report)
    jsonschema.validate(json.loads(dumps(report)), json_schema())
    assert "Costs" in json_schema()["$defs"]
    assert "costs: predicted of mxfp4:even, nvfp4 (weight, both)" in repr(report)
    assert "costs: none" in repr(make())


def test_two_reports_differ_in_the_row_of_the_cost_that_differs() -> None:
    a, b = with_costs(), with_costs()
    assert b.costs is not None
    b.costs.layers[2].predicted_kl = Cost.of([1.0, 2.0])
    lines = [(x, y) for x, y in zip(dumps(a).splitlines(), dumps(b).splitlines(), strict=True) if x != y]
    assert len(lines) == 1
    assert '"layer": 2' in lines[0][0] or '"layer": 1' in lines[0][0]


def test_costs_follow_from_their_sequences_and_never_from_the_file(tmp_path: Path) -> None:
    document = json.loads(dumps(with_costs()))
    row = document["costs"]["layers"][0]["predicted_kl"]
    row["value"], row["error"] = 99.0, 98.0
    (tmp_path / "r.json").write_text(json.dumps(document))
    assert Report.load(tmp_path / "r.json") == with_costs()


def test_one_sequence_has_no_error() -> None:
    assert Cost.of([0.5]).model_dump() == {"value": 0.5, "error": None, "sequences": [0.5]}
    assert Ratio.of([1.0], [4.0]).model_dump() == {"value": 0.5, "error": None, "above": [1.0], "below": [4.0]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda costs: costs["layers"][0].update(mode="input"), "a row has the mode input, the settings weight, both"),
        (lambda costs: costs["groups"][0].update(format="mxfp8"), "a row has the format mxfp8, the settings mxfp4"),
        (
            lambda costs: costs["whole"][0]["kl"].update(sequences=[1, 2, 3]),
            "a cost has 3 sequences, the calibration 2",
        ),
        (lambda costs: costs.pop("settings"), "costs.settings: Field required"),
        (lambda costs: costs["layers"][0].update(point="both"), "unknown key 'costs.layers.0.point'"),
    ],
    ids=["mode", "format", "sequences", "settings", "version 1's word"],
)
def test_costs_that_contradict_themselves_are_refused_in_one_line(tmp_path: Path, change, words: str) -> None:
    document = json.loads(dumps(with_costs()))
    change(document["costs"])
    (tmp_path / "r.json").write_text(json.dumps(document))
    with pytest.raises(ReportError, match=re.escape(words)) as error:
        Report.load(tmp_path / "r.json")
    assert "\n" not in str(error.value)


def test_version_1_loads_as_version_2(tmp_path: Path) -> None:
    document = json.loads(dumps(make())) | {"schema_version": 1, "document": "srdd-scan"}
    del document["costs"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    assert Report.load(tmp_path / "old.json") == make()
    assert open_document(tmp_path / "old.json").document == make()


def test_derived_numbers_are_computed_anew(tmp_path: Path) -> None:
    document = json.loads(dumps(make()))
    document["sites"][0]["formats"][SPEC]["metrics"]["sqnr_db"] = 99.0
    document["layers"] = []
    document["summary"] = []
    (tmp_path / "r.json").write_text(json.dumps(document))
    again = Report.load(tmp_path / "r.json")
    assert again.sites[0].formats[SPEC].value("sqnr_db") == pytest.approx(20)
    assert again == make()


def test_no_noise_is_infinite_not_a_hundred(tmp_path: Path) -> None:
    report = make(weight_noise=0.0)
    row = json.loads(dumps(report))["sites"][0]["formats"][SPEC]
    assert row["metrics"]["sqnr_db"] is None
    assert row["flags"]["sqnr_db"] == "exact"
    assert report.sites[0].formats[SPEC].value("sqnr_db") == math.inf


def test_two_scans_differ_only_in_provenance() -> None:
    a, b = make(), make()
    b.provenance["created"] = "tomorrow"
    lines = [(x, y) for x, y in zip(dumps(a).splitlines(), dumps(b).splitlines(), strict=True) if x != y]
    assert len(lines) == 1
    assert "provenance" in lines[0][0]


def test_jackknife_of_a_mean_is_the_textbook_standard_error() -> None:
    sequences = [Tally(n=1, sum_e=value) for value in (0.0, 1.0, 2.0, 5.0)]
    mean = 2.0
    expected = math.sqrt(sum((v - mean) ** 2 for v in (0.0, 1.0, 2.0, 5.0)) / 3 / 4)
    assert standard_errors(sequences)["bias"] == pytest.approx(expected, rel=1e-12)


def test_mean_and_error_by_hand() -> None:
    assert mean_and_error([1.0, 3.0]) == (2.0, 1.0)
    mean, error = mean_and_error([5.0])
    assert mean == 5.0
    assert math.isnan(error)


def test_a_maximum_has_no_error() -> None:
    sequences = [Tally(n=1, sum_x2=1, max_abs_x=value) for value in (1.0, 2.0, 4.0)]
    assert math.isnan(standard_errors(sequences)["crest"])
    whole = measurement(total(sequences), sequences)
    assert whole.metrics["crest"] == 4.0 / 1.0
    assert whole.standard_errors["crest"] is None
    assert whole.without_each(BY_NAME["crest"]) == []
    assert len(whole.without_each(BY_NAME["rms"])) == 3


def test_merging_halves_of_the_calibration_gives_the_whole() -> None:
    noises = [[1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 1.0, 1.0], [5.0, 1.0, 0.5, 3.0], [1.0, 1.0, 1.0, 2.0]]
    whole = make(noises, hashes=("a", "b", "c", "d"))
    first = make([row[:2] for row in noises], hashes=("a", "b"))
    second = make([row[2:] for row in noises], hashes=("c", "d"))
    assert merge(first, second) == whole


def test_merging_parts_with_other_sites_gives_the_whole() -> None:
    whole = make()
    parts = [
        whole.model_copy(
            update={
                "sites": [s for s in whole.sites if s.kind == kind],
                "settings": whole.settings.model_copy(update={"kinds": [kind]}),
            }
        )
        for kind in ("output", "weight")
    ]
    assert merge(*parts) == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hashes": ("c", "d", "e")}, "count them twice"),
        ({"weight_noise": 2.0}, "different sums"),
    ],
    ids=["a sequence in both", "another weight"],
)
def test_inconsistent_parts_are_refused(change: dict, words: str) -> None:
    with pytest.raises(ReportError, match=words):
        merge(make(), make(**change))


def test_other_model_is_refused() -> None:
    other = make()
    other = other.model_copy(update={"model": other.model.model_copy(update={"id": "other"})})
    with pytest.raises(ReportError, match="model differs"):
        merge(make(), other)


def _future(document: dict) -> dict:
    return document | {"schema_version": 99}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lambda t: t[: len(t) // 2], "cut off"),
        (lambda t: "", "cut off"),
        (lambda t: "[1, 2]", "expected an object"),
        (lambda t: "{}", "no schema_version"),
        (lambda t: json.dumps(_future(json.loads(t))), "schema_version 99"),
        (lambda t: json.dumps(json.loads(t) | {"surprise": 1}), "surprise"),
        (lambda t: t.replace('"tally": [', '"tally": [1, '), "expected 22 sums, found 23"),
        (lambda t: t.replace('"nonzero"', '"nonsense"', 1), "tally fields differ"),
    ],
    ids=["half", "empty", "list", "no version", "future", "unknown key", "long tally", "other fields"],
)
def test_bad_documents_are_refused_in_one_line(tmp_path: Path, text, words: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text(dumps(make())))
    with pytest.raises(ReportError, match=words) as error:
        Report.load(path)
    assert "\n" not in str(error.value)


def test_a_note_is_its_text_and_knows_its_level(tmp_path: Path) -> None:
    said = {
        "error": "ERROR: 3 NaN",
        "not deployable": "not deployable as is in mxfp4: 33 columns",
        "version 0": "version 0 report: no sums",
        "warning": "2 expert(s) got no tokens",
    }
    notes = [
        Note.of("error", "3 NaN"),
        Note.of("not deployable", "in mxfp4: 33 columns"),
        Note.of("version 0", "no sums"),
        Note.of("warning", "2 expert(s) got no tokens"),
    ]
    assert notes == list(said.values())
    report = make().model_copy(update={"warnings": notes})
    report.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["warnings"] == list(said.values())
    again = Report.load(tmp_path / "r.json")
    assert again == report
    assert [note.level for note in again.warnings] == list(said)


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="srdd scan"):
        Report.load(tmp_path / "none.json")


def test_a_folder_and_a_binary_file_are_no_reports(tmp_path: Path, srdd: Callable[..., tuple[int, str, str]]) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x00\xff\x80GGUF")
    for name, words in (("", "is a folder, expected the file of a report"), ("model.bin", "model.bin is no report: ")):
        code, _, shown = srdd("show", tmp_path / name)
        assert code == 2
        assert len(shown.splitlines()) == 1
        assert words in shown
        assert "`srdd scan`" in shown
        assert "Errno" not in shown
        assert "codec" not in shown


def test_a_full_disk_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    make().save(path)
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        make(weight_noise=9.0).save(path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_version_0_loads_without_tallies_and_without_its_saturation(tmp_path: Path) -> None:
    rows = [
        {"layer_id": i, "sqnr_db": 17.0 + i, "deadzone_ratio": 0.2, "saturation_ratio": 0.1, "relative_error": 0.3}
        for i in range(3)
    ]
    document = {
        "config": {"model_path": "/x/Qwen2.5-1.5B", "quant_type": "mxfp4", "num_layers": 3},
        "report": {"per_layer": rows},
    }
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document))
    report = Report.load(path)
    assert report.model.id == "Qwen2.5-1.5B"
    assert [layer.formats["mxfp4:floor"].value("sqnr_db") for layer in report.layers] == [17.0, 18.0, 19.0]
    assert math.isnan(report.layers[0].formats["mxfp4:floor"].value("saturation_ratio"))
    report.save(tmp_path / "new.json")
    assert Report.load(tmp_path / "new.json") == report


@pytest.mark.parametrize(
    ("rows", "words"),
    [([], "without rows"), ([{"sqnr_db": 1}], "layer_id"), ([{"layer_id": 0, "sqnr_db": "x"}], "finite number"),
     ([{"layer_id": 0}], "holds none"), ([{"layer_id": 0, "sqnr_db": 1}] * 2, "twice")],
    ids=["empty", "no id", "text", "no metric", "twice"],
)  # fmt: skip
def test_bad_version_0(tmp_path: Path, rows: list, words: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"report": {"per_layer": rows}}))
    with pytest.raises(ReportError, match=words):
        Report.load(path)
