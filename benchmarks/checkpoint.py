"""Weight scan of a generated checkpoint of 4 GiB in shards, against reading and summing the same tensors with torch.

Each side runs in a process of its own, so that the peak memory is that side's. The files are made in a temporary
folder and removed. Both sides run twice and the second counts, with the files in the page cache.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from timing import verdict

SHARDS, MATRICES, ROWS, COLUMNS = 4, 16, 8192, 4096  # 4 x 16 x 64 MiB of bfloat16 = 4 GiB
CHUNK_MIB = 64


def make(folder: Path) -> None:
    """Shards with an index, as a hub checkpoint has them."""
    import json

    block = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(torch.bfloat16)
    where = {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        tensors = {f"model.layers.{shard * MATRICES + i}.mlp.up_proj.weight": block.roll(i, 0) for i in range(MATRICES)}
        save_file(tensors, folder / name)
        where |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def read_and_sum(folder: Path) -> None:
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (a safe_open file is no dict)
                file.get_tensor(name).float().sum()


def scan(folder: Path) -> None:
    import srdd
    from srdd.models.files.checkpoint import open_checkpoint

    srdd.scan_checkpoint(open_checkpoint(str(folder)), "mxfp4", backend="fused")


def side(name: str, folder: Path) -> None:
    """One process: the peak memory of a child starts at its parent's, so the parent must stay small."""
    if name == "make":
        make(folder)
        return
    work = {"sum": read_and_sum, "scan": scan}[name]
    work(folder)
    start = time.perf_counter()
    work(folder)
    seconds = time.perf_counter() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, __file__, "make", scratch], check=True)
        results = {}
        for name in ("sum", "scan"):
            done = subprocess.run(
                [sys.executable, __file__, name, scratch], capture_output=True, text=True, check=True
            ).stdout.split()
            results[name] = (float(done[-2]), float(done[-1]))
    size = SHARDS * MATRICES * ROWS * COLUMNS * 2 / 2**30
    print(f"checkpoint of {size:.1f} GiB in {SHARDS} shards, mxfp4")
    print(f"read and sum  {results['sum'][0]:.2f} s, peak {results['sum'][1]:.0f} MiB")
    print(f"weight scan   {results['scan'][0]:.2f} s, peak {results['scan'][1]:.0f} MiB")
    print(f"time ratio    {verdict(results['scan'][0] / results['sum'][0], 4, at_most=True)}")
    print(f"peak MiB      {verdict(results['scan'][1], 1024 + 2 * CHUNK_MIB, at_most=True)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        side(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
