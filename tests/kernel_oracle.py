"""An oracle for the reference kernel in another style: codes decoded from bits, exact midpoints, a list of powers."""

import itertools
import math
from fractions import Fraction

import numpy as np
import torch

from srdd.core.formats import FORMATS, parse
from srdd.core.tally import Tally
from srdd.kernels.reference import measure, quant_dequant

F32 = np.float32
SPECS = [f"{row.name}:{rule.value}" for row in FORMATS.values() for rule in row.rules]
DETERMINISTIC = [spec for spec in SPECS if not parse(spec).stochastic]
# One MX format per element: what the element does is the same in the 2-D and stochastic rows.
MX_OF_ELEMENT = {
    "E2M1": "mxfp4",
    "E2M3": "mxfp6_e2m3",
    "E3M2": "mxfp6_e3m2",
    "E4M3": "mxfp8_e4m3",
    "E5M2": "mxfp8_e5m2",
    "INT8": "mxint8",
}


def qd(values, spec, **options):
    """quant_dequant of anything array-like in float32, back as numpy float32."""
    return quant_dequant(torch.as_tensor(np.asarray(values, dtype=F32)), spec, **options).numpy()


def tally(values, spec, **options):
    return Tally.from_vector(measure(torch.as_tensor(np.asarray(values, dtype=F32)), spec, **options).tolist())


def assert_same_bits(got, expected):
    """Equal, the sign of zero included, NaN where NaN."""
    got, expected = np.asarray(got, dtype=F32), np.asarray(expected, dtype=F32)
    np.testing.assert_array_equal(got, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(expected)[number])


def below(value):
    return float(np.nextafter(F32(value), F32(-np.inf)))


def above(value):
    return float(np.nextafter(F32(value), F32(np.inf)))


# --- an oracle in another style: a table of codes decoded from bits, exact midpoints, a list of powers of two ----


def decode(exponent_bits, mantissa_bits, bias, codes):
    """The value of every code without sign, from the definition of a floating-point number."""
    values = []
    for code in range(codes):
        e, m = divmod(code, 2**mantissa_bits)
        tail = Fraction(m, 2**mantissa_bits)
        values.append(tail * Fraction(2) ** (1 - bias) if e == 0 else (1 + tail) * Fraction(2) ** (e - bias))
    return values


CODES = {
    "E2M1": decode(2, 1, 1, 8),
    "E2M3": decode(2, 3, 1, 32),
    "E3M2": decode(3, 2, 3, 32),
    "E4M3": decode(4, 3, 7, 127),  # the last code is NaN
    "E5M2": decode(5, 2, 15, 124),  # the last exponent is infinity and NaN
    "INT8": [Fraction(k, 64) for k in range(128)],
}
TABLE = {name: np.array([float(v) for v in values]) for name, values in CODES.items()}
MIDPOINTS = {
    name: np.array([float((lo + hi) / 2) for lo, hi in itertools.pairwise(values)]) for name, values in CODES.items()
}
EMAX = {"E2M1": 2, "E2M3": 2, "E3M2": 4, "E4M3": 8, "E5M2": 15, "INT8": 0}
MANTISSA = {"E2M1": 1, "E2M3": 3, "E3M2": 2, "E4M3": 3, "E5M2": 2, "INT8": 6}
POWERS = np.array([2.0**e for e in range(-160, 161)])  # POWERS[i] is 2^(i - 160), exact in float64


def nearest(magnitude, element):
    """The nearest code by its place among the midpoints; on a midpoint the even code."""
    code = np.searchsorted(MIDPOINTS[element], magnitude, side="left")
    tie = MIDPOINTS[element][np.minimum(code, len(MIDPOINTS[element]) - 1)] == magnitude
    return TABLE[element][code + (tie & (code % 2 == 1))]


def oracle_exponent(amax, element, rule):
    """The shared exponent by searching a list of powers of two. amax: a positive python float."""
    if rule in ("even", "even_m1"):
        bits = 1 if rule == "even_m1" else MANTISSA[element]
        lead = POWERS[np.searchsorted(POWERS, amax, side="right") - 1]
        amax = math.floor(amax / lead * 2**bits + 0.5) / 2**bits * lead  # half up to that many bits
    if rule == "rceil":
        i = np.searchsorted(POWERS * TABLE[element][-1], amax, side="left")
        return min(max(int(i) - 160, -127), 127)
    if rule == "ceil":
        i = np.searchsorted(POWERS, amax, side="left")
    else:
        i = np.searchsorted(POWERS, amax, side="right") - 1
    return min(max(int(i) - 160 - EMAX[element], -127), 127)


def oracle_two_level_scale(amax, gmax, rule):
    """d in float32, one step a line."""
    s_t = F32(1) if rule == "single_level" else F32(F32(gmax) / F32(2688))
    if s_t == 0:
        return F32(0)
    wanted = F32(F32(F32(amax) / F32(6)) / s_t)
    wanted = max(wanted, {"nvidia": F32(0), "min_subnormal": F32(2**-9)}.get(rule, F32(2**-6)))
    s_b = F32(nearest(min(float(wanted), 448.0), "E4M3"))
    return F32(s_b * s_t)


