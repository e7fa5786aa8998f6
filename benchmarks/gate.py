"""Both sides of the gate on a real model: false alarms where nothing happened, and planted faults found and named.

python benchmarks/gate.py [aa|faults|both] [format] [layers a fault] [costs]; SmolLM2, 16 sequences of 64 tokens,
built-in limits, without costs unless these are asked for (faults only, ten times as long).

An A/A pair is one model twice: on other text, in another order, batch or number of threads, with other draws of
stochastic rounding, or with its residual stream scaled, which changes no output of the model. A fault is planted in the
weights of one layer, or at run time in one layer's output. Each is a check of two reports; a fault counts as named when
its tensor, or the layer's output, stands in the verdict's first line. Every check is made a second time with the slim
baseline of the first report, and the last line says how many verdicts are the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

import srdd
from srdd.analysis.comparison.gate import check as hold
from srdd.analysis.comparison.slim import slim
from srdd.core.formats import FORMATS
from srdd.documents.check import CheckResult
from srdd.documents.report import Report
from srdd.exporters.check.text import headline

LENGTH, COUNT = 64, 16
MORE = 96  # sequences of the text from which disjoint sets are taken
LAYERS = (10, 24, 3, 17, 28)
SLIM: list[tuple[bool, bool, bool]] = []  # of every check: passed, passed with the slim baseline, same first tensor


def check(new: Report, base: Report, **options: bool) -> CheckResult:
    """The verdict; that with the slim baseline goes into SLIM."""
    verdict, other = hold(new, base, **options), hold(new, slim(base), **options)
    names = [headline(one).partition(":")[0 if one.passed else 2].split(", baseline")[0] for one in (verdict, other)]
    SLIM.append((verdict.passed, other.passed, verdict.passed or names[0] == names[1]))
    if verdict.passed != other.passed:
        print(f"  slim differs: {headline(verdict)[:150]} | {headline(other)[:150]}")
    return verdict


def tokens(tokenizer: object, count: int) -> Tensor:
    """int64 [count, LENGTH] of srdd's own text and this repository's documents."""
    from pathlib import Path

    texts = [Path("srdd/runs/calibration.txt"), *sorted(Path("docs").glob("*.md")), Path("README.md")]
    ids = [i for path in texts for i in tokenizer(path.read_text())["input_ids"]]  # type: ignore[operator]
    return torch.tensor(ids[: count * LENGTH]).view(-1, LENGTH)


def subset(report: Report, chosen: range | list[int]) -> Report:
    """The report of some of the sequences: what a scan of these alone gives."""
    sites = []
    for site in report.sites:
        formats = {
            spec: m.model_copy(
                update={
                    "sequences": [m.sequences[i] for i in chosen],
                    "sequence_blocks": [m.sequence_blocks[i] for i in chosen],
                }
            )
            if m.sequences and m.sequence_blocks
            else m
            for spec, m in site.formats.items()
        }
        formats = {spec: type(m).model_validate(m.model_dump(by_alias=True) | _whole(m)) for spec, m in formats.items()}
        sites.append(site.model_copy(update={"formats": formats}))
    calibration = report.settings.calibration
    assert calibration is not None
    hashes = [calibration.sequence_hashes[i] for i in chosen]
    units = {
        name: [held[i] for i in chosen] for name in ("documents", "offsets") if (held := getattr(calibration, name))
    }
    fewer = calibration.model_copy(update={"sequence_hashes": hashes, **units})
    settings = report.settings.model_copy(update={"calibration": fewer})
    return report.model_copy(update={"sites": sites, "settings": settings})


def _whole(measured: object) -> dict[str, object]:
    if measured.sequences:  # type: ignore[attr-defined]
        return {}
    return {"tally": measured.whole, "blocks": measured.whole_blocks}  # type: ignore[attr-defined]


@contextmanager
def scaled(model: nn.Module, factor: float) -> Iterator[None]:
    """The residual stream times a factor: RMSNorm takes it out, so that the model's function stays the same."""
    embedding = model.model.embed_tokens
    linears = [m for layer in model.model.layers for m in (layer.self_attn.o_proj, layer.mlp.down_proj)]
    tied = model.lm_head.weight is embedding.weight
    kept = [embedding.weight.data.clone(), *(m.weight.data.clone() for m in linears)]
    if tied:
        model.lm_head.weight = nn.Parameter(kept[0].clone())
    for module in (embedding, *linears):
        module.weight.data.mul_(factor)
    try:
        yield
    finally:
        for module, before in zip((embedding, *linears), kept, strict=True):
            module.weight.data.copy_(before)
        if tied:
            model.lm_head.weight = embedding.weight


# --- faults: what is done to the weight of one Linear, by name ----------------------------------------------------


def _deadzone(w: Tensor, share: float) -> Tensor:
    return torch.where(w.abs() < share * w.abs().max(), torch.zeros_like(w), w)


