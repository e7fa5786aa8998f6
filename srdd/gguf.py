"""GGUF files: unpacked once into the user's cache folder, then opened like any other model.

Not here: dequantization, which transformers and the gguf package do. Opening SmolLM2's GGUF takes them 20 to 28 s, of
which 2 s is dequantization: the reader parses 49 thousand token strings through numpy memory maps, three times, and a
table of tensor names is built anew for each of 397 parameters. The unpacked copy opens in 1 s.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from srdd.errors import MissingExtraError, SourceError
from srdd.identity import weights_hash
from srdd.quiet import quiet

log = logging.getLogger("srdd")

_HEAD = 2**20  # the first MiB holds the metadata; with the size it tells files apart
_LAYOUT = "1"  # of the cache folder; a new one makes old copies unused
_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 12: "Q4_K", 14: "Q6_K", 30: "BF16"}


def head_hash(file: Path) -> str:
    """The weights hash of a GGUF file, from its first MiB and its size. Raises SourceError when it is none."""
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    if head[:4] != b"GGUF":
        raise SourceError(f"{file.name} is no GGUF file: it starts with {head[:4]!r}, expected b'GGUF'")
    return weights_hash([(head, file.stat().st_size)])


def cache_folder(file: Path, dtype: str) -> Path:
    """Where the unpacked copy of a file belongs, whether it is there or not."""
    key = "\0".join((_LAYOUT, head_hash(file), dtype, version("transformers").split(".")[0]))
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "srdd" / "gguf" / hashlib.sha256(key.encode()).hexdigest()[:16]


def unpacked(file: Path, dtype: str) -> Path:
    """The folder of the unpacked copy, made now if it is not there yet. Raises SourceError and MissingExtraError."""
    folder = cache_folder(file, dtype)
    if (folder / "config.json").is_file():
        return folder
    if find_spec("gguf") is None:
        raise MissingExtraError("GGUF files need the gguf package: pip install 'srdd[gguf]'")
    log.info("unpacking %s once into the cache; this takes half a minute", file.name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent))
    except OSError as problem:
        raise SourceError(
            f"cannot write the cache {folder.parent} ({problem.strerror}); set XDG_CACHE_HOME to a folder with room"
        ) from problem
    try:
        _unpack(file, scratch, dtype)
        scratch.rename(folder)
        return folder
    except OSError as problem:
        if (folder / "config.json").is_file():  # another process was faster
            return folder
        if problem.errno is None:
            raise SourceError(f"{file.name} cannot be opened: {_first_line(problem)}") from problem
        raise SourceError(
            f"cannot unpack {file.name} into {folder.parent} ({problem.strerror}); it needs room for the model in "
            f"{dtype}: set XDG_CACHE_HOME to a folder that has it"
        ) from problem
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def stored_types(file: Path) -> str:
    """The main quantization of the weights, from the file's name or metadata, e.g. "Q4_1"; "" when it is not told."""
    name = file.name.upper()
    known = sorted(_TYPES.values(), key=len, reverse=True)
    return next((kind for kind in known if kind in name), "")


def _unpack(file: Path, scratch: Path, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(
                **where, quantization_config=GgufConfig(dequantize=True), dtype=getattr(torch, dtype)
            )
            tokenizer = AutoTokenizer.from_pretrained(**where)
    except OSError:
        raise
    except Exception as problem:  # transformers raises whatever its parser met
        raise SourceError(f"{file.name} cannot be opened: {_first_line(problem)}") from problem
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the copy is not quantized any more
    with quiet():
        model.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)


def _first_line(problem: Exception) -> str:
    text = str(problem).strip()
    return text.splitlines()[0] if text else type(problem).__name__
