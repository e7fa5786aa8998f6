"""What people point at instead of a model: pointers of Git LFS, ranks of a training run, a hub's cache, an adapter.

Not here: folders that hold a model (folders.py). A line says what the thing is and what to do with it.

Worked number: model_world_size_2_rank_0.pt and ..._rank_1.pt are two halves of every tensor; verl merges them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from srdd.errors import setting

_POINTER = b"version https://git-lfs"
POINTER_ADVICE = "is a pointer of Git LFS, not the file itself; fetch it in its folder: git lfs pull"
_HUB = "models--"
_RANKS = "model_world_size_*_rank_*.pt"
_TYPED = "{folder}"  # in a line: the folder as it was given

# Files that tell what a folder is, what that is, and what to do. The first that is found counts.
_SIGNS = (
    (
        (_RANKS,),
        "holds the ranks of a training run (verl with FSDP), which are parts of tensors; merge them first: python -m "
        "verl.model_merger merge, with backend fsdp, local_dir {folder} and a target_dir to scan",
    ),
    (
        ("zero_to_fp32.py", "*_optim_states.pt", "mp_rank_*_model_states.pt", "global_step*/*_optim_states.pt"),
        "holds a DeepSpeed checkpoint, whose files are parts of tensors; merge them first: python zero_to_fp32.py . "
        "MERGED in that folder, and scan MERGED with config.json and tokenizer beside",
    ),
    (
        ("*.distcp", "*/*.distcp"),
        "holds a distributed checkpoint of PyTorch, whose files are parts of tensors; merge them first: accelerate "
        "merge-weights {folder} MERGED, and scan MERGED with config.json and tokenizer beside",
    ),
    (
        ("latest_checkpointed_iteration.txt", "mp_rank_*/*.pt", "iter_*/*"),
        "holds a Megatron checkpoint, whose files are parts of tensors; export it in Hugging Face form first (verl: "
        "python -m verl.model_merger merge, with backend megatron and local_dir {folder})",
    ),
    (
        ("consolidated.*.pth",),
        "holds weights in Meta's own form; get the model in Hugging Face form (transformers converts it: "
        "convert_llama_weights_to_hf.py)",
    ),
    (("model_index.json",), "holds a pipeline of diffusers; give the folder of a text model in it, if it has one"),
    (("*.onnx", "onnx/*.onnx"), "holds an ONNX graph, which is not read; get the model with its safetensors"),
    (
        ("flax_model*.msgpack", "tf_model*.h5"),
        "holds weights for Flax or TensorFlow, which are not read; get the model with its safetensors",
    ),
)


def is_pointer(file: Path) -> bool:
    """True for the text that a clone without Git LFS has in a file's place."""
    try:
        with file.open("rb") as stream:
            return stream.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def no_safetensors(file: Path, size: int) -> str:
    """A line on a file whose head is not that of a safetensors file."""
    with file.open("rb") as stream:
        head = stream.read(64)
    if head.startswith(_POINTER):
        return f"{file.name} {POINTER_ADVICE}"
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        return f"{file.name} is a pickled file, no safetensors; save the model again: model.save_pretrained(FOLDER)"
    if head.startswith(b"GGUF"):
        return f"{file.name} is a GGUF file under another name; call it {file.stem}.gguf"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return f"{file.name} is a web page, not the file itself; download it again"
    if head.startswith((b"{", b"[")):
        return f"{file.name} holds no weights; give the folder that it is in: {file.parent}"
    return f"{file.name} is no complete safetensors file ({size} bytes); get it again"


def pickled(folder: Path) -> list[Path]:
    """The pickled weights of a folder that transformers reads."""
    return sorted(folder.glob("pytorch_model*.bin"))


def told(folder: Path, typed: str) -> str | None:
    """What a folder without a model holds instead and what to do, as the rest of a line that begins with its name.

    `typed` is the folder as the user gave it, for what to type next. None: nothing that is known.
    """
    whole = folder.resolve()
    for path in (whole, whole.parent):
        if path.name.startswith(_HUB) and (path == whole or whole.name in ("snapshots", "blobs", "refs")):
            return _hub_cache(path, os.path.normpath(typed if path == whole else f"{typed}/.."))
    cached = sorted(path.name for path in whole.glob(f"{_HUB}*--*"))
    if cached:
        return f"is a hub's cache of models ({len(cached)} in all); give the id of one, such as {_id_of(cached[0])}"
    for patterns, line in _SIGNS:
        if any(True for pattern in patterns for _ in folder.glob(pattern)):
            return line.replace(_TYPED, typed)
    if (folder / "adapter_config.json").is_file() or any(folder.glob("adapter_model*")):
        return _adapter(folder, typed)
    if any(whole.parent.glob(_RANKS)):
        return (
            f"holds the config and tokenizer of a training run; its weights are the ranks beside it; merge them first: "
            f"python -m verl.model_merger merge, with backend fsdp, local_dir {os.path.normpath(f'{typed}/..')} and a "
            "target_dir to scan"
        )
    ggufs = sorted(folder.glob("*.gguf"))
    if ggufs:
        return f"holds GGUF files; give one of them: {os.path.join(typed, ggufs[0].name)}"
    inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if inside:
        return f"holds models in folders of their own; give one of them: {os.path.join(typed, inside[-1])}"
    return None


def _adapter(folder: Path, typed: str) -> str:
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        base = config.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError):
        base = None
    of = f" of {base}" if isinstance(base, str) and base else ""
    return f"holds an adapter{of}, no whole model; give both: {setting('model', 'BASE')} {setting('adapter', typed)}"


def _hub_cache(cache: Path, typed: str) -> str:
    """The cache of one model: blobs, refs and snapshots, of which the last is a model folder."""
    name = _id_of(cache.name)
    snapshots = [path for path in cache.glob("snapshots/*") if (path / "config.json").exists()]
    if not snapshots:
        return f"is the hub's cache of {name} and holds no model yet; give its id: {name}"
    try:
        main = (cache / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        main = ""
    newest = max(snapshots, key=lambda path: (path.name == main, path.stat().st_mtime_ns))
    return f"is the hub's cache of {name}; give its id, or the folder of a snapshot: {typed}/snapshots/{newest.name}"


def _id_of(name: str) -> str:
    return name.removeprefix(_HUB).replace("--", "/")
