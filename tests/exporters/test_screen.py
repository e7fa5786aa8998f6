"""The first screen: exact lines, 28 lines of 80 columns whatever the report holds, and the costliest layer first."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import make_costs, make_report, tally

from srdd.documents.costs import Cost, Costs, Unpriced
from srdd.documents.parts import Note
from srdd.documents.report import Report
from srdd.exporters.terminal import screen
from srdd.exporters.terminal.fitted import FittedConsole

Run = Callable[..., tuple[int, str, str]]
MXFP4, NVFP4, MXFP8 = "mxfp4:even", "nvfp4:nvidia", "mxfp8_e4m3:rceil"
ALL = [MXFP4, NVFP4, MXFP8, "mxint8:floor", "mxfp6_e2m3:even", "mxfp6_e3m2:even", "mxfp8_e5m2:rceil"]


def priced(kls: dict[str, list[float]], model: str = "toy", **of_costs: Any) -> Report:
    layers = len(next(iter(kls.values())))
    outputs = {"output": [[tally(0.2 + at / 1000)] * 2 for at in range(layers)]}
    report = make_report(outputs, list(kls), model=model)  # type: ignore[arg-type]
    return report.model_copy(update={"costs": make_costs(kls, **of_costs)})


def lines(report: Report, file: str = screen.DEFAULT, encoding: str = "utf-8") -> list[str]:
    return screen.render(report, file, encoding).lines


def test_golden() -> None:
    report = priced({MXFP4: [0.3, 0.1, 0.02, 0.02, 0.02], MXFP8: [0.003, 0.001, 0.0, 0.0, 0.0]})
    assert lines(report) == GOLDEN.splitlines()


GOLDEN = """\
toy · 5 layers, 35 Linears · 16 tokens, cost on 16 · cpu

VERDICT   mxfp4 W4A4 costs too much as it is; mxfp8 is free
                           bits  loss          KL nats/token      same token
  mxfp4:even        W4A4   4.25  3.00 -> 3.46  0.460 ± 0.023      60 ± 3 %
                    W4A16  4.25  3.00 -> 3.15  0.153 ± 0.008      60 ± 3 %
  mxfp8_e4m3:rceil  W8A8   8.25  3.00 -> 3.00  0.00400 ± 0.00020  60 ± 3 %
                    W8A16  8.25  3.00 -> 3.00  0.00133 ± 0.00007  60 ± 3 %

WHERE     mxfp4 W4A4: predicted KL if only this is quantized
  layer 0   0.300 ██████████████████  attn.qkv  inputs
  layer 1   0.100 ██████              attn.qkv  inputs
  layer 2  0.0200 █                   attn.qkv  inputs
  layer 3  0.0200 █                   attn.qkv  inputs
  1 other  0.0200                     3 of 20 groups carry half

WHAT TO DO                              bits  KL
  keep 0.mlp.down, 0.attn.qkv in mxfp8  4.71  0.237 ± 0.012 predicted
  keep 4 groups in mxfp8: noticeable    4.94  0.183 ± 0.009 predicted
  keep 6 groups in mxfp8: knee          5.51  0.0888 ± 0.0044 predicted
  mxfp8 throughout                      8.25  0.00400 ± 0.00020 measured

NEXT      srdd advise · srdd show --stats · srdd report
          srdd check NEW --baseline srdd-report.json
