"""How well an expert's predicted KL tells what quantizing it costs, tokens held and free: python benchmarks/experts.py.

Tiny random mixtures (32 experts), mxfp4 on the weights of one expert at a time, 6 sequences of 96 tokens. "Held": each
token goes to the experts it went to before, so that only what the prediction is about is measured.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean

import torch
from scipy.stats import spearmanr
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from held_routing import HeldRouting

import srdd
from srdd.runs.divergence import ReferenceLogits

SIZE = {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
SIZE |= {"num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.05}


def qwen3() -> Qwen3MoeForCausalLM:
    more = {"moe_intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 2, "head_dim": 16}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZE, **more))


def mixtral() -> MixtralForCausalLM:
    more = {"intermediate_size": 64, "num_local_experts": 8, "num_experts_per_tok": 2}
    return MixtralForCausalLM(MixtralConfig(**SIZE, **more))


def main() -> None:
    print("model    tokens  experts  rank correlation  measured / predicted")
    for build in (qwen3, mixtral):
        torch.manual_seed(0)
        model = build().eval()
        mixtures = {name: m for name, m in model.named_modules() if type(m).__name__.endswith("Experts")}
        with torch.no_grad():
            for weight in (w for mixture in mixtures.values() for w in mixture.parameters()):
                weight.mul_(torch.rand(len(weight), 1, 1) * 1.5 + 0.5)
        ids = torch.randint(0, 128, (6, 96), generator=torch.Generator().manual_seed(1))
        costs = srdd.measure_impact(model, ids, "mxfp4", ("weight",), how=("predicted",), backend="eager").costs
        assert costs is not None
        rows = [row for row in costs.experts if row.predicted_kl]
        predicted = [row.predicted_kl["weight"].value for row in rows]
        routing, clean = HeldRouting(model), []
        with torch.no_grad():
            for at, row in enumerate(ids):
                with routing.recording(at):
                    clean.append(ReferenceLogits.of(model(row[None]).logits, row[None]))
            measured: dict[str, list[float]] = {"held": [], "free": []}
            for expert in rows:
                mixture = mixtures[expert.module]
                kept = {name: w.clone() for name, w in mixture.named_parameters()}
                for name, weight in mixture.named_parameters():
                    weight[expert.expert] = srdd.quant_dequant(kept[name][expert.expert], "mxfp4", backend="eager")
                for tokens, kls in measured.items():
                    each = []
                    for at, row in enumerate(ids):
                        with routing.holding(at) if tokens == "held" else nullcontext():
                            each.append(clean[at].kl(model(row[None]).logits).double().mean().item())
                    kls.append(fmean(each))
                for name, weight in mixture.named_parameters():
                    weight.copy_(kept[name])
        for tokens, kls in measured.items():
            rho, ratio = spearmanr(predicted, kls)[0], sum(kls) / sum(predicted)
            print(f"{build.__name__:<8} {tokens:<6}  {len(rows):7}  {rho:16.2f}  {ratio:20.1f}")


if __name__ == "__main__":
    main()
