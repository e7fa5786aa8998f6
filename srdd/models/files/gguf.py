"""GGUF files: unpacked once into the user's cache folder, then opened like any other model.

Not here: dequantization, which transformers and the gguf package do, but for MXFP4 and NVFP4 (packed/gguf_blocks.py):
NVFP4's tensor scales are tensors of their own, which transformers knows nothing of. Left alone, they take 23 s for
SmolLM2, of which dequantization is 2 s: the file is parsed three times, each time reading 49 thousand token strings
through numpy memory maps, and a table of tensor names is rebuilt for each of 397 modules. Sharing both makes it 10 s.
The unpacked copy opens in 1 s.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

from srdd.errors import MissingExtraError, SourceError
from srdd.models.files.gguf_header import head_hash
from srdd.models.quiet import quiet

log = logging.getLogger("srdd")

_SAMPLES, _SAMPLE = 64, 4096  # samples of the values, so that fine-tunes of one model get their own copies
_LAYOUT = "3"  # of the cache folder; a new number leaves old copies unused
_COMPLETE = "srdd-complete.json"  # file name -> size, written last


def cache_folder(file: Path, dtype: str) -> Path:
    """Where the unpacked copy of a file belongs, whether or not it is there.

    Fine-tunes of one model agree in size and in the first MiB, which is all tokens; so samples of the values and the
    time of the last change are part of the key. A wrong copy would mean a scan of another model.
    """
    state = file.stat()
    digest = hashlib.sha256()
    for part in (_LAYOUT, head_hash(file), state.st_mtime_ns, dtype, version("transformers").split(".")[0]):
        digest.update(f"{part}\0".encode())
    with file.open("rb") as stream:
        for i in range(_SAMPLES):
            stream.seek((state.st_size - _SAMPLE) * i // (_SAMPLES - 1) if state.st_size > _SAMPLE else 0)
            digest.update(stream.read(_SAMPLE))
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "srdd" / "gguf" / digest.hexdigest()[:16]


def is_unpacked(file: Path, dtype: str) -> bool:
    """True when a complete copy is in the cache."""
    return _whole(cache_folder(file, dtype))


@contextmanager
def unpacked(file: Path, dtype: str) -> Iterator[Path]:
    """The folder of the unpacked copy, made now if it is not there yet. Raises SourceError and MissingExtraError.

    If the cache cannot be written, the copy lives in a temporary folder for as long as the context is open.
    """
    folder = cache_folder(file, dtype)
    if not _whole(folder):
        if find_spec("gguf") is None:
            raise MissingExtraError("GGUF files need the gguf package: pip install 'srdd[gguf]'")
        log.info("unpacking %s once into the cache", file.name)
        try:
            _fill(folder, file, dtype)
        except OSError as problem:
            log.warning(
                "cannot keep the unpacked %s in the cache %s (%s); the next scan unpacks it again. Set XDG_CACHE_HOME "
                "to a folder with room",
                file.name, folder.parent, problem.strerror or problem,
            )  # fmt: skip
            with _temporary(file, dtype) as scratch:
                yield scratch
            return
    yield folder


def _fill(folder: Path, file: Path, dtype: str) -> None:
    """Make the copy under a temporary name and rename it. Raises OSError when the cache cannot hold it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent))
    try:
        _unpack(file, scratch, dtype)
        sizes = {part.name: part.stat().st_size for part in sorted(scratch.iterdir())}
        (scratch / _COMPLETE).write_text(json.dumps(sizes), encoding="utf-8")
        if folder.exists() and not _whole(folder):
            log.info("the copy of %s in the cache was damaged and is replaced", file.name)
            shutil.rmtree(folder)
        try:
            scratch.rename(folder)
        except OSError:
            if not _whole(folder):  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _temporary(file: Path, dtype: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="srdd-", ignore_cleanup_errors=True) as scratch:
        try:
            _unpack(file, Path(scratch), dtype)
        except OSError as problem:
            raise SourceError(
                f"cannot unpack {file.name} ({problem.strerror or problem}); it needs room for the model in {dtype}: "
                "set XDG_CACHE_HOME to a folder that has it"
            ) from problem
        yield Path(scratch)


