"""What the rules of an audit decide on: counts and sums of stored tensors, as plain numbers.

Not here: how they are read (srdd.runs.audit). Everything is of the file: a module is one that has tensors of its own,
so experts are single where they are stored singly.

Worked number: NVFP4 [64, 32] has 2048 codes in 1024 bytes, 128 scales in E4M3 and one tensor scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scales:
    """The scales of one weight beside its codes, tensor scales apart."""

    name: str
    dtype: str
    count: int
    nan: int = 0
    infinite: int = 0
    negative: int = 0
    zero: int = 0
    zero_over_codes: int = 0  # zero scales of blocks whose codes are not all zero
    at_top: int = 0  # at the largest value of their type; only counted for types of 8 bits
    low: float | None = None  # the smallest and the largest that are finite and above zero
    high: float | None = None


@dataclass(frozen=True)
class TensorScale:
    """The second scale of NVFP4: one number, or one for each expert."""

    name: str
    values: tuple[float, ...]
    divides: bool  # compressed-tensors stores 2688 / amax, all others amax / 2688


@dataclass(frozen=True)
class Codes:
    """How often each byte of a weight's codes occurs, and each code where a byte is two of them or one."""

    bits: int  # of a code
    by_byte: tuple[int, ...]  # 256 counts

    @property
    def bytes(self) -> int:
        return sum(self.by_byte)

    @property
    def by_code(self) -> tuple[int, ...] | None:
        """Counts of the 16 codes of 4 bits or the 256 of 8; None for 6 bits, which cross bytes."""
        if self.bits == 8:
            return self.by_byte
        if self.bits != 4:
            return None
        counts = [0] * 16
        for byte, count in enumerate(self.by_byte):
            counts[byte & 15] += count
            counts[byte >> 4] += count
        return tuple(counts)

    @property
    def magnitudes(self) -> frozenset[int]:
        """The codes above 0 that occur, signs apart; none for 6 bits."""
        sign = 8 if self.bits == 4 else 128
        return frozenset(code & (sign - 1) for code, count in enumerate(self.by_code or ()) if count) - {0}


@dataclass(frozen=True)
class Permuted:
    """Rows in other places: row i of the packed weight is row `order[i]` of the reference, None where none fits."""

    order: tuple[int | None, ...]


@dataclass(frozen=True)
class Compared:
    """One matrix against the reference, sums in float64. Of fused experts each is a matrix."""

    name: str  # "model.layers.0.mlp.experts.gate_up_proj, expert 3"
    shape: tuple[int, int]
    reference2: float  # sum of squares
    packed2: float
    error2: float
    product: float
    wrong_rows: int = 0  # whose error is more than 0.7 of the row
    permuted: Permuted | None = None
    transposed: bool = False
    holds: str | None = None  # the reference's matrix that it holds
    inverted: str | None = None  # the tensor of scales with whose inverse it fits the reference
    factor: float | None = None  # and the factor by which values are off

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def relative_rms(self) -> float | None:
        return (self.error2 / self.reference2) ** 0.5 if self.reference2 else None

    @property
    def gain(self) -> float | None:
        return self.product / self.reference2 if self.reference2 else None

    @property
    def cosine2(self) -> float:
        both = self.reference2 * self.packed2
        return self.product * abs(self.product) / both if both else 0.0


@dataclass(frozen=True)
class Module:
    """One weight as the files hold it."""

    name: str
    role: str
    form: str
    family: str  # the form as configs name it; "plain" where it is not packed
    shape: tuple[int, ...]
    layer: int | None = None
    group: str | None = None  # modules that a serving stack runs as one
    matrix: str | None = None  # those whose matrices it lays in one, under one tensor scale
    beside_text: bool = False
    is_site: bool = True  # False for what is packed and no weight of a matrix product, as an embedding
    claimed: str | None = None
    codes: Codes | None = None
    scales: Scales | None = None
    tensor_scale: TensorScale | None = None
    input_scale: TensorScale | None = None
    shares: bool = True  # its exporter gives the parts of a matrix one tensor scale
    values: int = 0
    nonfinite: int = 0
    sum_x2: float = 0.0

    @property
    def is_packed(self) -> bool:
        return self.family != PLAIN

    @property
    def rms(self) -> float | None:
        finite = self.values - self.nonfinite
        return (self.sum_x2 / finite) ** 0.5 if finite > 0 and self.is_packed else None


PLAIN = "plain"


@dataclass(frozen=True)
class Facts:
    """All of a checkpoint."""

    modules: tuple[Module, ...]
    config: str = "config.json"
    method: str | None = None
    left_plain: tuple[str, ...] = ()  # what a method of one format leaves out, as its config lists it
    damaged: tuple[str, ...] = ()  # a line each, the tensor first
    unheld: str | None = None
    lacking: tuple[str, ...] = ()  # weights of the model that no tensor holds
    unclaimed: Mapping[str, str] = field(default_factory=dict)  # tensors that nothing takes -> what they look like
    compared: tuple[Compared, ...] = ()
    reference_only: tuple[str, ...] = ()  # modules that the reference alone has
    packed_only: tuple[str, ...] = ()

    @property
    def packed(self) -> tuple[Module, ...]:
        return tuple(module for module in self.modules if module.is_packed)
