"""Kernel rates measured side by side in one run: python benchmarks/kernel.py [millions of elements].

Not here: scans of models. Every row is the median of several runs in elements per second, next to torch's copy_ of the
same tensor, so that ratios carry over from machine to machine.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from timing import median_ratio

from srdd.kernels import measure, measure_many

MILLION = 1 << 20


def rate(run: Callable[[], object], elements: int, repeats: int) -> float:
    """Elements per second; the first run, which may compile, is not counted."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return elements / statistics.median(seconds)


def torchao(x: torch.Tensor) -> Callable[[], object] | str:
    try:
        from torchao.prototype.mx_formats.mx_tensor import MXTensor
    except ImportError as error:
        return f"not installed ({error.name or error})"
    fp4 = getattr(torch, "float4_e2m1fn_x2", None) or "fp4_e2m1"
    return lambda: MXTensor.to_mx(x.view(-1, 4096), fp4, 32).dequantize(torch.bfloat16)


def compressed_tensors(x: torch.Tensor) -> Callable[[], object] | str:
    try:
        from compressed_tensors.quantization import QuantizationArgs
        from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    except ImportError as error:
        return f"not installed ({error.name or error})"
    args = QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=32, symmetric=True)
    sheet = x.view(-1, 4096)

    def run() -> object:
        scale = sheet.view(sheet.shape[0], -1, 32).abs().amax(-1) / 6.0
        return fake_quantize(sheet, scale, torch.zeros_like(scale), args)

    return run


def main() -> None:
    elements = int(sys.argv[1] if len(sys.argv) > 1 else 64) * MILLION
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(elements, device=device).to(torch.bfloat16)
    small, target = x[: 4 * MILLION], torch.empty_like(x)
    print(
        f"bf16, {elements / 1e6:.0f} M elements, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )

    start = time.perf_counter()
    measure(small, "mxfp4", backend="fused")
    print(f"first fused call {time.perf_counter() - start:.1f} s (compiles unless cached on disk)")

    three = ("mxfp4", "mxfp8", "nvfp4")
    finish = torch.cuda.synchronize if device == "cuda" else torch.get_num_threads  # the latter does nothing
    seconds, times = median_ratio(
        lambda: (measure(x, "mxfp4", backend="fused"), finish()), lambda: (target.copy_(x), finish()), 15
    )
    fused, copy = elements / seconds, elements / seconds * times
    eager = rate(lambda: measure(small, "mxfp4", backend="eager"), small.numel(), 3)
    spec = rate(lambda: measure(small, "mxfp4", backend="reference"), small.numel(), 3)
    rows = [
        ("copy_", copy),
        ("fused measure(mxfp4)", fused),
        ("fused measure_many, 3 formats", rate(lambda: measure_many(x, three, backend="fused"), elements, 3)),
        ("fused measure(mxfp8)", rate(lambda: measure(x, "mxfp8", backend="fused"), elements, 3)),
        ("fused measure(nvfp4)", rate(lambda: measure(x, "nvfp4", backend="fused"), elements, 3)),
        ("eager measure(mxfp4)", eager),
        ("reference measure(mxfp4)", spec),
    ]
    for name, value in rows:
        print(f"{name:34} {value / 1e9:8.4f} Gelem/s   {value / copy:7.4f} of copy_   {fused / value:7.1f}x slower")
    goal = 0.6 if device == "cuda" else 0.10
    print(f"fused / copy_      {fused / copy:7.3f}  target {goal}   {'met' if fused / copy >= goal else 'MISSED'}")
    print(f"fused / reference  {fused / spec:7.1f}  target 40     {'met' if fused / spec >= 40 else 'MISSED'}")
    for name, make in (("torchao", torchao), ("compressed-tensors", compressed_tensors)):
        for part, aim in ((x, 20), (small, None)):  # the same tensor; then one that suits eager code's caches better
            peer = make(part)
            if isinstance(peer, str):
                print(f"fused / {name}  {peer}")
                break
            theirs, times = median_ratio(
                lambda peer=peer: (peer(), finish()), lambda: (measure(x, "mxfp4", backend="fused"), finish()), 7
            )
            times *= x.numel() / part.numel()
            met = "" if aim is None else f"  target {aim}  {'met' if times >= aim else 'MISSED'}"
            rate_of_peer = part.numel() / theirs / 1e9
            size = f"{part.numel() / 1e6:.0f} M elements, {rate_of_peer:.4f} Gelem/s"
            print(f"fused / {name} (quant-dequant alone, {size})  {times:.1f}{met}")

    for shape in ((256, 576), (512, 1536)):
        part = x[: shape[0] * shape[1]].view(shape)
        run = rate(lambda part=part: measure(part, "mxfp4", backend="fused"), part.numel(), 50)
        print(f"one activation {shape}: {part.numel() / run * 1e6:.0f} us, {run / 1e9:.3f} Gelem/s")


if __name__ == "__main__":
    main()