def _noisy(w: Tensor) -> Tensor:
    """As if one more 4-bit rounding's noise, with heavy tails: 3 dB less SQNR of blocks."""
    spread = torch.exp(torch.randn(w.shape, generator=torch.Generator().manual_seed(0)))
    return w * spread


def _one_nan(w: Tensor) -> Tensor:
    w = w.clone()
    w[3, 5] = torch.nan
    return w


def _channels(w: Tensor, rows: slice, columns: slice) -> Tensor:
    w = w.clone()
    w[rows, columns] = 0
    return w


Plant = Callable[[Tensor], Tensor]
WEIGHTS: dict[str, tuple[str, Plant]] = {
    "a dead Linear": ("mlp.up_proj", torch.zeros_like),
    "half of its values dead": ("self_attn.v_proj", lambda w: _deadzone_half(w)),
    "a dead head": ("self_attn.q_proj", lambda w: _channels(w, slice(64, 128), slice(None))),
    "a dead output channel": ("mlp.gate_proj", lambda w: _channels(w, slice(7, 8), slice(None))),
    "a dead input channel": ("self_attn.o_proj", lambda w: _channels(w, slice(None), slice(9, 10))),
    "deadzone 0.01": ("mlp.down_proj", lambda w: _deadzone(w, 0.01)),
    "deadzone 0.1": ("mlp.down_proj", lambda w: _deadzone(w, 0.1)),
    "deadzone 0.5": ("self_attn.k_proj", lambda w: _deadzone(w, 0.5)),
    "heavy tails in one Linear": ("mlp.gate_proj", _noisy),
    "values x16": ("self_attn.o_proj", lambda w: w * 16),
    "scales x64": ("mlp.down_proj", lambda w: w * 64),
    "scales /64": ("mlp.up_proj", lambda w: w / 64),
    "rows permuted": ("mlp.up_proj", lambda w: w[torch.randperm(len(w), generator=torch.Generator().manual_seed(0))]),
    "two rows swapped": ("self_attn.q_proj", lambda w: w[[1, 0, *range(2, len(w))]]),
    "sign flipped": ("self_attn.v_proj", lambda w: -w),
    "random values of its size": (
        "mlp.gate_proj",
        lambda w: torch.randn(w.shape, generator=torch.Generator().manual_seed(1)) * w.std(),
    ),
    "NaN in one value": ("self_attn.k_proj", _one_nan),
    "quantized twice": ("mlp.down_proj", lambda w: srdd.quant_dequant(w, "mxfp4")),
    "saturated": ("mlp.up_proj", lambda w: w.clamp(-2 * w.std(), 2 * w.std())),
    "a constant": ("self_attn.o_proj", lambda w: torch.full_like(w, float(w.mean()))),
}
OUTPUTS: dict[str, Plant] = {
    "output, deadzone 0.001 of its maximum": lambda x: _deadzone(x, 0.001),
    "output, deadzone 0.01 of its maximum": lambda x: _deadzone(x, 0.01),
    "output, a dead channel in ten": lambda x: x * (torch.arange(x.shape[-1]) % 10 != 0),
    "output, stuck at its largest tenth": lambda x: x.clamp(-0.1 * x.abs().max(), 0.1 * x.abs().max()),
}


def _deadzone_half(w: Tensor) -> Tensor:
    return torch.where(w.abs() < w.abs().median(), torch.zeros_like(w), w)


@contextmanager
def in_weight(layer: nn.Module, name: str, plant: Plant) -> Iterator[None]:
    module = layer.get_submodule(name)
    before = module.weight.data.clone()
    module.weight.data.copy_(plant(before))
    try:
        yield
    finally:
        module.weight.data.copy_(before)


@contextmanager
def copied(model: nn.Module, layer: int, name: str) -> Iterator[None]:
    other = model.model.layers[layer - 1].get_submodule(name).weight.data
    with in_weight(model.model.layers[layer], name, lambda _: other.clone()):
        yield


@contextmanager
def in_output(layer: nn.Module, plant: Plant) -> Iterator[None]:
    def hook(module: nn.Module, args: object, output: object) -> object:
        return (plant(output[0]), *output[1:]) if isinstance(output, tuple) else plant(output)

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def main() -> None:
    what = sys.argv[1] if len(sys.argv) > 1 else "both"
    spec = sys.argv[2] if len(sys.argv) > 2 else "mxfp4"
    from srdd.models.source import open_model

    opened = open_model("smollm2")
    model, ids = opened.model.float(), tokens(opened.tokenizer, MORE)
    print(f"SmolLM2, {spec}, {COUNT} sequences of {LENGTH} tokens, built-in limits, torch {torch.__version__}")
    if what in ("aa", "both"):
        same(model, ids, spec)
    if what in ("faults", "both"):
        where = LAYERS[: int(sys.argv[3])] if len(sys.argv) > 3 else LAYERS
        faults(model, ids[:COUNT], spec, where, costs="predicted" if "costs" in sys.argv[4:] else "none")
    alike = sum(passed == other for passed, other, _ in SLIM)
    more = sum(passed and not other for passed, other, _ in SLIM)
    fewer = sum(other and not passed for passed, other, _ in SLIM)
    named = sum(same for passed, other, same in SLIM if not passed and not other)
    failed = sum(not passed and not other for passed, other, _ in SLIM)
    print(
        f"with the slim baseline: {alike} of {len(SLIM)} verdicts the same, {more} fail and {fewer} pass there alone; ",
        end="",
    )
    print(f"{named} of {failed} failures begin with the same words")