def _whole(folder: Path) -> bool:
    """True when every file of a copy is there in full; a cache cleaner may have removed some."""
    try:
        sizes = json.loads((folder / _COMPLETE).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _unpack(file: Path, scratch: Path, dtype: str) -> None:
    """Raises SourceError for a file that is not understood, OSError when `scratch` cannot hold the copy."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with quiet():
        try:
            with _parsed_once():
                model, info = AutoModelForCausalLM.from_pretrained(
                    **where,
                    quantization_config=GgufConfig(dequantize=True),
                    dtype=getattr(torch, dtype),
                    output_loading_info=True,
                )
                tokenizer = AutoTokenizer.from_pretrained(**where)
        except Exception as problem:  # transformers raises whatever its parser met
            text = " ".join(str(problem).replace(f"{file.parent}{os.sep}", "").split())
            raise SourceError(f"{file.name} cannot be opened: {text[:300] or type(problem).__name__}") from problem
        if missing := sorted(info["missing_keys"]):
            raise SourceError(
                f"{file.name} lacks {len(missing)} weights of its architecture, {missing[0]} among them; is it one "
                "part of a split file? Join them with llama-gguf-split --merge"
            )
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config  # the copy is not quantized any more
        try:
            model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
        except OSError:
            raise
        except Exception as problem:  # safetensors reports a full disk in an error type of its own
            raise OSError(" ".join(str(problem).split())) from problem


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Inside, the reader and the table of names are made once per file and architecture, and no bar is drawn.

    What the reader gives is decoded here where gguf's own decoder lacks a tensor's scale.

    transformers asks gguf for new ones at every step. They are only read, so one of each serves all steps; the
    originals are restored on leaving.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as loading

    with (
        patch.object(gguf, "GGUFReader", cache(partial(_read, gguf.GGUFReader))),
        patch.object(gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map)),
        patch.object(loading, "tqdm", lambda items, **_: items, create=True),  # drawn whatever the verbosity
    ):
        yield


def _read(reader_class: Any, path: Any) -> Any:
    """A reader whose MXFP4 and NVFP4 tensors are float32, times their tensor scales, which are not listed."""
    from srdd.models.files.packed.gguf_blocks import READERS

    reader = reader_class(path)
    scales = {tensor.name: tensor.data for tensor in reader.tensors if tensor.name.endswith((".scale", ".input_scale"))}
    tensors = []
    for tensor in reader.tensors:
        stem = tensor.name.removesuffix(".weight")
        if int(tensor.tensor_type) in READERS:
            tensors.append(_Decoded(tensor, scales.get(f"{stem}.scale", scales.get(f"{tensor.name}.scale"))))
        elif tensor.name not in scales:
            tensors.append(tensor)
    reader.tensors = tensors
    return reader


class _Decoded:
    """A tensor of a reader, decoded when its data is asked for, so that one at a time is in memory."""

    def __init__(self, tensor: Any, scale: Any) -> None:
        from gguf import GGMLQuantizationType

        self.name, self.shape, self.tensor_type = tensor.name, tensor.shape, GGMLQuantizationType.F32
        self._tensor, self._scale = tensor, scale

    @property
    def data(self) -> Any:
        """float32, the axes as numpy has them: [out, in] or [experts, out, in]. Raises SourceError."""
        import torch

        from srdd.models.files.packed.gguf_blocks import READERS

        raw = torch.from_numpy(self._tensor.data.copy())
        values = READERS[int(self._tensor.tensor_type)](raw)
        if self._scale is not None:
            scale = torch.from_numpy(self._scale.astype("float32"))
            if scale.numel() not in (1, *values.shape[:-2]):
                raise SourceError(f"{self.name} has {scale.numel()} tensor scales; expected 1, or one for each expert")
            values *= scale.view(-1, *(1 for _ in values.shape[1:]))
        return values.numpy()
