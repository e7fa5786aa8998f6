"""Dead heads are named, in models and in files, and nothing else is called a head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import srdd
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.heads import column_heads, config_of, dead_heads, row_heads

CONFIG = {"num_attention_heads": 9, "num_key_value_heads": 3}


def test_by_hand() -> None:
    assert dead_heads(range(64, 128), 576, 9) == "head 1 of 9"
    assert dead_heads(range(64, 256), 576, 9) == "heads 1-3 of 9"
    assert dead_heads([*range(64), *range(512, 576)], 576, 9) == "heads 0,8 of 9"
    assert dead_heads(range(64, 127), 576, 9) == "", "one row lives"
    assert dead_heads(range(32, 96), 576, 9) == "", "64 rows of two heads are no head"
    assert dead_heads(range(64), 577, 9) == dead_heads(range(64), 576, None) == ""
    assert dead_heads([0], 4, 4) == "", "heads of one channel each are the channels"


@pytest.mark.parametrize(
    ("role", "name", "rows", "columns"),
    [
        ("q_proj", "model.layers.0.self_attn.q_proj", 9, None),
        ("v_proj", "model.layers.0.self_attn.v_proj", 3, None),
        ("o_proj", "model.layers.0.self_attn.o_proj", None, 9),
        ("up_proj", "model.layers.0.mlp.up_proj", None, None),
        ("q_proj", "model.vision_tower.layers.0.q_proj", None, None),
    ],
)
def test_which_config_counts(role: str, name: str, rows: int | None, columns: int | None) -> None:
    assert row_heads(role, name, CONFIG) == row_heads(role, name, {"text_config": CONFIG}) == rows
    assert column_heads(role, name, CONFIG) == columns


def test_a_tower_has_its_own_heads() -> None:
    config = {"text_config": CONFIG, "vision_config": {"num_attention_heads": 16}}
    assert row_heads("k_proj", "vision_tower.layers.0.k_proj", config) == 16
    assert row_heads("k_proj", "model.layers.0.self_attn.k_proj", config) == 3
    assert row_heads("q_proj", "model.layers.0.self_attn.q_proj", {"num_attention_heads": "nine"}) is None
    assert row_heads("query", "encoder.layer.0.attention.self.query", {"n_heads": 12}) == 12
    assert config_of(torch.nn.Linear(2, 2)) == {}


def test_in_models_and_in_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes, num_attention_heads=4, num_key_value_heads=2)).eval()
    attention = model.model.layers[1].self_attn
    with torch.no_grad():
        attention.q_proj.weight[16:48].zero_()
        attention.k_proj.weight[:16].zero_()
        attention.o_proj.weight[:, 48:].zero_()
    model.save_pretrained(tmp_path)
    live = srdd.scan(model, sites="weight", formats="mxfp4", backend="eager")
    stored = srdd.scan_checkpoint(open_checkpoint(str(tmp_path)), "mxfp4", backend="eager")
    for report in (live, stored):
        said = {site.role: str(site.notes[0]) for site in report.sites if site.notes and site.layer == 1}
        assert said == {
            "q_proj": "ERROR: dead: 32 of 64 output channels are all zero: rows 16-47 (heads 1-2 of 4)",
            "k_proj": "ERROR: dead: 16 of 32 output channels are all zero: rows 0-15 (head 0 of 2)",
            "o_proj": "ERROR: dead: 16 of 64 input channels are all zero: columns 48-63 (head 3 of 4)",
        }
