"""The formats as rows of data: element formats, block formats, and the spec strings that name them.

Not here: arithmetic. Kernels read these rows; nothing outside this file branches on a format's name.

An element is four facts: mantissa bits, the exponents of its smallest and largest normal number, and its largest
value. Every grid follows from them: between 2^e and 2^(e+1) neighbours lie 2^(e - mantissa_bits) apart, and below
2^emin the spacing stays that of emin. Worked number: E2M1 has mantissa_bits 1, emin 0, max 6, hence the magnitudes
0, 0.5, 1, 1.5, 2, 3, 4, 6.

Sources: OCP Microscaling Formats (MX) v1.0, sections 5.3 (elements) and 5.4 (E8M0); NVIDIA's NVFP4 as computed by
TransformerEngine, TensorRT-LLM and vLLM; FP8 by tensor, channel and token as in vLLM, by tile as in DeepSeek-V3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from srdd.core.near import did_you_mean
from srdd.errors import FormatError, setting


@dataclass(frozen=True)
class Element:
    """One element format. INT8 is a grid of constant spacing 2^-6, which emin = emax = 0 says exactly."""

    name: str
    bits: int
    mantissa_bits: int
    emin: int
    emax: int
    max: float

    @property
    def magnitudes(self) -> tuple[float, ...]:
        """Every non-negative value the element can hold, ascending."""
        values = [0.0]
        while values[-1] < self.max:
            exponent = max(math.frexp(values[-1])[1] - 1, self.emin) if values[-1] else self.emin
            values.append(values[-1] + 2.0 ** (exponent - self.mantissa_bits))
        return tuple(values)


# OCP MX v1.0, tables 2-6. E4M3 gives its top code to NaN, so its largest value is 448, not 480.
E2M1 = Element("E2M1", bits=4, mantissa_bits=1, emin=0, emax=2, max=6.0)
E2M3 = Element("E2M3", bits=6, mantissa_bits=3, emin=0, emax=2, max=7.5)
E3M2 = Element("E3M2", bits=6, mantissa_bits=2, emin=-2, emax=4, max=28.0)
E4M3 = Element("E4M3", bits=8, mantissa_bits=3, emin=-6, emax=8, max=448.0)
E5M2 = Element("E5M2", bits=8, mantissa_bits=2, emin=-14, emax=15, max=57344.0)
INT8 = Element("INT8", bits=8, mantissa_bits=6, emin=0, emax=0, max=127 / 64)
ELEMENTS = (E2M1, E2M3, E3M2, E4M3, E5M2, INT8)


class Scale(StrEnum):
    """What kind of number scales a block."""

    E8M0 = "E8M0"  # a power of two, 2^-127 to 2^127
    E4M3_FP32 = "E4M3 x FP32"  # one E4M3 number per block under one float32 number per tensor
    FP32 = "FP32"  # one float32 number per tile, which holds many blocks


class Rule(StrEnum):
    """How the scale of a block follows from amax, the largest magnitude in it. A wrong choice costs up to 6 dB."""

    FLOOR = "floor"  # 2^(floor(log2 amax) - emax). OCP text. Clips when amax's significand passes the element's max
    RCEIL = "rceil"  # the smallest power of two with amax <= max * 2^e. NVIDIA. Never clips
    CEIL = "ceil"  # 2^(ceil(log2 amax) - emax). Never clips, wastes up to one binade
    EVEN = "even"  # floor, after rounding amax half up to the element's mantissa bits. AMD, llm-compressor
    EVEN_M1 = "even_m1"  # even with one mantissa bit for every element. llm-compressor's MXFP8
    NVIDIA = "nvidia"  # s_b = E4M3((amax / 6) / s_t), s_t = gmax / 2688; s_b may underflow to zero
    MIN_SUBNORMAL = "min_subnormal"  # nvidia with s_b at least 2^-9. ModelOpt's export
    MIN_NORMAL = "min_normal"  # nvidia with s_b at least 2^-6. torchao
    SINGLE_LEVEL = "single_level"  # no tensor scale: s_t = 1, s_b at least 2^-6. torchao without a tensor scale
    AMAX = "amax"  # amax / 448 in float32, amax of the whole tile. DeepSeek-V3, vLLM. Clips below 2^-126 alone
    STORED = "stored"  # codes and scales as they lie in a checkpoint: in reports alone, nothing is computed by it


_RULES = {
    Scale.E8M0: (Rule.FLOOR, Rule.RCEIL, Rule.CEIL, Rule.EVEN, Rule.EVEN_M1),
    Scale.E4M3_FP32: (Rule.NVIDIA, Rule.MIN_SUBNORMAL, Rule.MIN_NORMAL, Rule.SINGLE_LEVEL),
    Scale.FP32: (Rule.AMAX,),
}
_SCALE_BITS = {Scale.E8M0: 8, Scale.E4M3_FP32: 8, Scale.FP32: 32}
_RULE_SYNONYMS = {"ocp": Rule.FLOOR}
# Rules under which |x| can never pass the largest value of its block, so that saturation is zero by construction.
_NEVER_CLIPS = frozenset({Rule.RCEIL, Rule.CEIL, Rule.AMAX})

Tile = tuple[float, float]  # rows x columns
ALL = math.inf  # of a tile: as many rows or columns as there are. (1, ALL) is a row, (ALL, ALL) the whole tensor


@dataclass(frozen=True)
class BlockFormat:
    """A block format with its scale rule: what `mxfp4:even` means.

    A block is what is looked at alone: its SQNR is counted, and a NaN spoils it. A scale is for a block too, but for
    float32 scales, which are for a whole tile: there a block is the run of 32 that mxfp8 scales alone, so that the
    blocks of both can be compared.
    """

    name: str
    element: Element
    block: tuple[int, int]  # rows x columns; (1, 32) runs along the last axis
    tile: Tile  # rows x columns under one scale
    weight_tile: Tile  # the same where the tensor is a weight
    scale: Scale
    rule: Rule
    stochastic: bool = False

    @property
    def spec(self) -> str:
        """The canonical spec string, rule included: two reports are comparable only when these agree."""
        return f"{self.name}:{self.rule.value}"

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules this format can be computed with."""
        return _RULES[self.scale]

    @property
    def has_tensor_scale(self) -> bool:
        """True when a scale is made from the amax of the whole tensor, which a part of it cannot know."""
        two_levels = self.scale is Scale.E4M3_FP32 and self.rule is not Rule.SINGLE_LEVEL
        return two_levels or self.tile == (ALL, ALL)

    @property
    def for_weights(self) -> BlockFormat:
        """The format as it is for a weight; `fp8_block` has other tiles there, all else is the same."""
        return self if self.tile == self.weight_tile else replace(self, tile=self.weight_tile)

    @property
    def multiple(self) -> tuple[int, int]:
        """Rows and columns of which a tensor must be a multiple, or most stacks refuse it.

        Those of an input's tile, since stacks store the short last tiles of a weight (DeepSeek-V3 has 576 rows).
        """
        rows, columns = (1 if side == ALL else int(side) for side in self.tile)
        return rows, columns

    @property
    def block_size(self) -> int:
        return self.block[0] * self.block[1]

    @property
    def bits_per_value(self) -> float:
        """Storage per value of a weight with its share of a scale; a row's or tensor's is not counted. mxfp4: 4.25."""
        rows, columns = self.weight_tile
        return self.element.bits + _SCALE_BITS[self.scale] / (rows * columns)

    @property
    def never_clips(self) -> bool:
        """True when the saturation ratio is zero by construction and says nothing about the data."""
        if self.rule is Rule.EVEN_M1:  # one up from 1.75 on, so all is held unless the element ends below that (E2M1)
            return self.element.max >= 1.75 * 2.0**self.element.emax
        return self.rule in _NEVER_CLIPS


