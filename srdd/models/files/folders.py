"""Which files of a folder are its weights, and which copy of a tensor counts.

Not here: single files (safetensors.py), names that tell of a mistake (contents.py), and folders that hold no model
(mistaken.py). The rules are the same whether a model is built or not:

1. With an index (model.safetensors.index.json) its shards are read, and the copy that it names is the one that counts.
2. Without one model.safetensors is read; else a complete split into numbered shards; else whatever else is there.
3. What is not read, or read in spite of the index, is said in a note. What cannot be decided is an error.

Worked number: model-00001-of-00003 and model-00002-of-00003 without an index are two thirds of a checkpoint: refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from srdd.core.files import readable
from srdd.errors import SourceError
from srdd.models.files import weights_hash
from srdd.models.files.contents import check_contents
from srdd.models.files.mistaken import POINTER_ADVICE, is_pointer, pickled
from srdd.models.files.safetensors import StoredTensor, header_of

INDEX, SINGLE, ADAPTER_CONFIG = "model.safetensors.index.json", "model.safetensors", "adapter_config.json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<total>\d+)\.safetensors$")
_ADAPTER = re.compile(r"adapter_model.*\.safetensors$")
# Beside a model these are other things: what a trainer keeps, Mistral's own names for the same weights.
_ASIDE = re.compile(r"(consolidated|optimizer|scheduler|training_args|rng_state).*\.safetensors$")


@dataclass(frozen=True)
class WeightFiles:
    """The weights of a folder: the files that are read, by name, and every tensor in the copy that counts.

    `parts` are header and size of each file, which its hash is over; `twice` are names that several files hold. `usual`
    is False where transformers, left to itself, would find other files or other copies.
    """

    files: tuple[Path, ...]
    tensors: dict[str, StoredTensor]
    parts: tuple[tuple[bytes, int], ...]
    notes: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    usual: bool = True

    @property
    def weights_hash(self) -> str:
        return weights_hash(self.parts)


def weight_files(folder: Path) -> WeightFiles | None:
    """The weights of a folder; None if it holds no safetensors of a model. Raises SourceError."""
    present = sorted(path for path in folder.glob("*.safetensors") if not path.is_dir())
    if (folder / INDEX).is_file():
        found = _indexed(folder, present)
    else:
        files, notes = _unindexed(folder, [path for path in present if not _ADAPTER.match(path.name)])
        if not files:
            return None
        unread = _unread(present, files, "beside what was read")
        found = _merged(files, {}, (*unread, *notes), usual=[file.name for file in files] == [SINGLE])
    check_contents(found.tensors, folder)
    # With PEFT installed transformers would put an adapter that lies beside onto the model.
    return replace(found, usual=False) if (folder / ADAPTER_CONFIG).is_file() else found


def single_file(file: Path) -> WeightFiles:
    """The weights of one file, by itself. Raises SourceError."""
    shard = _SHARD.match(file.name)
    notes: tuple[str, ...] = ()
    if shard is not None and int(shard["total"]) > 1:
        notes = (f"{file.name} is one shard of {int(shard['total'])}; the others were not read",)
    return _merged([file], {}, notes, usual=False)


def _indexed(folder: Path, present: Sequence[Path]) -> WeightFiles:
    where = _weight_map(folder / INDEX)
    names = sorted(set(where.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        alone = f"; if {SINGLE} is all of it, remove the index" if (folder / SINGLE).is_file() else ""
        raise SourceError(f"{INDEX} names {len(names)} shards, {missing[0]} is missing in {folder.name}{alone}")
    if not names:
        raise SourceError(f"{INDEX} names no shard; get the checkpoint again")
    files = [folder / name for name in names]
    unread = _unread(present, files, "which the index does not name")
    # A single file beside an index is what transformers would take.
    return _merged(files, where, unread, usual=not (folder / SINGLE).is_file())


def _weight_map(index: Path) -> dict[str, str]:
    """Names of tensors and of the shards they are in."""
    if is_pointer(index):
        raise SourceError(f"{index.name} {POINTER_ADVICE}")
    try:
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if not all(isinstance(shard, str) for shard in where.values()):
            raise ValueError("its weight_map is no table of file names")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as problem:
        raise SourceError(f"{index.name} is no index of shards ({problem}); get the checkpoint again") from problem
    return dict(where)


def _unindexed(folder: Path, present: Sequence[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """The weight files of a folder without an index. Raises SourceError for shards without their siblings."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE], ()
    splits: dict[tuple[str, int], dict[int, Path]] = {}
    for path in present:
        shard = _SHARD.match(path.name)
        if shard is not None and not _ASIDE.match(path.name):
            splits.setdefault((shard["stem"], int(shard["total"])), {})[int(shard["number"])] = path
    if len(splits) > 1:
        told = " and ".join(f"{len(files)} of {total} shards {stem}" for (stem, total), files in splits.items())
        raise SourceError(f"{folder.name} holds {told}, and no index says which count; remove what is not the model")
    for (_, total), shards in splits.items():
        absent = sorted(set(range(1, total + 1)) - set(shards))
        if absent and set(shards) != set(range(total)):  # some count from 0
            one = shards[min(shards)].name
            raise SourceError(
                f"{folder.name} holds {len(shards)} of {total} shards: number {absent[0]} is missing beside {one}, and "
                "there is no index; get the checkpoint again"
            )
        return [shards[number] for number in sorted(shards)], ()
    if pickled(folder):
        return [], ()  # the model is in these; who knows what the other files are
    # No split: all files that may be weights; Mistral's alone are better than nothing.
    files = [path for path in present if not _ASIDE.match(path.name)] or [
        path for path in present if path.name.startswith("consolidated")
    ]
    said = (f"read {_listed(files)}: there is no {SINGLE} and no index",) if len(files) > 1 else ()
    return files, said


