"""Every command as a user types it, and every mistake: one line, exit 2, no file written or lost."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from srdd.cli.app import COMMANDS
from srdd.documents.report import Report, json_schema
from srdd.errors import SourceError

Run = Callable[..., tuple[int, str, str]]
SHORT = ("--samples", "4", "--seq-len", "32", "--batch-size", "2")


@pytest.fixture
def report(tiny_llama: Path, text: Path, tmp_path: Path, srdd: Run) -> Path:
    path = tmp_path / "report.json"
    code, _, err = srdd(
        "scan",
        "--model",
        tiny_llama,
        "--quant",
        "mxfp4,nvfp4",
        "--quant",
        "mxfp8",
        "--data",
        text,
        *SHORT,
        "--out",
        path,
    )
    assert code == 0, err
    return path


def copy_of(folder: Path, target: Path, *, without: str = "") -> Path:
    target.mkdir()
    for file in folder.iterdir():
        if not (without and file.name.startswith(without)):
            (target / file.name).write_bytes(file.read_bytes())
    return target


def refused(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert code == 2, (code, err)
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("srdd: error: "), err
    assert "Traceback" not in err
    for word in words:
        assert word in last, last


def test_scan_writes_a_report_and_shows_it(report: Path) -> None:
    document = Report.load(report)
    assert document.settings.formats == ["mxfp4:even", "nvfp4:nvidia", "mxfp8_e4m3:rceil"]
    assert {site.kind for site in document.sites} == {"weight", "input", "output"}
    assert document.settings.calibration is not None
    assert document.settings.calibration.tokens == 128
    assert len(document.layers) == 9
    assert str(report.parent) not in report.read_text(), "a report must not leak the paths of a machine"


def test_what_a_calibration_file_held_is_named(tiny_llama: Path, tmp_path: Path, srdd: Run) -> None:
    data, out = tmp_path / "d.jsonl", tmp_path / "r.json"
    rows = [{"prompt": f"w{i}", "completion": " ".join(f"w{i + j}" for j in range(30)), "id": i} for i in range(2, 14)]
    data.write_text("\n".join(map(json.dumps, rows)))
    code, _, err = srdd("scan", tiny_llama, "--quant", "mxfp4", "--data", data, *SHORT, "--cost", "none", "--out", out)
    assert code == 0, err
    assert "read     12 records of prompt and completion" in err
    assert "column 'id' of 12 records not read" in err
    calibration = Report.load(out).settings.calibration
    assert calibration is not None
    assert calibration.read == "12 records of prompt and completion"
    assert "column 'id' of 12 records not read" in calibration.dropped
    _, shown, _ = srdd("show", out, "--stats")
    assert "from d.jsonl (read 12 records of prompt and completion)" in " ".join(shown.split())
    code, _, err = srdd(
        "impact", tiny_llama, "--quant", "mxfp4", "--data", data, *SHORT, "--out", tmp_path / "i.json", "--modes", "wa"
    )
    assert code == 0, err
    assert "Read 12 records of prompt and completion from d.jsonl; left out: " in " ".join(err.split())


def test_scan_prints_plan_summary_and_worst_layers(tiny_llama: Path, text: Path, tmp_path: Path, srdd: Run) -> None:
    code, screen, err = srdd(
        "scan", "--model", tiny_llama, "--quant", "mxfp4:rceil", "--data", text, *SHORT, "--out", tmp_path / "r.json"
    )
    assert code == 0
    for words in ("VERDICT ", "WHERE ", "WHAT TO DO", "NEXT ", "TRUST "):
        assert f"\n{words}" in screen, words
    _, out, _ = srdd("show", tmp_path / "r.json", "--stats")
    for words in ("Gaussian", "zero by construction", "worst layers", "weights cover", "kernel eager", "Whole model"):
        assert words in out, words
    for words in ("Scanning tiny-llama", "mxfp4:rceil", "128 (4 sequences of 32)", "Report: "):
        assert words in err, words
        assert words == "mxfp4:rceil" or words not in screen, words


def test_two_scans_differ_in_provenance_only(tiny_llama: Path, text: Path, tmp_path: Path, srdd: Run) -> None:
    texts = []
    for name in ("a.json", "b.json"):
        code, _, _ = srdd(
            "scan", "--model", tiny_llama, "--quant", "mxfp4_sr", "--data", text, *SHORT, "--out", tmp_path / name
        )
        assert code == 0
        texts.append((tmp_path / name).read_text().splitlines())
    different = [a for a, b in zip(*texts, strict=True) if a != b]
    assert all("provenance" in line for line in different)


def test_json_goes_to_stdout_alone(tiny_llama: Path, tmp_path: Path, srdd: Run) -> None:
    code, out, _ = srdd(
        "scan", "--model", tiny_llama, "--quant", "mxfp4", "--sites", "weight", "--json", "--out", tmp_path / "r.json"
    )
    assert code == 0
    summary = json.loads(out)
    assert (summary["document"], summary["schema_version"]) == ("srdd-summary", 1)
    assert {row["metric"] for row in summary["rows"]} >= {"sqnr_db", "relative_error"}
    layers = {row["layer"]: row["formats"]["mxfp4:even"]["metrics"] for row in summary["layers"]}
    assert sorted(layers) == [0, 1, 2]
    report = Report.load(tmp_path / "r.json")
    assert layers[1]["sqnr_db"] == report.layers[1].formats["mxfp4:even"].value("sqnr_db")


def test_dry_run_lists_the_sites_and_writes_nothing(
    tiny_llama: Path, tmp_path: Path, srdd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = srdd("scan", "--model", tiny_llama, "--quant", "mxfp4", "--dry-run")
    assert code == 0
    assert "weight     0  model.layers.0.self_attn.q_proj" in out
    assert "output     2  model.layers.2" in out
    assert list(tmp_path.iterdir()) == []


def test_weights_from_the_checkpoint_equal_those_of_the_model(
    tiny_llama: Path, text: Path, tmp_path: Path, srdd: Run
) -> None:
    stored, opened = tmp_path / "stored.json", tmp_path / "opened.json"
    assert srdd("scan", "--model", tiny_llama, "--quant", "mxfp4,nvfp4", "--sites", "weight", "--out", stored)[0] == 0
    assert (
        srdd("scan", "--model", tiny_llama, "--quant", "mxfp4,nvfp4", "--data", text, *SHORT, "--out", opened)[0] == 0
    )
    a, b = ({s.name: s.formats for s in Report.load(path).sites if s.kind == "weight"} for path in (stored, opened))
    assert a == b


def test_layers_and_patterns(tiny_llama: Path, text: Path, tmp_path: Path, srdd: Run) -> None:
    out = tmp_path / "r.json"
    code, _, err = srdd(
        "scan", "--model", tiny_llama, "--quant", "mxfp4", "--data", text, *SHORT, "--out", out,
        "--sites", "weight,input:*down_proj", "--layers", "0,2", "--exclude", "*o_proj",
    )  # fmt: skip
    assert code == 0, err
    names = {(s.kind, s.name) for s in Report.load(out).sites}
    assert ("input", "model.layers.2.mlp.down_proj") in names
    assert all("layers.1." not in name and "o_proj" not in name for _, name in names)
    assert all(name.endswith("down_proj") for kind, name in names if kind == "input")


def test_nan_weights_finish_with_a_warning_and_fail_only_when_strict(
    tiny_llama: Path, tmp_path: Path, srdd: Run
) -> None:
    broken = copy_of(tiny_llama, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    arguments = ("scan", "--model", broken, "--quant", "mxfp4", "--sites", "weight", "--out", tmp_path / "r.json")
    code, out, _ = srdd(*arguments)
    assert code == 0
    assert "NaN or infinite" in out
    assert srdd(*arguments, "--strict", "--force")[0] == 1
    report = Report.load(tmp_path / "r.json")
    site = next(s for s in report.sites if s.name == "model.layers.1.mlp.up_proj")
    tally = site.formats["mxfp4:even"].merged()
    assert (tally.nonfinite, tally.excluded) == (1, 32)
    assert tally.n == 96 * 64 - 32
    assert report.has_errors


def test_missing_tokenizer_still_scans_weights_and_says_so(tiny_llama: Path, tmp_path: Path, srdd: Run) -> None:
    bare = copy_of(tiny_llama, tmp_path / "bare", without="token")
    code, out, err = srdd("scan", "--model", bare, "--quant", "mxfp4", "--out", tmp_path / "r.json")
    assert code == 0, err
    assert "only weights are scanned" in out
    assert {s.kind for s in Report.load(tmp_path / "r.json").sites} == {"weight"}
    refused(
        srdd("scan", "--model", bare, "--quant", "mxfp4", "--sites", "input", "--out", tmp_path / "x.json"), "tokenizer"
    )
    scan = ("scan", "--model", bare, "--quant", "mxfp4", "--out", tmp_path / "other.json")
    refused(srdd(*scan, "--samples", "3", "--seq-len", "9"), "--samples, --seq-len have no effect", "only weights")
    refused(srdd(*scan, "--batch-size", "1"), "--batch-size has no effect", "its folder holds no tokenizer files")
    assert not (tmp_path / "other.json").exists()
    impact = srdd("impact", "--model", bare, "--quant", "mxfp4", "--out", tmp_path / "other.json")
    refused(impact, "this model has no tokenizer", ".npz file with --data")
    assert "--sites" not in impact[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--quant", "mxfp5"), ("unknown format 'mxfp5'", "mxfp4")),
        (("--quant", "mxfp4:up"), ("unknown scale rule 'up'", "rceil")),
        (("--quant", "mxfp4,mxfp4:even"), ("given twice",)),
        (("--quant", "mxpf4"), ("did you mean mxfp4?",)),
        (("--quant", "mxfp4:flor"), ("did you mean floor?",)),
        (("--quant", "mxfp4", "--threshold", "sqnr_bd=3"), ("did you mean sqnr_db?",)),
        (("--quant", "mxfp4", "--dry-run", "--force"), ("--force", "no effect", "--dry-run")),
        (("--quant", "mxfp4", "--layers", "40-50"), ("do not exist", "layers 0-2")),
        (("--quant", "mxfp4", "--layers", "x"), ("not understood",)),
        (("--quant", "mxfp4", "--sites", "wieght"), ("not understood", "weight")),
        (("--quant", "mxfp4", "--sites", "input:*nothing*"), ("matches nothing", "--dry-run")),
        (("--quant", "mxfp4", "--exclude", "nothing"), ("matches nothing",)),
        (("--quant", "mxfp4", "--threshold", "sqnr=3"), ("threshold",)),
        (("--quant", "mxfp4", "--backend", "turbo"), ("backend",)),
        (("--quant", "mxfp4", "--device", "cuda:7"), ("cuda",)),
        (("--quant", "mxfp4", "--dtype", "float8"), ("dtype",)),
        (("--quant", "mxfp4", "--sites", "weight", "--samples", "3"), ("--samples", "no effect")),
        (("--quant", "mxfp4", "--sites", "weight", "--samples", "16"), ("--samples has no effect",)),
        (("--quant", "mxfp4", "--sites", "weight", "--dtype", "float32"), ("--dtype", "no effect")),
        (("--quant", "mxfp4", "--sites", "weight", "--seed", "3"), ("--seed has no effect", "rounds stochastically")),
        (("--quant", "mxfp4", "--sites", "weight", "--backend", "foo"), ("--backend foo: unknown backend",)),
        (("--quant", "mxfp4", "--seq-len", "9999"), ("9999", "give --seq-len 256")),
        (("--quant", "mxfp4", "--samples", "0"), ("samples",)),
        (("--quant", "mxfp4", "--batch-size", "0"), ("batch",)),
        (("--quant", "mxfp4", "--data", "missing.txt"), ("missing.txt",)),
        (("--quant", "mxfp4", "--dry-run", "--strict"), ("no effect", "--strict, --out, --force, --data")),
        (("--quant", "mxfp4", "--dry-run", "--samples", "3"), ("--samples", "have no effect with --dry-run")),
        (("--quant", "mxfp4", "--dry-run", "--seed", "3", "--backend", "eager"), ("--seed, --backend, --seq-len",)),
        (("--quant", "mxfp4", "--threshold", "cosine=0.9", "--threshold", "cosine=0.8"), ("cosine is given twice",)),
        (("--quant", "mxfp4", "--threshold", "cosine=5"), ("--threshold cosine=5: expected -1 to 1",)),
        (("--quant", "mxfp4", "--threshold", "relative_error=10"), ("expected 0 to 1, e.g. 0.1 for 10%",)),
        (("--quant", "mxfp4", "--threshold", "deadzone_ratio=-0.1"), ("expected 0 to 1",)),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, tuple) else None,
)  # fmt: skip
def test_mistakes(arguments: tuple, words: tuple, tiny_llama: Path, text: Path, tmp_path: Path, srdd: Run) -> None:
    given = list(arguments)
    activations = "--sites" not in given or "input" in " ".join(given)
    if "--data" not in given and activations:
        given += ["--data", str(text)]
        given += [] if "--seq-len" in given else ["--seq-len", "32"]
    out = tmp_path / "r.json"
    out.write_text("precious")
    refused(srdd("scan", "--model", tiny_llama, *given, "--out", out, "--force"), *words)
    assert out.read_text() == "precious"


def test_bad_models(tiny_llama: Path, tmp_path: Path, srdd: Run) -> None:
    scan = ("scan", "--quant", "mxfp4", "--out", tmp_path / "r.json", "--model")
    refused(srdd(*scan, tmp_path / "nowhere"), "nowhere")
    refused(srdd(*scan, copy_of(tiny_llama, tmp_path / "no-weights", without="model")), "weight")
    cut = copy_of(tiny_llama, tmp_path / "cut")
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(srdd(*scan, cut), "safetensors")
    refused(srdd(*scan, cut, "--sites", "weight"), "safetensors")
    assert not (tmp_path / "r.json").exists()


def test_text_too_short(tiny_llama: Path, tmp_path: Path, srdd: Run) -> None:
    (tmp_path / "short.txt").write_text("w2 w3 w4")
    refused(
        srdd("scan", "--model", tiny_llama, "--quant", "mxfp4", "--data", tmp_path / "short.txt", "--seq-len", "32",
             "--out", tmp_path / "r.json"),
        "32",
    )  # fmt: skip


def test_unwritable_output_is_found_before_the_scan(tmp_path: Path, srdd: Run) -> None:
    refused(
        srdd("scan", "--model", "not-even-looked-at", "--quant", "mxfp4", "--out", tmp_path / "none" / "r.json"),
        "does not exist",
    )


@pytest.mark.parametrize("command", ["scan", "impact", "probe", "experiment aqn"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--samples 0", "--samples 0: expected"),
        ("--seq-len 1", "--seq-len 1: expected at least 2"),
        ("--batch-size 0", "--batch-size 0: expected at least 1"),
        ("--seed -1", "--seed -1: expected 0 or more"),
        ("--backend foo", "--backend foo: unknown backend; known: auto"),
        ("--dtype int8", "--dtype int8: expected one of auto"),
        ("--device foo", "--device foo: expected auto"),
        ("--data none.txt", "--data none.txt: no such file"),
        ("--data x.csv", "--data x.csv: unknown kind of file"),
        ("--data x.npz --text-column text", "--text-column has no effect on x.npz"),
        ("--text-column text", "--text-column has no effect without --data"),
    ],
)
def test_bad_values_are_found_before_a_model_is_opened(
    command: str,
    arguments: str,
    words: str,
    tmp_path: Path,
    srdd: Run,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    ranking = ("--report", request.getfixturevalue("report")) if command == "experiment aqn" else ()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("srdd.models.source.open_model", lambda *_, **__: pytest.fail("a model was opened"))
    given = ("--model", "somebody/huge", "--quant", "mxfp4", "--out", "out.json", *arguments.split())
    refused(srdd(*command.split(), *given, *ranking), words)


@pytest.mark.parametrize("command", ["scan", "impact", "probe", "experiment aqn"])
def test_how_a_model_is_opened_reaches_it(
    command: str, srdd: Run, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    ranking = ("--report", request.getfixturevalue("report")) if command == "experiment aqn" else ()
    asked: dict[str, object] = {}

    def opened(name: str, **options: object) -> None:
        asked.update(options)
        raise SourceError(f"{name} is not opened here")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("srdd.models.source.open_model", opened)
    given = "--model somebody/huge --quant mxfp4 --revision abc --dtype bfloat16 --device cpu --trust-remote-code"
    refused(srdd(*command.split(), *given.split(), *ranking), "somebody/huge is not opened here")
    for name in ("device_map", "adapter", "adapter_as"):
        assert asked.pop(name, None) is None
    assert asked == {"revision": "abc", "dtype": "bfloat16", "device": "cpu", "trust_remote_code": True}


def test_show(report: Path, srdd: Run) -> None:
    code, out, err = srdd("show", report, "--stats")
    assert code == 0
    assert err == ""
    for words in (
        "Weights",
        "Linear inputs",
        "Decoder-layer outputs",
        "worst layers by relative error, and by SQNR",
        "█",
    ):
        assert words in out, words


def test_show_selects(report: Path, srdd: Run) -> None:
    _, out, _ = srdd("show", report, "--site", "input", "--quant", "nvfp4", "--top", "2")
    assert "mxfp4:even" not in out.split("nvfp4:nvidia", 2)[2]
    assert "the 2 worst layers" in out
    assert "Decoder-layer outputs" not in out


def test_show_layer_and_json(report: Path, srdd: Run) -> None:
    _, tables, _ = srdd("show", report, "--layer", "1", "--quant", "mxfp4")
    for module in ("self_attn.q_proj", "(+ k_proj, v_proj)", "mlp.down_proj"):
        assert module in tables, module
    _, out, _ = srdd("show", report, "--layer", "-1", "--quant", "mxfp4", "--json")
    assert {row["name"] for row in json.loads(out)["rows"]} == {"lm_head"}
    _, out, _ = srdd("show", report, "--json")
    assert len(json.loads(out)["rows"]) == len(Report.load(report).summary)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("--site", "gradient"), "--site"), (("--quant", "mxint8"), "mxint8"), (("--quant", "x"), "unknown format"),
     (("--layer", "9"), "--layer 9"), (("--layer", "1", "--top", "3"), "--top has no effect with --layer"),
     (("--json", "--top", "3"), "--top has no effect with --json")],
    ids=["site", "quant", "unknown", "layer", "top of a layer", "top as json"],
)  # fmt: skip
def test_show_mistakes(arguments: tuple, word: str, report: Path, srdd: Run) -> None:
    refused(srdd("show", report, *arguments), word)


def test_show_missing_report(tmp_path: Path, srdd: Run) -> None:
    refused(srdd("show", tmp_path / "none.json"), "srdd scan")


def test_formats_and_schema(srdd: Run) -> None:
    code, out, err = srdd("formats")
    assert (code, err) == (0, "")
    assert "E2M1" in out
    assert "0 0.5 1 1.5 2 3 4 6" in out
    _, out, _ = srdd("formats", "--json")
    assert (json.loads(out)["document"], json.loads(out)["schema_version"]) == ("srdd-formats", 1)
    rows = {row["name"]: row for row in json.loads(out)["formats"]}
    assert rows["mxfp4"]["bits_per_value"] == 4.25
    assert all(row["gaussian"][rule] for row in rows.values() for rule in row["rules"])
    _, out, _ = srdd("schema")
    assert json.loads(out) == json_schema()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, srdd: Run) -> None:
    code, out, err = srdd(command, "--help")
    assert code == 0
    assert f"srdd {command}" in out + err
    assert "Example:" in out + err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("scan --model x --no-such-option", ("no such option", "--no-such-option", "`srdd scan --help`")),
        ("scan", ("no model given", "`srdd scan smollm2`")),
        ("impact", ("no model given", "`srdd impact smollm2`")),
        ("probe --quant mxfp4", ("no model given", "`srdd probe smollm2`")),
        ("experiment aqn --quant mxfp4", ("no model given", "`srdd experiment aqn smollm2`")),
        ("scan x --model y", ("--model y: x is given as MODEL too; give one",)),
        ("impact x --model y", ("--model y: x is given as MODEL too; give one",)),
        ("probe x --quant mxfp4 --model y", ("--model y: x is given as MODEL too; give one",)),
        ("experiment aqn x --quant mxfp4 --model y", ("--model y: x is given as MODEL too; give one",)),
        ("probe x", ("missing option", "--quant", "`srdd probe --help`")),
        ("scan x --quant mxfp4 --quantt", ("no such option --quantt; did you mean --quant?", "`srdd scan --help`")),
        ("scan x --helpp", ("did you mean --help?",)),
        ("scan --model", ("--model", "requires an argument", "`srdd scan --help`")),
        ("scan --model x --samples abc", ("--samples", "integer", "`srdd scan --help`")),
        ("scan x extra", ("extra", "`srdd scan --help`")),
        ("show --top 0", ("--top", "1", "`srdd show --help`")),
        ("scam", ("no such command 'scam'; did you mean scan?", "`srdd --help`")),
        ("experiment aqm", ("no such command 'aqm'; did you mean aqn?", "`srdd experiment --help`")),
        ("experiment nope", ("no such command 'nope'", "`srdd experiment --help`")),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments: str, words: tuple, srdd: Run) -> None:
    result = srdd(*arguments.split())
    refused(result, *words)
    assert len(result[2].splitlines()) == 1, result[2]


def test_a_bare_command_line_shows_its_help(srdd: Run) -> None:
    for arguments in ((), ("experiment",)):
        _, out, err = srdd(*arguments)
        assert "Usage: srdd" in out + err


def test_interrupt_says_so_and_leaves_no_file(
    tiny_llama: Path, text: Path, tmp_path: Path, srdd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("srdd.runs.scans.model.run", interrupted)
    code, _, err = srdd(
        "scan", "--model", tiny_llama, "--quant", "mxfp4", "--data", text, *SHORT, "--out", tmp_path / "r.json"
    )
    assert code == 130
    assert "interrupted" in err
    assert [p.name for p in tmp_path.iterdir() if p.name != "words.txt"] == []


def test_a_bug_shows_its_traceback_and_is_no_failed_check(srdd: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("of nobody's making")

    monkeypatch.setattr("srdd.documents.report.json_schema", broken)
    code, out, err = srdd("schema")
    assert (code, out) == (70, "")
    assert err.startswith("Traceback")
    assert "ZeroDivisionError: of nobody's making" in err
    assert "this is a bug in srdd" in err.splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="terminate() cannot be caught there")
def test_terminated_while_writing_leaves_the_old_file_and_says_so(report: Path, tmp_path: Path) -> None:
    folder = tmp_path / "zones"
    folder.mkdir()
    (folder / "zones.yaml").write_text("precious")
    code = f"""
