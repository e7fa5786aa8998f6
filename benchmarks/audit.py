"""Counts what `srdd audit` finds and what it alarms of falsely, on tiny models of nine architectures.

    python benchmarks/audit.py            # some five minutes on one core

Good checkpoints: every form x architecture, and weights that look broken and are not (zero rows, pruned, heavy tails,
outliers, four decades between rows), each with and without its original. Broken ones: every fault of
tests/broken_checkpoints.py x form x architecture, at a random module it applies to. Forms are rounded by
tests/packed_checkpoints.py, without code of srdd. A fault counts as found when a finding has its kind and level (or,
against the original, names it).
"""

from __future__ import annotations

import copy
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from broken_checkpoints import FAULTS, SIDE_BY_SIDE, exchanged
from packed_checkpoints import MAKERS, claim_of, is_linear, llama, moe, pack, saved, spread
from safetensors.torch import load_file

from srdd.documents.audit import Audit
from srdd.errors import SrddError
from srdd.models.files.checkpoint import open_checkpoint
from srdd.runs.audit import audit

_FUSED = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "w1", "w3")
_OF_FUSED = ("another format", "unequal", "input missing")
_SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96,
}  # fmt: skip


def models() -> Iterator[tuple[str, Any]]:
    import transformers as t

    yield "llama", llama()
    yield "llama 256", llama(4, 256, 3)
    yield "qwen3-moe", moe(3)
    yield "gemma2", spread(t.Gemma2ForCausalLM(t.Gemma2Config(**_SMALL, head_dim=16)).bfloat16())
    yield "qwen2", spread(t.Qwen2ForCausalLM(t.Qwen2Config(**_SMALL, tie_word_embeddings=True)).bfloat16())
    yield "mixtral", spread(t.MixtralForCausalLM(t.MixtralConfig(**_SMALL, num_local_experts=4)).bfloat16())
    yield "phi3", spread(t.Phi3ForCausalLM(t.Phi3Config(**_SMALL, pad_token_id=0)).bfloat16())
    opt = {"hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 96}
    yield "opt", spread(t.OPTForCausalLM(t.OPTConfig(**opt, word_embed_proj_dim=64)).bfloat16())
    deepseek = t.DeepseekV3Config(
        **{**_SMALL, "num_key_value_heads": 4}, moe_intermediate_size=64, n_routed_experts=4, n_group=1, topk_group=1,
        num_experts_per_tok=2, first_k_dense_replace=1, kv_lora_rank=32, q_lora_rank=32, qk_rope_head_dim=16,
        qk_nope_head_dim=16, v_head_dim=16, n_shared_experts=1,
    )  # fmt: skip
    yield "deepseek-v3", spread(t.DeepseekV3ForCausalLM(deepseek).bfloat16())


def linear(module: str) -> bool:
    return is_linear(module) or module.endswith(("fc1", "fc2", ".w1", ".w2", ".w3", "_with_mqa"))


ODD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "zero rows": lambda w: w * (torch.arange(len(w)) % 7 > 0).unsqueeze(1),
    "pruned by half": lambda w: w * (torch.rand(w.shape) < 0.5),
    "heavy tails": lambda w: torch.distributions.StudentT(2.0).sample(w.shape) * 0.02,
    "rows over four decades": lambda w: w * torch.logspace(-4, 0, len(w)).unsqueeze(1),
    "columns over three decades": lambda w: w * torch.logspace(-3, 0, w.shape[1]),
    "one value of 50 maxima": lambda w: w.index_put((torch.tensor(3), torch.tensor(5)), 50 * w.abs().max()),
    "tiny": lambda w: w * 1e-4,
    "large": lambda w: w * 50,
    "of rank 4": lambda w: torch.randn(len(w), 4) @ torch.randn(4, w.shape[1]) * 0.01,
    "of one size": lambda w: w.sign() * 0.02,
    "ternary": lambda w: w.sign() * (w.abs() > 0.012) * 0.02,
    "zeros": lambda w: w * 0,
}