def _merged(files: Sequence[Path], where: dict[str, str], notes: Iterable[str], *, usual: bool) -> WeightFiles:
    """All tensors of the files, each in the copy that the index `where` names. Raises SourceError."""
    parts, copies = [], dict[str, list[StoredTensor]]()
    for file in files:
        header, stored = header_of(file)
        parts.append((header, file.stat().st_size))
        for name, tensor in stored.items():
            copies.setdefault(name, []).append(tensor)
    if absent := sorted(set(where) - set(copies)):
        raise SourceError(f"{INDEX} names {absent[0]}, which no shard holds; get the checkpoint again")
    tensors, twice, elsewhere = {}, [], []
    for name, found in copies.items():
        named = [tensor for tensor in found if tensor.file.name == Path(where.get(name, "")).name]
        if len(found) > 1 and not named:
            by = "the index names neither" if where else "there is no index"
            raise SourceError(
                f"{name} is stored twice, in {found[0].file.name} and {found[1].file.name}, and {by}; remove one"
            )
        tensors[name] = (named or found)[0]
        if len(found) > 1:
            twice.append(name)
        elif name in where and not named:
            elsewhere.append(name)
    unnamed = sorted(set(copies) - set(where)) if where else []
    told = [*notes]
    if twice:
        other = next(tensor for tensor in copies[twice[0]] if tensor is not tensors[twice[0]])
        told.append(
            f"{_some(twice)} stored twice; read as the index names it, from {tensors[twice[0]].file.name} and not from "
            f"{other.file.name}"
        )
    if elsewhere:
        told.append(
            f"{_some(elsewhere)} not where the index says, in {where[elsewhere[0]]}; read from "
            f"{tensors[elsewhere[0]].file.name}"
        )
    if unnamed:
        told.append(f"{_some(unnamed)} in the shards but not in the index; read all the same")
    return WeightFiles(tuple(files), tensors, tuple(parts), tuple(told), tuple(twice), usual and not twice)


def _unread(present: Sequence[Path], read: Sequence[Path], why: str) -> tuple[str, ...]:
    rest = [path for path in present if path not in read]
    return (f"not read: {_listed(rest)}, {why}",) if rest else ()


def _listed(files: Sequence[Path]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(readable(path.name) for path in files[:3]) + more


def _some(names: Sequence[str]) -> str:
    """The names' number and the first of them, as the subject of a sentence."""
    return f"{names[0]} is" if len(names) == 1 else f"{len(names)} tensors, {names[0]} among them, are"
