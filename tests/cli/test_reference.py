"""`srdd scan PACKED --reference ORIGINAL` on the command line: screen, report, and one line for what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from packed_rtn import ct_mxfp4, pack_folder

from srdd.documents.report import Report

Run = Callable[..., tuple[int, str, str]]
TEXT = ("--seq-len", "32", "--samples", "8", "--backend", "eager")


@pytest.fixture
def packed(tmp_path: Path, tiny_llama: Path) -> Path:
    """MXFP4, one weight with scales twice too large."""
    return pack_folder(
        tiny_llama,
        tmp_path / "packed",
        lambda name, x: ct_mxfp4(x, up=int("1.mlp.up" in name)) if name.endswith("_proj.weight") else None,
    )


def flat(text: str) -> str:
    return " ".join(text.split())


def test_weights_and_costs(packed: Path, tiny_llama: Path, text: Path, tmp_path: Path, srdd: Run) -> None:
    out = tmp_path / "r.json"
    code, stdout, stderr = srdd("scan", packed, "--reference", tiny_llama, "--data", text, *TEXT, "--out", out)
    assert code == 0, stderr
    said = flat(stdout)
    assert "1 of 21 weights is worse by more than 0.5 dB: model.layers.1.mlp.up_proj (-2." in said
    assert "round-to-nearest" in said
    assert "as stored" in said
    assert "rounded anew" in said
    assert "errors are those of the stored codes, MXFP4 (21 weights), and of fresh quantization, both against tiny-llama" in said  # fmt: skip # noqa: E501
    assert all(len(line) <= 80 for line in stdout.splitlines() if "srdd " not in line), "commands stay whole"
    assert len(stdout.splitlines()) <= 28
    report = Report.load(out)
    assert report.costs is not None
    assert [row.format for row in report.costs.whole] == ["mxfp4:stored", "mxfp4:even"]
    assert report.provenance["reference"] == "tiny-llama"
    code, again, _ = srdd("show", out)
    assert code == 0
    assert flat(again).split("NEXT")[0] == said.split("NEXT")[0]


def test_weights_alone_build_no_model(
    packed: Path, tiny_llama: Path, tmp_path: Path, srdd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srdd.models.source.open_model", None)
    out = tmp_path / "r.json"
    arguments = ("--sites", "weight", "--quant", "nvfp4", "--backend", "eager", "--out", out, "--json")
    code, stdout, stderr = srdd("scan", packed, "--reference", tiny_llama, *arguments)
    assert code == 0, stderr
    (form,) = json.loads(stdout)["stored"]["forms"]
    assert (form["stored"], form["fresh"], form["weights"]) == ("mxfp4:stored", "mxfp4:even", 21)
    assert [*form["much_worse"]] == ["model.layers.1.mlp.up_proj"]
    assert form["gain_db"] == pytest.approx(form["stored_db"] - form["fresh_db"])
    assert form["roles"]["q_proj"]["gain_db"] == 0
    assert Report.load(out).settings.formats == ["mxfp4:stored", "mxfp4:even", "nvfp4:nvidia"]
    code, _, stderr = srdd("scan", packed, "--reference", tiny_llama, "--cost", "none", "--out", tmp_path / "n.json")
    assert code == 0, stderr


def test_some_layers(packed: Path, tiny_llama: Path, tmp_path: Path, srdd: Run) -> None:
    out = tmp_path / "r.json"
    arguments = ("--sites", "weight", "--layers", "1", "--backend", "eager", "--out", out)
    code, _, stderr = srdd("scan", packed, "--reference", tiny_llama, *arguments)
    assert code == 0, stderr
    assert {site.layer for site in Report.load(out).sites} == {1}


def test_what_other_commands_make_of_it(packed: Path, tiny_llama: Path, tmp_path: Path, srdd: Run) -> None:
    out = tmp_path / "r.json"
    assert (
        srdd("scan", packed, "--reference", tiny_llama, "--sites", "weight", "--backend", "eager", "--out", out)[0] == 0
    )
    for command in (
        ("show", out, "--stats"),
        ("show", out, "--layer", "1"),
        ("report", out, "--out", tmp_path / "r.html"),
        ("report", out, "--out", tmp_path / "r.md"),
        ("report", out, "--out", tmp_path / "r.csv"),
        ("advise", out),
        ("check", out, "--baseline", out),
    ):
        code, _, stderr = srdd(*command)
        assert code == 0, (command, stderr)
    worse = tmp_path / "fresh.json"
    assert srdd("compare", out, out, "--quant", "mxfp4:stored")[0] == 0
    assert "mxfp4:stored" in (tmp_path / "r.csv").read_text()
    code, _, stderr = srdd("scan", tiny_llama, "--quant", "mxfp4:stored", "--sites", "weight", "--out", worse)
    assert code == 2
    assert "names the codes of a checkpoint" in stderr
    assert not worse.exists()


@pytest.mark.parametrize(
    ("model", "reference", "more", "said"),
    [
        ("plain", "packed", (), "tiny-llama holds no packed weights"),
        ("packed", "nowhere", (), "nowhere"),
        ("packed", "smollm2", (), "smollm2 is read through a model; --reference compares safetensors checkpoints"),
        ("packed", "plain", ("--sites", "weight,output"), "--sites weight,output: with a reference only weights"),
        ("packed", "plain", ("--cost", "predicted"), "--cost predicted: with a reference costs are measured"),
        ("packed", "plain", ("--noise-on", "both"), "--noise-on has no effect with a reference"),
        ("packed", "plain", ("--batch-size", "2"), "--batch-size has no effect with a reference"),
        ("packed", "plain", ("--sites", "weight", "--seq-len", "8"), "--seq-len has no effect when only weights"),
        ("packed", "plain", ("--sites", "weight:lm_head"), "none of the 1 weights that were chosen is packed"),
        ("packed", "plain", ("--quant", "nvfp5"), "unknown format"),
    ],
)
def test_one_line_and_nothing_written(
    model: str,
    reference: str,
    more: tuple[str, ...],
    said: str,
    packed: Path,
    tiny_llama: Path,
    tmp_path: Path,
    srdd: Run,
) -> None:
    names = {"packed": packed, "plain": tiny_llama, "nowhere": tmp_path / "nowhere", "smollm2": "smollm2"}
    out = tmp_path / "r.json"
    code, stdout, stderr = srdd("scan", names[model], "--reference", names[reference], *more, "--out", out)
    assert code == 2
    assert said in flat(stderr), stderr
    assert "Traceback" not in stderr
    assert not out.exists()
    assert not stdout


def test_a_dry_run_lists_the_weights(packed: Path, tiny_llama: Path, srdd: Run) -> None:
    code, stdout, stderr = srdd("scan", packed, "--reference", tiny_llama, "--dry-run")
    assert code == 0, stderr
    assert len(stdout.splitlines()) == 22
    assert "21 packed weights; 1 plain" in flat(stderr)
