"""`srdd scan` and its kin on adapters: both forms, costs, comparison, and one line for what cannot be done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_adapters import saved, with_adapter
from transformers import LlamaForCausalLM

import srdd as package
from srdd.documents.report import json_schema

Run = Callable[..., tuple[int, str, str]]
FEW = ("--samples", "4", "--seq-len", "16", "--backend", "eager")


@pytest.fixture
def adapter(tiny_llama: Path, tmp_path: Path) -> Path:
    wrapped = with_adapter(LlamaForCausalLM.from_pretrained(tiny_llama))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.mul_(0.1)
    return saved(wrapped, tmp_path / "adapter", tiny_llama)


def edited(folder: Path, **config: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


def with_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def test_both_forms_with_costs(adapter: Path, tiny_llama: Path, text: Path, tmp_path: Path, srdd: Run) -> None:
    reports = {}
    for name, model in {
        "base": [tiny_llama],
        "apart": [adapter],
        "merged": [tiny_llama, "--adapter", adapter, "--adapter-as", "merged"],
    }.items():
        out = tmp_path / f"{name}.json"
        code, shown, said = srdd("scan", *model, "--quant", "mxfp4", "--data", text, *FEW, "--out", out)
        assert code == 0, said
        reports[name] = package.Report.load(out)
        if name != "base":
            assert f"Adapter adapter, measured {name}." in shown
            assert max(map(len, shown[shown.index("Adapter adapter") :].splitlines())) <= 80, "a terminal's width"
            code, again, _ = srdd("show", out)
            assert code == 0
            assert shown.strip().endswith(again.strip()), "srdd show says the same"
    base, apart, merged = reports.values()
    assert base.adapter is None
    for name, report in (("apart", apart), ("merged", merged)):
        assert report.adapter is not None
        assert (report.adapter.form, report.adapter.modules, report.adapter.ranks) == (name, 9, [4])
        assert report.model.id == "tiny-llama + adapter"
        assert report.costs is not None
        assert any(note.startswith("adapter adapter (LoRA of 9 modules, rank 4)") for note in report.warnings)
    assert [site for site in apart.sites if site.kind == "weight"] == [s for s in base.sites if s.kind == "weight"]
    assert [site.name for site in merged.sites] == [site.name for site in base.sites]
    assert apart.adapter is not None
    assert merged.adapter is not None
    assert apart.adapter.survival == merged.adapter.survival
    assert apart.costs is not None
    assert merged.costs is not None
    assert apart.costs.clean is not None
    assert merged.costs.clean is not None
    assert apart.costs.clean.loss.value == pytest.approx(merged.costs.clean.loss.value, rel=1e-4), "one model"
    assert apart.costs.linears != merged.costs.linears
    code, shown, said = srdd("compare", tmp_path / "base.json", tmp_path / "apart.json")
    assert code == 0, said
    code, shown, said = srdd("compare", tmp_path / "apart.json", tmp_path / "merged.json", "--json")
    assert code == 0, said
    assert "adapters differ: adapter, apart and adapter, merged" in json.loads(shown)["notes"]


def test_the_document_and_its_summary(adapter: Path, tmp_path: Path, srdd: Run) -> None:
    out = tmp_path / "report.json"
    code, shown, said = srdd("scan", adapter, "--sites", "weight", "--quant", "mxfp4,mxfp8", "--json", "--out", out)
    assert code == 0, said
    part = json.loads(shown)["adapter"]
    assert [row["name"] for row in part["roles"]] == ["q_proj", "v_proj", "down_proj", "all"] * 2
    row = part["survival"][0]
    assert row["survival"] == row["sum_pd"] / row["sum_d2"]
    whole = json.loads(out.read_text())
    jsonschema.validate(whole, json_schema())
    report = package.Report.load(out)
    assert json.loads(package.Report.model_validate(whole).model_dump_json()) == json.loads(report.model_dump_json())
    halves = []
    for spec in ("mxfp4", "mxfp8"):
        half = tmp_path / f"{spec}.json"
        assert srdd("scan", adapter, "--sites", "weight", "--quant", spec, "--out", half)[0] == 0
        halves.append(package.Report.load(half))
    merged = package.merge(*halves)
    assert merged.adapter is not None
    assert report.adapter is not None
    key = lambda row: (row.format, row.name)  # noqa: E731
    assert sorted(merged.adapter.survival, key=key) == sorted(report.adapter.survival, key=key)


def test_impact_in_both_forms(adapter: Path, text: Path, tmp_path: Path, srdd: Run) -> None:
    found = {}
    for form in ("apart", "merged"):
        out = tmp_path / f"{form}.json"
        arguments = ("impact", adapter, "--adapter-as", form, "--data", text, "--samples", "2", "--seq-len", "16")
        code, _, said = srdd(*arguments, "--attribute", "gradient,swap", "--out", out)
        assert code == 0, said
        found[form] = package.Report.load(out).costs
    apart, merged = found.values()
    assert apart is not None
    assert merged is not None
    assert [row.module for row in apart.linears] == [row.module for row in merged.linears]
    assert not [row.module for row in apart.linears if "lora" in row.module]


@pytest.mark.parametrize("command", ["probe", "impact"])
def test_other_commands_take_an_adapter_for_a_model(
    command: str, adapter: Path, text: Path, tmp_path: Path, srdd: Run
) -> None:
    out = tmp_path / "out.json"
    tokens = ("--data", text, "--samples", "2", "--seq-len", "16")
    code, _, said = srdd(command, adapter, "--quant", "mxfp4", *tokens, "--out", out)
    assert code == 0, said
    assert json.loads(out.read_text())["model"]["id"] == "tiny-llama + adapter"


def other_base(folder: Path) -> None:
    with_tensors(folder, lambda t: t.update({name: torch.zeros(4, 32) for name in t if "q_proj.lora_A" in name}))


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "type": (lambda f: edited(f, peft_type="IA3"), "adapter is an adapter of type IA3; only LORA is read"),
    "prefix": (lambda f: edited(f, peft_type="PREFIX_TUNING"), "of type PREFIX_TUNING; only LORA"),
    "no type": (lambda f: edited(f, peft_type=None), "of type unknown; only LORA"),
    "experts": (lambda f: edited(f, target_parameters=["experts.down_proj"]), "target_parameters is set, and what it"),
    "tokens": (lambda f: edited(f, trainable_token_indices=[3]), "trainable_token_indices is set"),
    "unheard of": (lambda f: edited(f, use_something_new=True), "use_something_new is set, and what it does"),
    "pissa": (lambda f: edited(f, init_lora_weights="pissa"), "init_lora_weights is 'pissa', which takes a part out"),
    "alpha": (lambda f: edited(f, lora_alpha="16"), "lora_alpha is '16'; expected a number"),
    "rank 0": (lambda f: edited(f, r=0), "r is 0; expected 1 or more"),
    "rank": (lambda f: edited(f, r=8), "down_proj.lora_A.weight [4, 96] has rank 4, its config makes it 8"),
    "pattern": (lambda f: edited(f, alpha_pattern={"(": 3}), "'(' is no pattern"),
    "patterns": (lambda f: edited(f, alpha_pattern=[1]), "alpha_pattern is [1]; expected numbers by pattern"),
    "no base": (
        lambda f: edited(f, base_model_name_or_path=None),
        "names no base; give the base: --model BASE",
    ),
    "base gone": (
        lambda f: edited(f, base_model_name_or_path="/nowhere/base"),
        "an adapter of /nowhere/base, which is no folder here; give the base: --model BASE --adapter",
    ),
    "base offline": (
        lambda f: edited(f, base_model_name_or_path="org/base"),
        "is an adapter of org/base, which does not open",
    ),
    "dora": (lambda f: edited(f, use_dora=True), "has no magnitude, and use_dora is True"),
    "no json": (lambda f: (f / "adapter_config.json").write_text("["), "adapter_config.json in adapter is no JSON"),
    "a list": (
        lambda f: (f / "adapter_config.json").write_text("[]"),
        "in adapter is no JSON object",
    ),
    "no weights": (
        lambda f: (f / "adapter_model.safetensors").unlink(),
        "adapter holds no weights; expected",
    ),
    "truncated": (
        lambda f: (f / "adapter_model.safetensors").write_bytes((f / "adapter_model.safetensors").read_bytes()[:-100]),
        "adapter_model.safetensors is cut short or damaged",
    ),
    "pointer": (
        lambda f: (f / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "adapter_model.safetensors is a pointer of Git LFS",
    ),
    "other base": (
        other_base,
        "q_proj.lora_A.weight is [4, 32], and model.layers.0.self_attn.q_proj of tiny-llama, whose weight is [64, 64] "
        "(out, in), takes [4, 64]; it is an adapter of another base",
    ),
    "no B": (
        lambda f: with_tensors(f, lambda t: t.pop("base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight")),
        "layers.1.self_attn.v_proj.lora_A.weight has no lora_B beside it",
    ),
    "two ranks": (
        lambda f: with_tensors(
            f, lambda t: t.update({"base_model.model.model.layers.0.mlp.down_proj.lora_B.weight": torch.ones(64, 3)})
        ),
        "are of two ranks",
    ),
    "a layer too many": (
        lambda f: with_tensors(
            f, lambda t: t.update({k.replace("layers.2.", "layers.9."): t.pop(k) for k in list(t) if "layers.2." in k})
        ),
        "which tiny-llama lacks; it is an adapter of another base",
    ),
    "a tensor that nobody knows": (
        lambda f: with_tensors(f, lambda t: t.update({"base_model.model.q_proj.lora_C.weight": torch.ones(2, 2)})),
        "base_model.model.q_proj.lora_C.weight is no part of LoRA that is known",
    ),
    "codes": (
        lambda f: with_tensors(f, lambda t: t.update({k: t[k].to(torch.int8) for k in list(t)[:1]})),
        "is stored as I8; expected BF16, F16, F32, F64",
    ),
    "a whole tensor that the base lacks": (
        lambda f: with_tensors(f, lambda t: t.update({"base_model.model.score.weight": torch.ones(2, 2)})),
        "changes score.weight, which tiny-llama lacks",
    ),
    "a resized vocabulary": (
        lambda f: with_tensors(f, lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(70, 64)})),
        "adapter makes lm_head.weight [70, 64], and in tiny-llama it is [64, 64]",
    ),
}


@pytest.mark.parametrize("how", BAD)
@pytest.mark.parametrize("sites", ["weight", "input,weight"])
def test_bad_adapters_are_one_line(how: str, sites: str, adapter: Path, text: Path, tmp_path: Path, srdd: Run) -> None:
    spoil, words = BAD[how]
    spoil(adapter)
    out = tmp_path / "report.json"
    running = ("--data", text, "--samples", "2", "--seq-len", "16") if sites != "weight" else ()
    code, shown, said = srdd("scan", adapter, "--sites", sites, "--quant", "mxfp4", *running, "--out", out)
    last = said.strip().splitlines()[-1]
    assert (code, shown) == (2, "")
    assert words in " ".join(last.split())
    assert "Traceback" not in said
    assert not out.exists()


def test_adapters_given_wrongly_are_one_line(adapter: Path, tiny_llama: Path, tmp_path: Path, srdd: Run) -> None:
    for arguments, words in (
        ((adapter, "--adapter", adapter), "is an adapter too; one at a time, on its base"),
        ((tiny_llama, "--adapter", adapter, "--adapter", adapter), "is given too; one adapter at a time"),
        ((tiny_llama, "--adapter", tiny_llama), "tiny-llama holds no adapter_config.json, so it is no adapter"),
        ((tiny_llama, "--adapter", tmp_path / "none"), "no such adapter folder"),
        ((tiny_llama, "--adapter-as", "merged"), "--adapter-as has no effect without an adapter"),
        ((adapter, "--adapter-as", "both"), "--adapter-as 'both': expected apart or merged"),
        ((adapter, "--revision", "main"), "--revision has no effect on a local model"),
    ):
        out = tmp_path / "report.json"
        code, shown, said = srdd("scan", *arguments, "--sites", "weight", "--out", out)
        assert (code, shown) == (2, ""), words
        assert words in said
        assert len(said.strip().splitlines()) == 1
        assert not out.exists()


def test_a_dry_run_lists_the_sites_of_the_base(adapter: Path, tiny_llama: Path, srdd: Run) -> None:
    for sites in ("weight", "weight,input,output"):
        assert (
            srdd("scan", adapter, "--sites", sites, "--dry-run")[:2]
            == srdd("scan", tiny_llama, "--sites", sites, "--dry-run")[:2]
        )


def test_an_adapter_of_another_name_is_noted(adapter: Path, tiny_llama: Path, tmp_path: Path, srdd: Run) -> None:
    edited(adapter, base_model_name_or_path="org/another")
    out = tmp_path / "report.json"
    assert srdd("scan", tiny_llama, "--adapter", adapter, "--sites", "weight", "--out", out)[0] == 0
    assert "the adapter's config names another as its base" in package.Report.load(out).warnings
