"""What every packed form is: it finds weights among the tensors of one module, and reads their rows as float32.

Not here: the forms themselves, one a file, listed in __init__.py. A form is a function `recognise(module, facts)`. It
looks at names, types and shapes alone; what it does not know it leaves, what it knows but finds damaged it refuses with
a SourceError. Values are the float32 numbers that codes and scales stand for, each product rounded once.

Worked number: `up_proj` with weight_packed U8 [64, 16] and weight_scale U8 [64, 1] is one weight [64, 32] in MXFP4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from srdd.errors import SourceError
from srdd.models.files.safetensors import StoredTensor, mapped, opened

# (matrix, first row, how many rows) -> float32 [rows, columns]; the matrix counts experts, 0 where there are none
Rows = Callable[[int, int, int], Tensor]
# how lines of scales are read, (tensor, first line, how many); not `read` where they are swizzled
Lines = Callable[[StoredTensor, int, int], Tensor]
# the tensors of one module by the last part of their names
Module = Mapping[str, StoredTensor]


@dataclass(frozen=True)
class Packed:
    """A weight that is stored as codes with scales. `shape` is that of the weight which they stand for."""

    name: str
    shape: tuple[int, ...]
    form: str  # as people call it: "NVFP4", "FP8 in blocks of 128 x 128"
    parts: tuple[StoredTensor, ...]  # codes first, then scales
    rows: Rows = field(repr=False)
    scales: Rows = field(repr=False)  # the factor of every value: [rows, columns] too
    largest: float  # magnitude that a code can hold: times its factor, that of a value
    transposed: bool | None = False  # [in, out]; None where the architecture says it, as for plain weights
    lines: Lines | None = field(default=None, repr=False)  # how the lines of its scales are read; None: as they lie

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def dtype(self) -> str:
        """Of the codes, as safetensors calls it."""
        return self.parts[0].dtype

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def family(self) -> str:
        """The format without its details, as configs name it: "FP8" of "FP8 in blocks of 128 x 128"."""
        return self.form.split(" ", 1)[0]


@dataclass(frozen=True)
class Facts:
    """What lies beside the tensors: the claim of the config for a module, its tiles, and the file's metadata."""

    claim: Callable[[str], str | None] = lambda module: None
    tiles: tuple[tuple[int, int], ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


class Form(Protocol):
    """One packed form. `KNOWN` says in a message which it is."""

    KNOWN: str

    def recognise(self, module: Module, facts: Facts) -> Iterator[Packed]: ...


def read(tensor: StoredTensor, first: int = 0, count: int | None = None) -> Tensor:
    """Rows of a tensor, all its axes but the last taken as one, in its own type: [count, columns]."""
    columns = tensor.shape[-1] if tensor.shape else 1
    count = math.prod(tensor.shape[:-1]) - first if count is None else count
    if count * columns == 0:
        return torch.empty(count, columns, dtype=tensor.torch_dtype)
    row_bytes = columns * tensor.torch_dtype.itemsize
    with opened(tensor.file) as file:
        raw = mapped(file, tensor, tensor.start + first * row_bytes, count * row_bytes)
    return raw.view(tensor.torch_dtype).view(count, columns)


def require(module: Module, local: str, beside: StoredTensor) -> StoredTensor:
    """The tensor that codes cannot do without. Raises SourceError."""
    if local not in module:
        missing = f"{beside.name.rpartition('.')[0]}.{local}".removeprefix(".")
        raise SourceError(f"{beside.name} holds codes ({beside.dtype}) without their scale: {missing} is missing")
    return module[local]


def expect(tensor: StoredTensor, dtypes: tuple[str, ...], *shapes: tuple[int, ...]) -> None:
    """Raises SourceError for a part of another type or shape than its codes ask for."""
    if tensor.dtype not in dtypes:
        raise SourceError(f"{tensor.name} is stored as {tensor.dtype}; expected {' or '.join(dtypes)}")
    if shapes and tensor.shape not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        raise SourceError(f"{tensor.name} is {list(tensor.shape)}; expected {wanted} beside its codes")


def refuse_zero_points(module: Module, codes: StoredTensor) -> None:
    """Raises SourceError for zero points that are not all 0, which some exporters write for symmetric codes too."""
    zeros = module.get("weight_zero_point")
    if zeros is not None and bool((read(zeros).float() != 0).any()):
        raise SourceError(f"{zeros.name} holds zero points beside {codes.dtype} codes; no known form has them")


def weight_name(codes: StoredTensor, local: str) -> str:
    """The name of the weight that a module's codes stand for, "...up_proj.weight"."""
    return ".".join(filter(None, (codes.name.rpartition(".")[0], local)))


def as_json(text: str | None) -> dict[str, Any]:
    """A JSON object of a file's metadata, {} for anything else."""
    import json

    try:
        found = json.loads(text or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