TRUST     order firm above 0.0200 (2 errors, 2 texts); Spearman 0.91 on SmolLM2
"""


@pytest.mark.parametrize("layers", [2, 30, 126])
@pytest.mark.parametrize("specs", [ALL[:1], [MXFP4, MXFP8], ALL[:3], ALL], ids=["1", "2", "3", "7"])
@pytest.mark.parametrize("modes", [("both",), ("weight",), ("weight", "both"), ("weight", "input", "both")])
@pytest.mark.parametrize("many", [False, True], ids=["plain", "long names, notes"])
def test_28_lines_of_80_columns(layers: int, specs: list[str], modes: tuple[str, ...], many: bool) -> None:
    kls = {spec: [1 / (1 + at) / 3**place for at in range(layers)] for place, spec in enumerate(specs)}
    report = priced(kls, "an-organisation/Some-Model-With-A-Long-Name-235B-A22B-Instruct-2507", modes=modes)
    if many:
        report = with_experts(report)
        notes = [Note(f"a warning that takes its room, number {i}: " + "words " * 20) for i in range(9)]
        report = report.model_copy(update={"warnings": notes})
    shown = lines(report, "results/of/this/week/report.json" if many else screen.DEFAULT)
    assert len(shown) <= 28, "\n".join(shown)
    assert max(map(len, shown)) <= 80, max(shown, key=len)
    for word in ("VERDICT ", "WHERE ", "WHAT TO DO", "NEXT ", "TRUST "):
        assert any(line.startswith(word) for line in shown), word


def with_experts(report: Report) -> Report:
    """Groups of a mixture, called as long as they come."""
    assert report.costs is not None
    long = "block_sparse_moe.shared_feed_forward.experts"
    groups = [g.model_copy(update={"name": g.name.replace("mlp.gate_up", long)}) for g in report.costs.groups]
    unpriced = [Unpriced(module="model.layers.0.mlp.gate", parameters=512, reason="a router")]
    return report.model_copy(update={"costs": report.costs.model_copy(update={"groups": groups, "unpriced": unpriced})})


def test_who_trains_with_noise_is_led_to_it_where_noise_was_measured() -> None:
    report = priced({MXFP4: [0.3, 0.1], MXFP8: [0.003, 0.001]})
    assert not any("srdd multipliers" in line for line in lines(report))
    noisy = report.model_copy(
        update={"costs": make_costs({MXFP4: [0.3, 0.1], MXFP8: [0.003, 0.001]}, traces=[1.0, 2.0])}
    )
    assert "NEXT      srdd advise · srdd show --stats · srdd report · srdd multipliers" in lines(noisy)
    assert len(lines(noisy)) <= 28


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_nothing_is_cut_at_any_width(width: int) -> None:
    report = priced({MXFP4: [0.3, 0.1, 0.2], NVFP4: [0.1, 0.03, 0.05], MXFP8: [0.001, 0.002, 0.001]})
    out = FittedConsole(file=io.StringIO(), width=width, highlight=False)
    screen.show(out, report)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert " ".join(text.split()) == " ".join(" ".join(lines(report)).split())


def test_a_log_in_ascii_has_bars_of_hashes() -> None:
    report = priced({MXFP4: [0.3, 0.1]}, model="modèle")
    shown = "\n".join(lines(report, encoding="ascii"))
    assert shown.isascii()
    assert "####" in shown
    assert "+-" in shown
    assert " | " not in shown, "commands that are pasted are no pipes"


@pytest.mark.parametrize("order", [[0.1, 0.5, 0.3], [0.5, 0.3, 0.1], [0.2, 0.2, 0.4]])
def test_the_first_layer_is_the_costliest(order: list[float]) -> None:
    report = priced({MXFP4: order})
    first = next(line for line in lines(report) if line.startswith("  layer "))
    assert first.split()[1] == str(order.index(max(order)))


def test_what_is_to_blame() -> None:
    def blamed(weight: float, both: float) -> str:
        report = priced({MXFP4: [0.3]})
        assert report.costs is not None
        value = {"weight": weight, "both": both}
        layers = [
            row.model_copy(update={"predicted_kl": Cost.of([value[row.mode]] * 2)}) for row in report.costs.layers
        ]
        report = report.model_copy(update={"costs": report.costs.model_copy(update={"layers": layers})})
        return next(line for line in lines(report) if line.startswith("  layer ")).split()[-1]

    assert [blamed(0.9, 1.0), blamed(0.5, 1.0), blamed(0.1, 1.0)] == ["weights", "both", "inputs"]


def test_weights_alone_are_not_blamed() -> None:
    shown = lines(priced({MXFP4: [0.3, 0.1]}, modes=("weight",)))
    assert any("W4A16" in line for line in shown)
    assert not any(line.endswith((" weights", " inputs", " both")) for line in shown)


def test_one_sequence_has_no_errors() -> None:
    report = priced({MXFP4: [0.3, 0.1], MXFP8: [0.01, 0.01]})
    assert report.costs is not None

    def alone(tree: Any) -> Any:
        if isinstance(tree, dict):
            ones = ("sequences", "sequence_hashes")
            return {key: value[:1] if key in ones and value else alone(value) for key, value in tree.items()}
        return [alone(item) for item in tree] if isinstance(tree, list) else tree

    costs = Costs.model_validate(alone(report.costs.model_dump()))
    shown = lines(report.model_copy(update={"costs": costs}))
    assert not any("±" in line or "nan" in line for line in shown)
    assert any("order untested: one text" in line for line in shown)


def test_the_identity_is_no_format_to_rank_by() -> None:
    report = priced({"identity": [0.0, 0.0], MXFP4: [0.1, 0.2]})
    assert report.costs is not None
    whole = [row.model_copy(update={"no_effect": row.format == "identity"}) for row in report.costs.whole]
    shown = lines(report.model_copy(update={"costs": report.costs.model_copy(update={"whole": whole})}))
    assert any(line.startswith("WHERE     mxfp4 W4A4") for line in shown)
    assert any("no effect" in line for line in shown)


def test_a_report_of_costs_alone(tmp_path: Path, srdd: Run) -> None:
    report = priced({MXFP4: [0.3, 0.1]}).model_copy(update={"sites": []})
    report.save(tmp_path / "costs.json")
    code, out, _ = srdd("show", tmp_path / "costs.json")
    assert code == 0
    assert "  layer 0  0.300" in out


def test_without_costs_the_reason_stands_first() -> None:
    report = make_report({"output": [[tally(0.2)], [tally(0.4)], [tally(0.3)]]})
    shown = lines(report)
    assert shown[2].startswith("VERDICT   no costs in this report: error statistics predict damage poorly")
    assert next(line for line in shown if line.startswith("  layer ")).split()[1] == "1"
    why = Note("no costs: the model has no language-model head; the ranking below predicts damage poorly")
    shown = lines(report.model_copy(update={"warnings": [why]}))
    assert " ".join(" ".join(shown).split()).count(str(why)) == 1
    assert len(shown) <= 28


@pytest.mark.parametrize("option", [("--stats",), ("--top", "3"), ("--site", "output"), ("--quant", "mxfp4")])
def test_tables_when_they_are_asked_for(option: tuple[str, ...], tmp_path: Path, srdd: Run) -> None:
    priced({MXFP4: [0.3, 0.1]}).save(tmp_path / "r.json")
    assert "VERDICT" in srdd("show", tmp_path / "r.json")[1]
    code, out, _ = srdd("show", tmp_path / "r.json", *option)
    assert code == 0
    assert "VERDICT" not in out
    assert "Decoder-layer outputs" in out


def test_the_groups_of_a_list_have_their_names_in_tables_and_json(tmp_path: Path, srdd: Run) -> None:
    priced({MXFP4: [0.3, 0.1], MXFP8: [0.01, 0.01]}).save(tmp_path / "r.json")
    _, out, _ = srdd("show", tmp_path / "r.json", "--stats")
    kept = out[out.index("groups to keep in mxfp8_e4m3:rceil") :]
    assert kept.index("model.layers.0.mlp.down_proj") < kept.index("model.layers.0.self_attn.qkv")
    document = json.loads(srdd("show", tmp_path / "r.json", "--json")[1])
    assert document["schema_version"] == 1
    assert document["keep"][0]["groups"] == ["model.layers.0.mlp.down_proj", "model.layers.0.self_attn.qkv"]
    layers = [
        (row["layer"], row["predicted_kl"]["value"]) for row in document["costs"]["layers"] if row["mode"] == "both"
    ]
    assert layers[0] == (0, pytest.approx(0.3))
    assert {row["format"] for row in document["costs"]["groups"]} == {MXFP4, MXFP8}


def test_a_free_format_asks_for_nothing() -> None:
    assert "WHAT TO DO nothing: mxfp4 is free" in lines(priced({MXFP4: [0.001, 0.002]}))


def test_stats_and_json_exclude_each_other(tmp_path: Path, srdd: Run) -> None:
    priced({MXFP4: [0.3, 0.1]}).save(tmp_path / "r.json")
    code, out, err = srdd("show", tmp_path / "r.json", "--stats", "--json")
    assert (code, out) == (2, "")
    assert "--stats has no effect with --json" in err