import sys, time
import srdd.core.files
from srdd.cli import main
def slow(descriptor):
    print("ready", flush=True)
    time.sleep(60)
srdd.core.files.os.fsync = slow
sys.exit(main(["zones", {str(report)!r}, "--out", "zones.yaml", "--force"]))
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(list(folder.iterdir())) == 2, "the new file is being written"
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "srdd: terminated; no file was left half written\n")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"zones.yaml": "precious"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_worker_is_terminated_as_ever() -> None:
    code = """
import os, signal, time
from srdd.cli.endings import terminable
reader, writer = os.pipe()
with terminable():
    child = os.fork()
    if child == 0:
        os.write(writer, b"ready")  # Python forgets signals that come while it forks
        time.sleep(60)
        os._exit(0)
    os.read(reader, 5)
    os.kill(child, signal.SIGTERM)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["15", "True"]
    assert done.stderr == ""


def test_no_color(report: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "srdd", "show", str(report)],
        capture_output=True, text=True, check=True, env=os.environ | {"NO_COLOR": "1", "FORCE_COLOR": ""},
    )  # fmt: skip
    assert "VERDICT" in done.stdout
    assert "\x1b[3" not in done.stdout


@pytest.mark.parametrize("command", ["formats", "schema"])
def test_a_reader_that_leaves_is_no_failed_check(command: str) -> None:
    """`srdd formats 2>&1 | head -1`: what a shell calls 141, and nothing more is said."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        done = subprocess.run([sys.executable, "-m", "srdd", command], stdout=gone, stderr=gone, check=False)
    assert done.returncode == 141


def test_a_mistake_nobody_reads_keeps_its_exit_code() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        command = [sys.executable, "-m", "srdd", "zones", "no-such.json"]
        done = subprocess.run(command, stdout=gone, stderr=gone, check=False)
    assert done.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        for command in ("schema", "formats", "--help", "--version"):
            words = [sys.executable, "-m", "srdd", command]
            done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
            assert done.returncode == 2
            assert done.stderr.count("\n") == 1
            assert "cannot write to standard output: No space left" in done.stderr
