"""Impact documents of version 1 load as reports with costs and without sites; what is wrong in one is one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from srdd.documents.costs import Cost, Ratio
from srdd.documents.opening import open_document
from srdd.documents.report import Report, dumps, json_schema
from srdd.errors import ReportError

Run = Callable[..., tuple[int, str, str]]
SPEC = "mxfp4:even"
V1: dict[str, Any] = {
    "schema_version": 1,
    "document": "srdd-impact",
    "model": {"id": "toy", "revision": None, "architecture": "Toy", "layer_count": 1, "parameter_count": 99,
              "weights_hash": None, "dtype": "float32"},
    "settings": {
        "formats": [SPEC], "points": ["weight", "both"],
        "calibration": {"source": "toy", "data_sha256": None, "seq_len": 8, "sequence_hashes": ["a", "b"],
                        "dropped": "", "seed": 0},
        "attribute": ["gradient", "swap", "swap-groups"], "label_samples": 2, "rows": 64, "exclude": ["*lm_head*"],
        "left_out": ["lm_head"], "noise": True, "seed": 3, "device": "cpu", "dtype": "float32", "backend": "eager",
        "versions": {"srdd": "0.9"},
    },
    "reference": {"loss": {"value": 2.0, "error": 0.1}, "perplexity": 7.389, "entropy": {"value": 1.5, "error": None}},
    "whole": [
        {"format": SPEC, "point": "both", "loss": {"value": 2.5, "error": 0.2}, "loss_change": {"value": 0.25},
         "perplexity": 12.18, "kl": {"value": 0.5, "error": 0.05}, "kl_median": 0.1, "kl_p90": 0.9, "kl_p99": 2.0,
         "kl_max": 3.0, "top1": {"value": 0.75}, "additivity": 0.4, "additivity_predicted": 0.5, "no_effect": False}
    ],
    "layers": [
        {"layer": 0, "format": SPEC, "point": "both", "isolated": {"value": 0.3, "error": 0.01},
         "cumulative": {"value": 0.4}, "growth": None, "predicted_kl": {"value": 0.25, "error": 0.02},
         "predicted_kl_joint": {"value": 0.21, "error": 0.03}, "predicted_kl_modules": {"value": 0.22},
         "swap_kl": {"value": 0.2, "error": 0.04}, "swap_error": {"value": 0.3}, "noise_kl": {"value": 0.19},
         "scores": {"output relative_error": 0.2}}
    ],
    "linears": [
        {"module": f"l.0.attn.{role}", "role": role, "layer": 0, "group": group, "format": SPEC,
         "output_error": {"weight": {"value": 0.1}, "both": {"value": 0.2, "error": 0.01}}, "interaction": -0.1,
         "predicted_kl": {"both": {"value": 0.01, "error": 0.001}}}
        for role, group in (("q_proj", "l.0.attn.qkv"), ("k_proj", "l.0.attn.qkv"), ("o_proj", None))
    ],
    "groups": {SPEC: {"l.0.attn.qkv": {"both": 0.02}}},
    "group_swaps": {SPEC: {"l.0.attn.qkv": {"both": {"value": 0.03, "error": 0.004}},
                           "l.0.mlp.experts": {"both": {"value": 0.05, "error": 0.006}}}},
    "warnings": ["one Linear was skipped"],
    "provenance": {"created": "2026-01-01", "seconds": 1.5},
}  # fmt: skip


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "srdd-impact.json"
    path.write_text(json.dumps({**copy.deepcopy(V1), **changes}))
    return path


def test_every_number_has_its_place(tmp_path: Path) -> None:
    report = Report.load(written(tmp_path))
    costs = report.costs
    assert costs is not None
    assert (report.schema_version, report.document) == (2, "srdd-report")
    assert (report.sites, report.settings.kinds, report.settings.formats) == ([], [], [SPEC])
    assert (report.settings.device, report.settings.dtype, report.settings.versions) == (
        "cpu",
        "float32",
        {"srdd": "0.9"},
    )
    assert report.model.parameter_count == 99
    assert report.provenance == {"created": "2026-01-01", "seconds": 1.5}
    settings = costs.settings
    assert (settings.modes, settings.how) == (["weight", "both"], ["predicted", "layers", "groups"])
    assert (settings.label_samples, settings.tokens_per_sequence, settings.noise_control) == (2, 64, True)
    assert (settings.seed, settings.exclude, settings.left_out) == (3, ["*lm_head*"], ["lm_head"])
    assert settings.calibration.sequence_hashes == ["a", "b"]
    assert costs.clean is not None
    assert costs.clean.loss == Cost(value=2.0, error=0.1)
    (whole,), (layer,) = costs.whole, costs.layers
    assert (whole.mode, whole.kl, whole.loss) == ("both", Cost(value=0.5, error=0.05), Cost(value=2.5, error=0.2))
    assert whole.kl_quantiles == {"0.5": 0.1, "0.9": 0.9, "0.99": 2.0, "1": 3.0}
    change = costs.loss_change(whole)
    assert change is not None
    assert change.value == pytest.approx(0.25)
    assert costs.additivity(whole, measured=True) == pytest.approx(0.4)
    assert (layer.layer, layer.mode) == (0, "both")
    assert layer.predicted_kl == Cost(value=0.21, error=0.03)
    assert (layer.predicted_kl_own, layer.predicted_kl_linears) == (Cost(value=0.25, error=0.02), Cost(value=0.22))
    assert (layer.measured_kl, layer.noise_kl) == (Cost(value=0.2, error=0.04), Cost(value=0.19))
    assert (layer.isolated, layer.cumulative) == (Ratio(value=0.3, error=0.01), Ratio(value=0.4))
    assert (layer.measured_error, layer.scores) == (Ratio(value=0.3), {"output relative_error": 0.2})
    assert [row.module for row in costs.linears] == ["l.0.attn.q_proj", "l.0.attn.k_proj", "l.0.attn.o_proj"]
    assert costs.linears[0].output_error == {"weight": Ratio(value=0.1), "both": Ratio(value=0.2, error=0.01)}
    assert costs.linears[0].interaction == -0.1


def test_groups_have_members_and_linears_stand_alone(tmp_path: Path) -> None:
    costs = Report.load(written(tmp_path)).costs
    assert costs is not None
    fused, alone, experts = costs.groups
    assert (fused.name, fused.layer, fused.members) == ("l.0.attn.qkv", 0, ["l.0.attn.q_proj", "l.0.attn.k_proj"])
    assert fused.predicted_kl == {"both": Cost(value=0.02)}
    assert fused.measured_kl == {"both": Cost(value=0.03, error=0.004)}
    assert (alone.name, alone.members) == ("l.0.attn.o_proj", ["l.0.attn.o_proj"])
    assert alone.predicted_kl == {"both": Cost(value=0.01, error=0.001)}
    assert (experts.name, experts.layer, experts.predicted_kl) == ("l.0.mlp.experts", 0, {})


def test_it_says_what_it_is_and_not_what_it_is_not(tmp_path: Path) -> None:
    report = Report.load(written(tmp_path))
    assert not report.is_version_0
    assert report.warnings[0] == "one Linear was skipped"
    assert "the sum of their Linears' (version 1)" in report.warnings[1]
    assert len(report.warnings) == 2
    assert "version 0" not in dumps(report)
    assert repr(report).startswith(
        "<Report of toy: mxfp4:even; sites: none; costs: predicted, layers, groups (weight, b"
    )


def test_it_is_saved_as_version_2(tmp_path: Path) -> None:
    report = Report.load(written(tmp_path))
    report.save(tmp_path / "new.json")
    tree = json.loads((tmp_path / "new.json").read_text())
    assert (tree["schema_version"], tree["document"]) == (2, "srdd-report")
    jsonschema.validate(tree, json_schema())
    assert Report.load(tmp_path / "new.json") == report
    assert open_document(tmp_path / "srdd-impact.json").document == report, "opened by what the file says it is"


def test_no_head_no_loss(tmp_path: Path) -> None:
    costs = Report.load(written(tmp_path, reference=None, whole=[])).costs
    assert costs is not None
    assert (costs.clean, costs.whole) == (None, [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 2}, "schema_version 2 of an impact document is not known"),
        ({"schema_version": None}, "schema_version None"),
        ({"settings": None}, "settings.formats: Input should be a valid list"),
        ({"settings": [1]}, "settings is no object"),
        ({"layers": {}, "linears": 3}, "linears is no list of rows"),
        ({"whole": [1]}, "whole is no list of rows"),
        ({"groups": {SPEC: 3}}, "is no object"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"model": None}, "model"),
        ({"settings": {**V1["settings"], "points": ["weight"]}}, "a row has the mode both, the settings weight"),
        ({"settings": {**V1["settings"], "formats": ["nvfp4"]}}, "a row has the format mxfp4:even, the settings nvfp4"),
        ({"settings": {**V1["settings"], "attribute": ["magic"]}}, "costs.settings.how.0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ReportError) as caught:
        Report.load(written(tmp_path, **changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "srdd-impact.json" in str(caught.value)


def test_show_and_validate_take_it(tmp_path: Path, srdd: Run) -> None:
    path = written(tmp_path)
    code, shown, _ = srdd("show", path, "--stats")
    assert code == 0
    for words in ("left as they are: lm_head", "measured (swap)", "Fusion groups", "l.0.mlp.experts", "0.210 ± 0.030"):
        assert words in shown, words
    code, printed, _ = srdd("show", path, "--json")
    assert (code, json.loads(printed)["document"]) == (0, "srdd-report")
    code, _, shown = srdd("show", path, "--layer", "0")
    assert (code, len(shown.splitlines())) == (2, 1)
    assert "--layer has no effect on a report that has costs and no sites" in shown
    code, _, shown = srdd("validate", path)
    assert code == 2
    assert "1 layers are too few" in shown