def look(folder: Path, reference: Path | None) -> Audit | None:
    """None where it is refused."""
    try:
        return audit(open_checkpoint(str(folder)), open_checkpoint(str(reference)) if reference else None)
    except SrddError as problem:
        print("  refused:", folder.name, problem)
        return None


def count_good(root: Path, name: str, config: Any, weights: dict[str, torch.Tensor]) -> Counter[str]:
    original = saved(root / "original", weights, None, config, None)
    counts: Counter[str] = Counter()
    for maker in MAKERS:
        tensors, metadata = pack(weights, lambda module, maker=maker: maker if linear(module) else None)
        folder = saved(root / "good", tensors, metadata, config, claim_of(maker))
        for reference in (None, original):
            document = look(folder, reference)
            counts["audits"] += 1
            counts["with errors"] += document is None or not document.passed
            counts["with warnings"] += document is not None and bool(document.warnings)
            if document is not None and not document.passed:
                print("  false alarm:", name, maker, document.errors[0])
    shutil.rmtree(root)
    return counts


def count_broken(root: Path, name: str, config: Any, weights: dict[str, torch.Tensor]) -> Counter[str]:
    original = saved(root / "original", weights, None, config, None)
    modules = [
        n.removesuffix(".weight") for n, w in weights.items() if w.dim() == 2 and linear(n.removesuffix(".weight"))
    ]
    counts: Counter[str] = Counter()
    alone = [(fault, FAULTS[fault][0], FAULTS[fault][1]) for fault in FAULTS]
    for fault, change, makers in (*alone, *((f, SIDE_BY_SIDE[f][0], SIDE_BY_SIDE[f][1]) for f in SIDE_BY_SIDE)):
        beside = fault in SIDE_BY_SIDE
        for maker in makers:
            apply, fits = change, modules
            if fault in _OF_FUSED:
                fits = [module for module in modules if module.rpartition(".")[2] in _FUSED]
            if fault == "k and v exchanged":
                fits = [module for module in modules if module.endswith("k_proj")]
            if fault == "layers exchanged":
                fits = [m for m in modules if "layers.1." in m and m.replace("layers.1.", "layers.2.") in modules]
                apply = exchanged("layers.1.", "layers.2.")
            if not fits:
                continue
            tensors, metadata = pack(weights, lambda module, maker=maker: maker if linear(module) else None)
            claim = copy.deepcopy(claim_of(maker))
            module = random.choice(fits)
            apply(tensors, {} if claim is None else claim, module)
            document = look(saved(root / "broken", tensors, metadata, config, claim), original if beside else None)
            kind = "against the original" if beside else "alone"
            counts[kind] += 1
            if document is not None and _is_found(document, fault):
                counts[f"{kind}, found"] += 1
            else:
                print("  missed:", name, fault, maker, module, tuple(weights[f"{module}.weight"].shape))
    shutil.rmtree(root)
    return counts


def _is_found(document: Audit, fault: str) -> bool:
    if fault in SIDE_BY_SIDE:
        words = SIDE_BY_SIDE[fault][2]
        return any(f.kind == "reference" and words in f.found for f in document.findings)
    _, _, kind, level = FAULTS[fault]
    return any(f.kind == kind and level in ("", f.level) for f in document.findings)


def main() -> None:
    import transformers

    transformers.logging.set_verbosity_error()
    random.seed(0)
    root = Path(tempfile.mkdtemp(prefix="srdd-audit-"))
    good, odd, broken = Counter[str](), Counter[str](), Counter[str]()
    for name, model in models():
        folder = root / "saved"
        model.save_pretrained(folder)
        weights = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
        shutil.rmtree(folder)
        good += count_good(root / "a", name, model.config, weights)
        broken += count_broken(root / "b", name, model.config, weights)
    model = llama()
    for name, change in ODD.items():
        torch.manual_seed(2)
        weights = {
            k: change(v.float()) if linear(k.removesuffix(".weight")) else v.clone()
            for k, v in model.state_dict().items()
        }
        odd += count_good(root / "c", name, model.config, weights)
    shutil.rmtree(root)
    for called, counts in (("good", good), ("good, odd weights", odd), ("broken", broken)):
        print(called, dict(counts))


if __name__ == "__main__":
    main()