def same(model: nn.Module, ids: Tensor, spec: str) -> None:
    sets = [range(i, i + COUNT) for i in range(0, MORE, COUNT)]
    print(f"{'A/A':28} {'pairs':>5} {'false alarms':>12} {'with undecided':>14}")
    total = failed = 0

    def told(name: str, verdicts: list[CheckResult]) -> None:
        nonlocal total, failed
        bad = [verdict for verdict in verdicts if not verdict.passed]
        unsure = sum(any(case.undecided for case in verdict.cases) for verdict in verdicts)
        total, failed = total + len(verdicts), failed + len(bad)
        first = f"   {headline(bad[0])[:160]}" if bad else ""
        print(f"{name:28} {len(verdicts):5} {len(bad):12} {unsure:14}{first}", flush=True)

    def against(other: Report) -> list[CheckResult]:
        return [check(subset(other, chosen), part) for chosen, part in zip(sets, parts, strict=True)]

    whole = srdd.scan(model, ids, spec, backend="fused")
    parts = [subset(whole, chosen) for chosen in sets]
    told("other text", [check(b, a, allow_other_text=True) for a in parts for b in parts if a is not b])
    for factor in (1.05, 1.2, 1.4, 1.6, 1.9):
        with scaled(model, factor):
            other = srdd.scan(model, ids, spec, backend="fused")
        told(f"residual x{factor}", against(other.model_copy(update={"model": whole.model})))  # untied: more parameters
    told("batch 1 against 4", against(srdd.scan(model, ids, spec, batch_size=1, backend="fused")))
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    told("1 thread against 2", against(srdd.scan(model, ids, spec, backend="fused")))
    torch.set_num_threads(threads)
    if f"{spec}_sr" in FORMATS:
        drawn = [srdd.scan(model, ids, f"{spec}_sr", seed=seed, backend="fused") for seed in (0, 1)]
        pairs = zip(*([subset(one, c) for c in sets] for one in drawn), strict=True)
        told("other draws", [check(replace_seed(b, a), a) for a, b in pairs])
    orders = [torch.randperm(COUNT, generator=torch.Generator().manual_seed(s)).tolist() for s in range(4)]
    told(
        "another order",
        [
            check(subset(whole, [chosen[i] for i in order]), part)
            for order in orders
            for chosen, part in zip(sets, parts, strict=True)
        ],
    )
    print(f"{'all':28} {total:5} {failed:12}   {100 * failed / total:.1f} %")


def replace_seed(report: Report, like: Report) -> Report:
    return report.model_copy(update={"settings": report.settings.model_copy(update={"seed": like.settings.seed})})


def faults(
    model: nn.Module, ids: Tensor, spec: str, where: tuple[int, ...], costs: Literal["none", "predicted"]
) -> None:
    base = srdd.scan(model, ids, spec, backend="fused", costs=costs)
    layers = model.model.layers
    print(f"{'fault':40} {'found':>7} {'named':>7}")
    total = found = named = 0

    def tally(name: str, planted: list[tuple[object, str]]) -> None:
        nonlocal total, found, named
        hits = names = 0
        missed = ""
        for context, guilty in planted:
            with context:  # type: ignore[attr-defined]
                verdict = check(srdd.scan(model, ids, spec, backend="fused", costs=costs), base)
            line = headline(verdict)
            hits += not verdict.passed
            names += guilty in line and not verdict.passed
            missed = missed or (line[:150] if guilty not in line else "")
        total, found, named = total + len(planted), found + hits, named + names
        print(f"{name:40} {hits}/{len(planted):<5} {names}/{len(planted):<5} {missed}", flush=True)

    for name, (linear, plant) in WEIGHTS.items():
        tally(name, [(in_weight(layers[i], linear, plant), f"layers.{i}.{linear}") for i in where])
    tally("another layer's weight", [(copied(model, i, "mlp.up_proj"), f"layers.{i}.mlp.up_proj") for i in where])
    for name, plant in OUTPUTS.items():
        tally(name, [(in_output(layers[i], plant), f"layer {i}:") for i in where])
    shares = f"{100 * found / total:.1f} % found, {100 * named / total:.1f} % named"
    print(f"{'all':40} {found}/{total} {named}/{total}   {shares}")


if __name__ == "__main__":
    main()