def _mx(name: str, element: Element, rule: Rule, *, block: tuple[int, int] = (1, 32), sr: bool = False) -> BlockFormat:
    return BlockFormat(name, element, block, block, block, Scale.E8M0, rule, stochastic=sr)


def _nv(name: str, *, block: tuple[int, int] = (1, 16), sr: bool = False) -> BlockFormat:
    return BlockFormat(name, E2M1, block, block, block, Scale.E4M3_FP32, Rule.NVIDIA, stochastic=sr)


def _fp8(name: str, tile: Tile, weight_tile: Tile) -> BlockFormat:
    return BlockFormat(name, E4M3, (1, 32), tile, weight_tile, Scale.FP32, Rule.AMAX)


_ROWS = (
    _mx("mxfp4", E2M1, Rule.EVEN),
    _mx("mxfp6_e2m3", E2M3, Rule.EVEN),
    _mx("mxfp6_e3m2", E3M2, Rule.EVEN),
    _mx("mxfp8_e4m3", E4M3, Rule.RCEIL),
    _mx("mxfp8_e5m2", E5M2, Rule.RCEIL),
    _mx("mxint8", INT8, Rule.FLOOR),
    _nv("nvfp4"),
    _mx("mxfp4_2d", E2M1, Rule.EVEN, block=(32, 32)),
    _nv("nvfp4_2d", block=(16, 16)),
    _mx("mxfp4_sr", E2M1, Rule.RCEIL, sr=True),  # a rule that clips would not be unbiased
    _nv("nvfp4_sr", sr=True),
    _fp8("fp8", (ALL, ALL), (ALL, ALL)),  # llm-compressor's FP8, ModelOpt's FP8
    _fp8("fp8_channel", (1, ALL), (1, ALL)),  # FP8_DYNAMIC: a row is an output channel, or a token
    _fp8("fp8_block", (1, 128), (128, 128)),  # FP8_BLOCK, DeepSeek-V3, Qwen3-FP8
)
FORMATS: dict[str, BlockFormat] = {fmt.name: fmt for fmt in _ROWS}
SYNONYMS: dict[str, str] = {"mxfp8": "mxfp8_e4m3"}