def tiles_of(shape, block):
    """Slices of every tile of the last two axes, short where the axis ends."""
    rows, columns = block
    for lead in itertools.product(*(range(n) for n in shape[:-2])):
        for r in range(0, shape[-2], rows):
            for c in range(0, shape[-1], columns):
                yield (*lead, slice(r, r + rows), slice(c, c + columns))


def largest_of_tiles(x, tile):
    """The largest finite magnitude of each element's tile; a tile wider than x ends where x does."""
    size = np.where(np.isfinite(x), np.abs(x), F32(0))
    if tile == (math.inf, math.inf):
        return np.full(x.shape, size.max(initial=0), dtype=F32)
    largest = np.zeros(x.shape, dtype=F32)
    for part in tiles_of(x.shape, tuple(int(min(side, n)) for side, n in zip(tile, x.shape[-2:], strict=True))):
        largest[part] = size[part].max()
    return largest


def oracle(x, spec):
    """Of a float32 array of two axes or more, in float64: what it becomes, and each element's scale and limit."""
    row = parse(spec)
    element, rule = row.element.name, row.rule.value
    q, scale, limit = np.zeros(x.shape), np.ones(x.shape), np.ones(x.shape)  # a block of zeros has any scale
    gmax = np.abs(x[np.isfinite(x)]).max(initial=0)
    largest = largest_of_tiles(x, row.tile) if row.name.startswith("fp8") else None
    for tile in tiles_of(x.shape, row.block):
        values = x[tile]
        amax = float(np.abs(values).max())
        if not math.isfinite(amax):
            q[tile] = np.nan
        elif largest is not None:
            scale[tile] = d = largest[tile].flat[0] / F32(448)
            limit[tile] = F32(448) * d
            if d > 0:
                codes = nearest(np.minimum(np.abs(values) / d, F32(448)).astype(np.float64), "E4M3")
                q[tile] = codes.astype(F32) * d
        elif row.name.startswith("nv"):
            d = oracle_two_level_scale(amax, gmax, rule)
            scale[tile], limit[tile] = d, F32(6) * d
            if d > 0:
                q[tile] = nearest((np.abs(values) / d).astype(np.float64), element).astype(F32) * d
        elif amax > 0:
            scale[tile] = 2.0 ** oracle_exponent(amax, element, rule)
            limit[tile] = TABLE[element][-1] * scale[tile]
            q[tile] = nearest(np.abs(values.astype(np.float64)) / scale[tile], element) * scale[tile]
    return np.copysign(q, x), scale, limit


def oracle_tally(x, q, limit, *, rounded_down=False):
    """The sums of `srdd.core.tally` in float64, from x, q and each block's largest value.

    `rounded_down`: a float32 scale may be so, and what is above the limit by a rounding is not clipped.
    """
    bad = np.isnan(q)
    held = (limit.astype(F32) * F32(1 + 2.0**-22)).astype(np.float64)[~bad] if rounded_down else limit[~bad]
    x64, q, limit = x.astype(np.float64)[~bad], q[~bad], limit[~bad]
    e = q - x64
    dead = (x64 != 0) & (q == 0)
    clipped = (limit > 0) & (np.abs(x64) > held)
    size = np.abs(x64)
    return {
        "n": size.size,
        "nonzero": np.count_nonzero(size),
        "deadzone": dead.sum(),
        "clipped": clipped.sum(),
        "at_max": ((limit > 0) & (np.abs(q) == limit)).sum(),
        "nonfinite": (~np.isfinite(x)).sum(),
        "excluded": bad.sum(),
        "sum_x": math.fsum(x64),
        "sum_x2": math.fsum(x64**2),
        "sum_x4": math.fsum(x64**4),
        "sum_e": math.fsum(e),
        "sum_e2": math.fsum(e**2),
        "sum_e2_clipped": math.fsum(e[clipped] ** 2),
        "sum_e2_deadzone": math.fsum(x64[dead] ** 2),
        "sum_abs_x": math.fsum(size),
        "sum_abs_e": math.fsum(np.abs(e)),
        "sum_rel": math.fsum(np.abs(e[size > 0]) / size[size > 0]),
        "sum_q2": math.fsum(q**2),
        "sum_xq": math.fsum(x64 * q),
        "max_abs_x": size.max(initial=0),
        "max_abs_e": np.abs(e).max(initial=0),
        "zero_scale": ((limit == 0) & (size > 0)).sum(),
    }


FAR = (-146, -140, -127, -100, -30, -3, 0, 4, 30, 100, 118)
NEAR = (-3, 0, 2)


def wild(seed, shape, row_exponents=FAR):
    """Random numbers whose exponents differ between elements and, up to the far ends of float32, between rows."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * 2.0 ** rng.integers(-12, 3, shape)
    x *= 2.0 ** rng.choice(row_exponents, (*shape[:-1], 1))
    fraction, exponent = np.frexp(x)
    coarse = np.ldexp(np.round(fraction * 16) / 16, exponent)  # few significant bits: ties and powers of two happen
    x = np.where(rng.random(shape) < 0.4, coarse, x)
    x = np.where(rng.random(shape) < 0.1, np.copysign(0.0, x), x)
    return np.clip(x, -(2.0**126), 2.0**126).astype(F32)


def seeded(seed):
    return torch.Generator().manual_seed(seed)
