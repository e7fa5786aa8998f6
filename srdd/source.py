"""Opens a model to run: a Hugging Face id, a local folder, a GGUF file, or a packaged model by short name.

Not here: scanning, and reading weights without a model (checkpoint.py). Nothing that transformers or the hub raise
gets out as it is: every failure is one SourceError line that says what was found.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from srdd import gguf, gguf_header
from srdd.errors import MissingExtraError, OptionError, SourceError
from srdd.identity import Identity
from srdd.loading import headless, random_part, unread_part
from srdd.packages import packaged
from srdd.quiet import quiet
from srdd.safetensors_files import check_shards, shards_hash
from srdd.sites import decoder_layers

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class OpenModel:
    """A model ready to run, in eval mode on its device."""

    model: Any  # a transformers PreTrainedModel, which has no types
    tokenizer: Any | None
    tokenizer_problem: str | None
    identity: Identity
    device: torch.device
    notes: tuple[str, ...] = ()


def needs_model(name: str) -> bool:
    """True when the weights of `name` cannot be read without building it: GGUF files and smollm2."""
    path = packaged(name) or Path(name)
    return path.suffix == ".gguf"


def first_unpacking(name: str, dtype: str) -> bool:
    """True when opening `name` will unpack a GGUF file into the cache first, which takes half a minute."""
    path = packaged(name) or Path(name).expanduser()
    wanted = "float32" if dtype == "auto" else dtype
    return path.suffix == ".gguf" and path.is_file() and not gguf.is_unpacked(path, wanted)


def open_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    trust_remote_code: bool = False,
) -> OpenModel:
    """Open a model and, if it has one, its tokenizer. Raises SourceError, OptionError, MissingExtraError.

    dtype "auto" is the checkpoint's own; for GGUF float32, the type its values dequantize to.
    """
    where = check_options(dtype, device, device_map)
    path = packaged(name) or Path(name).expanduser()
    notes: tuple[str, ...] = ()
    label, hashed = _label(name, path), None
    with ExitStack() as open_while_loading:
        if path.is_file() and path.suffix == ".gguf":
            hashed = gguf_header.head_hash(path)
            stored = gguf_header.stored_types(path)
            notes = (
                f"the weights come from a GGUF file in {stored} and already carry that format's error; "
                "weight errors here are against the dequantized values",
            )
            path = open_while_loading.enter_context(gguf.unpacked(path, "float32" if dtype == "auto" else dtype))
        elif path.is_file():
            raise SourceError(f"{path.name} is a single file, no model folder; `srdd scan --sites weight` can read it")
        elif path.is_dir():
            hashed = _check_folder(path, label)
        elif path.suffix == ".gguf" or name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise SourceError(f"no such model folder or file: {name}")
        target = str(path) if path.is_dir() else name
        options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        if revision is not None and not path.is_dir():
            options["revision"] = revision
        elif revision is not None:
            raise OptionError("--revision has no effect on a local model; leave it out")
        model, random = _load(target, label, dtype, device_map, None if device_map else where, options)
        tokenizer, problem = _tokenizer(target, label, options)
    if target == name and not path.is_dir():
        revision, hashed = _of_hub(name, revision)
    first = next(model.parameters())
    identity = Identity(
        id=label,
        parameter_count=sum(p.numel() for p in model.parameters()),
        revision=revision,
        architecture=type(model).__name__,
        layer_count=len(decoder_layers(model)),
        weights_hash=hashed,
        dtype=str(first.dtype).removeprefix("torch."),
    )
    return OpenModel(model.eval(), tokenizer, problem, identity, first.device, (*notes, *random))


def check_options(dtype: str, device: str, device_map: str | None) -> torch.device:
    """The device that was asked for. Raises OptionError for what no model could be opened with."""
    if dtype not in DTYPES:
        raise OptionError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}")
    if device_map is not None and device != "auto":
        raise OptionError("--device has no effect with --device-map; give one of them")
    return _device(device)


def _label(name: str, path: Path) -> str:
    """What a report calls the model: a local path gives its last part only."""
    if packaged(name) is not None:
        return name
    return path.resolve().name if path.exists() else name


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise OptionError(f"--device {device}: expected auto, cpu, cuda, cuda:N or mps") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"--device {device}: this machine has {torch.cuda.device_count()} cuda device(s)")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise OptionError("--device mps: not available on this machine; leave it out, or take cpu")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise OptionError(f"--device {device}: expected auto, cpu, cuda, cuda:N or mps")
    return chosen


def _check_folder(folder: Path, label: str) -> str | None:
    """Find out in a second what from_pretrained would find out late or not at all. The weights hash, if any."""
    if not (folder / "config.json").is_file():
        raise SourceError(f"{label} holds no config.json, so it is no model folder")
    shards = check_shards(folder)
    if not shards and not any(folder.glob("pytorch_model*.bin*")):
        raise SourceError(
            f"{label} holds no weights: expected model.safetensors, its index with shards, or a .bin file"
        )
    return shards_hash(shards) if shards else None


def _of_hub(name: str, revision: str | None) -> tuple[str | None, str | None]:
    """Commit and weights hash of a model that the hub's cache holds by now; no hash without safetensors files."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(config, str):
        return revision, None
    snapshot = Path(config).parent  # the cache calls its folders by commit
    shards = check_shards(snapshot)
    return snapshot.name, shards_hash(shards) if shards else None


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Nothing below an error from the hub's client inside the block: without a network it logs every retry."""
    from huggingface_hub.utils import logging as hub

    level = hub.get_verbosity()
    hub.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub.set_verbosity(level)


