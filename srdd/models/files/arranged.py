"""A folder of links in which transformers finds the weights that count, where it would find others by itself.

Not here: which weights count (folders.py). Left to itself transformers takes a single file before an index, shards only
with one, of two copies the one in the last file, and an adapter that lies beside. The files stay where they are; only
copies that the index names against that order are written anew, into a file that comes last.

Worked number: of 2 shards with one name in both, 3 files are found: two links, and a file with that one tensor.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from shutil import rmtree
from typing import Any

from srdd.models.files.folders import ADAPTER_CONFIG, INDEX, WeightFiles

_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")


def arranged(folder: Path, read: WeightFiles) -> Path:
    """A new folder for `from_pretrained`, which the caller removes when the model is gone. Raises OSError."""
    links = Path(tempfile.mkdtemp(prefix="srdd-links-"))
    try:
        _fill(links, folder, read)
    except BaseException:
        rmtree(links, ignore_errors=True)
        raise
    return links


def _fill(links: Path, folder: Path, read: WeightFiles) -> None:
    for path in folder.iterdir():
        if not path.name.endswith(_WEIGHTS) and path.name != ADAPTER_CONFIG:
            (links / path.name).symlink_to(path.resolve())
    count = len(read.files) + bool(read.twice)
    names = {file: f"model-{at:05d}-of-{count:05d}.safetensors" for at, file in enumerate(read.files, 1)}
    for file, name in names.items():
        (links / name).symlink_to(file.resolve())
    where = {name: names[tensor.file] for name, tensor in read.tensors.items()}
    if read.twice:
        last = f"model-{count:05d}-of-{count:05d}.safetensors"
        _write(links / last, read)
        where |= dict.fromkeys(read.twice, last)
    index = {"metadata": {}, "weight_map": where}
    (links / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _write(to: Path, read: WeightFiles) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    files: dict[Path, Any] = {file: safe_open(str(file), framework="pt") for file in read.files}
    save_file({name: files[read.tensors[name].file].get_tensor(name) for name in read.twice}, to, {"format": "pt"})