def parse(spec: str | BlockFormat) -> BlockFormat:
    """Turn `name` or `name:rule` into its format, e.g. "mxfp4:ocp" -> mxfp4 with rule floor. A format passes through.

    Raises FormatError for a name or rule that does not exist, naming those that do.
    """
    if isinstance(spec, BlockFormat):
        return spec
    if not isinstance(spec, str):
        raise FormatError(f"quant spec {spec!r}: expected a text such as mxfp4 or nvfp4:nvidia; see `srdd formats`")
    name, colon, rule_name = spec.strip().lower().partition(":")
    fmt = FORMATS.get(SYNONYMS.get(name, name))
    if fmt is None:
        known = ", ".join([*FORMATS, *SYNONYMS])
        near = did_you_mean(name, [*FORMATS, *SYNONYMS])
        raise FormatError(f"unknown format {name!r} in quant spec {spec!r}; known: {known}; see `srdd formats`{near}")
    if not colon:
        return fmt
    if rule_name == Rule.STORED:
        raise FormatError(
            f"quant spec {spec!r} names the codes of a checkpoint, which are measured where a packed checkpoint is "
            f"scanned with {setting('reference')}; expected a rule of {fmt.name}: {', '.join(fmt.rules)}"
        )
    rule = next((r for r in fmt.rules if r == _RULE_SYNONYMS.get(rule_name, rule_name)), None)
    if rule is None:
        names = [r.value for r in fmt.rules] + [s for s, r in _RULE_SYNONYMS.items() if r in fmt.rules]
        known, near = ", ".join(names), did_you_mean(rule_name, names)
        raise FormatError(f"unknown scale rule {rule_name!r} in quant spec {spec!r}; {fmt.name} knows: {known}{near}")
    return replace(fmt, rule=rule)


def stored(fmt: BlockFormat) -> BlockFormat:
    """The format as a checkpoint holds it, whoever chose its codes: "nvfp4:stored"."""
    return replace(fmt, rule=Rule.STORED)


def parse_measured(spec: str) -> BlockFormat:
    """As `parse`, of what a report names: "nvfp4:stored" too, which nothing can be quantized with."""
    name, _, rule = spec.partition(":")
    return stored(parse(name)) if rule == Rule.STORED else parse(spec)


def is_stored(spec: str) -> bool:
    """Whether a spec of a report names codes of a checkpoint, or several forms of a mixed one joined by "+"."""
    return all(part.endswith(f":{Rule.STORED}") for part in spec.split("+"))


def parse_list(specs: str | Iterable[str | BlockFormat]) -> tuple[BlockFormat, ...]:
    """Parse comma lists of specs, e.g. "mxfp4,nvfp4" or ["mxfp4,nvfp4", "mxfp8"] -> three formats, in the order given.

    Raises FormatError for an unknown spec, none at all, or the same format and rule twice (mxfp4 and mxfp4:even).
    """
    if not isinstance(specs, Iterable):
        raise FormatError(f"quant {specs!r}: expected a text such as mxfp4,nvfp4 or a list of specs")
    formats: dict[str, BlockFormat] = {}
    for given in [specs] if isinstance(specs, str) else specs:
        for spec in given.split(",") if isinstance(given, str) else (given,):
            if isinstance(spec, str) and not spec.strip():
                raise FormatError(f"empty quant spec in {given!r}; expected e.g. mxfp4,nvfp4:nvidia")
            fmt = parse(spec)
            if fmt.spec in formats:
                raise FormatError(f"quant spec {fmt.spec} is given twice; name each format and rule once")
            formats[fmt.spec] = fmt
    if not formats:
        raise FormatError("no quant spec given; expected e.g. mxfp4,nvfp4")
    return tuple(formats.values())


def bits_per_value(spec: str) -> float | None:
    """Storage per value of a format by its spec; None for one that this version does not know."""
    try:
        return parse_measured(spec).bits_per_value
    except FormatError:
        return None