def _load(
    target: str, label: str, dtype: str, device_map: str | None, where: torch.device | None, options: dict[str, Any]
) -> tuple[Any, tuple[str, ...]]:
    """The model, and notes when part of it is not in the checkpoint, or part of the checkpoint not in it."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    extra: dict[str, Any] = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if device_map is not None:
        if find_spec("accelerate") is None:
            raise MissingExtraError("--device-map needs accelerate: pip install 'srdd[big]'")
        extra["device_map"] = device_map
    try:
        with quiet(), quiet_hub():
            config = AutoConfig.from_pretrained(target, **options)
            names = set(getattr(config, "architectures", None) or ())
            # BERT is in the table of causal models as a decoder; what the checkpoint says it is decides
            causal = bool(names & set(CAUSAL.values())) if names else config.model_type in CAUSAL
            auto = AutoModelForCausalLM if causal else headless(names)
            model, info = auto.from_pretrained(target, output_loading_info=True, **extra, **options)
        if where is not None:
            model = model.to(where)
    except Exception as problem:  # transformers and the hub raise many types; each means it cannot be opened
        if isinstance(problem, MemoryError | torch.OutOfMemoryError):
            raise SourceError(
                f"{label} does not fit into memory; try --device-map auto, or `srdd scan --sites weight`"
            ) from problem
        if "trust_remote_code" in str(problem) and not options["trust_remote_code"]:
            raise SourceError(
                f"{label} needs Python code that comes with the checkpoint; read it, then pass --trust-remote-code"
            ) from problem
        from_hub = isinstance(problem, OSError) and not Path(target).is_dir()
        found = "is no folder here, and the hub did not give it" if from_hub else "cannot be opened"
        raise SourceError(f"{label} {found}: {_one_line(problem, target, label)}") from problem
    random = random_part(model, sorted(info["missing_keys"]), label, causal)
    return model, (*random, *unread_part(model, sorted(info["unexpected_keys"])))


def _tokenizer(target: str, label: str, options: dict[str, Any]) -> tuple[Any | None, str | None]:
    from transformers import AutoTokenizer

    try:
        with quiet(), quiet_hub():
            return AutoTokenizer.from_pretrained(target, **options), None
    except Exception as problem:  # a model without tokenizer files is legal: its weights can be scanned
        folder, globs = Path(target), ("*token*", "*vocab*", "*.model")
        if folder.is_dir() and not any(True for glob in globs for _ in folder.glob(glob)):
            return None, "its folder holds no tokenizer files"  # transformers says so in a paragraph
        return None, f"{_one_line(problem, target, label)[:160]}"


def _one_line(problem: Exception, target: str, label: str) -> str:
    """The message without the path of the model, since notes end in reports."""
    text = " ".join(str(problem).replace(target, label).split())
    return text[:300] if text else type(problem).__name__
