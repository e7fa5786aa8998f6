"""Scan only the weights of a safetensors checkpoint, tensor by tensor: no model is built, memory stays bounded.

Usage: python examples/scan_weights_only.py [FOLDER_OR_FILE]. Without an argument a small checkpoint is made first.
"""

import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import srdd
from srdd.models.files.checkpoint import open_checkpoint


def make_checkpoint(folder: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"model.layers.{layer}.mlp.{name}.weight": torch.randn(256, 128, generator=generator).to(torch.bfloat16)
        for layer in range(4)
        for name in ("gate_proj", "up_proj")
    }
    save_file(tensors, folder / "model.safetensors")
    return folder


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = sys.argv[1] if len(sys.argv) > 1 else str(make_checkpoint(Path(scratch)))
        report = srdd.scan_checkpoint(open_checkpoint(source), "mxfp4,mxfp4:floor,mxfp8")
    for site in report.sites[:8]:
        shown = "  ".join(f"{spec} {m.value('sqnr_db'):.2f} dB" for spec, m in site.formats.items())
        print(f"{site.name}: {shown}")
    print(f"weights cover {report.coverage.share:.1%} of the parameters")


if __name__ == "__main__":
    main()
