"""The rows of `srdd.core.formats` against the tables of the standards, and the spec strings that name them."""

import re

import pytest

from srdd.core.formats import (
    ALL,
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E5M2,
    ELEMENTS,
    FORMATS,
    INT8,
    SYNONYMS,
    Rule,
    Scale,
    parse,
    parse_list,
)
from srdd.errors import FormatError

MX_RULES = ("floor", "rceil", "ceil", "even", "even_m1")
NV_RULES = ("nvidia", "min_subnormal", "min_normal", "single_level")

# --- elements ---------------------------------------------------------------------------------------------------


def test_e2m1_magnitudes_are_the_eight_of_ocp_table_5():
    assert E2M1.magnitudes == (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def test_e3m2_magnitudes_are_the_thirty_two_of_the_standard():
    subnormal = (0.0, 0.0625, 0.125, 0.1875)
    normal = tuple(significand * 2.0**e for e in range(-2, 5) for significand in (1.0, 1.25, 1.5, 1.75))
    assert E3M2.magnitudes == subnormal + normal


@pytest.mark.parametrize(
    ("element", "count", "smallest", "smallest_normal", "second_largest", "largest"),
    [
        # count: 2^(bits - 1) codes without sign, less the codes of NaN and infinity
        pytest.param(E2M1, 8, 0.5, 1.0, 4.0, 6.0, id="E2M1"),
        pytest.param(E2M3, 32, 0.125, 1.0, 7.0, 7.5, id="E2M3"),
        pytest.param(E3M2, 32, 0.0625, 0.25, 24.0, 28.0, id="E3M2"),
        pytest.param(E4M3, 128 - 1, 2.0**-9, 2.0**-6, 416.0, 448.0, id="E4M3-one-nan"),
        pytest.param(E5M2, 128 - 4, 2.0**-16, 2.0**-14, 49152.0, 57344.0, id="E5M2-inf-three-nan"),
        pytest.param(INT8, 128, 1 / 64, 1.0, 126 / 64, 127 / 64, id="INT8"),
    ],
)
def test_element_grid(element, count, smallest, smallest_normal, second_largest, largest):
    grid = element.magnitudes
    assert len(grid) == count
    assert (grid[0], grid[1], grid[-2], grid[-1]) == (0.0, smallest, second_largest, largest)
    assert 2.0**element.emin == smallest_normal
    assert smallest_normal in grid
    assert list(grid) == sorted(set(grid))
    assert 2.0**element.emax <= element.max < 2.0 ** (element.emax + 1)


def test_int8_magnitudes_are_k_over_64():
    assert INT8.magnitudes == tuple(k / 64 for k in range(128))


def test_elements_lists_every_element_of_every_format():
    assert {row.element for row in FORMATS.values()} <= set(ELEMENTS)
    assert [e.name for e in ELEMENTS] == ["E2M1", "E2M3", "E3M2", "E4M3", "E5M2", "INT8"]
    assert [e.bits for e in ELEMENTS] == [4, 6, 6, 8, 8, 8]


# --- block formats ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "element", "block", "scale", "rule", "bits", "stochastic"),
    [
        pytest.param(*row, id=row[0])
        for row in (
            # bits = element bits + 8 / block size; of fp8 + 32 / a weight's tile
            ("mxfp4", E2M1, (1, 32), Scale.E8M0, Rule.EVEN, 4.25, False),
            ("mxfp6_e2m3", E2M3, (1, 32), Scale.E8M0, Rule.EVEN, 6.25, False),
            ("mxfp6_e3m2", E3M2, (1, 32), Scale.E8M0, Rule.EVEN, 6.25, False),
            ("mxfp8_e4m3", E4M3, (1, 32), Scale.E8M0, Rule.RCEIL, 8.25, False),
            ("mxfp8_e5m2", E5M2, (1, 32), Scale.E8M0, Rule.RCEIL, 8.25, False),
            ("mxint8", INT8, (1, 32), Scale.E8M0, Rule.FLOOR, 8.25, False),
            ("nvfp4", E2M1, (1, 16), Scale.E4M3_FP32, Rule.NVIDIA, 4.5, False),
            ("mxfp4_2d", E2M1, (32, 32), Scale.E8M0, Rule.EVEN, 4.0078125, False),
            ("nvfp4_2d", E2M1, (16, 16), Scale.E4M3_FP32, Rule.NVIDIA, 4.03125, False),
            ("mxfp4_sr", E2M1, (1, 32), Scale.E8M0, Rule.RCEIL, 4.25, True),
            ("nvfp4_sr", E2M1, (1, 16), Scale.E4M3_FP32, Rule.NVIDIA, 4.5, True),
            ("fp8", E4M3, (1, 32), Scale.FP32, Rule.AMAX, 8.0, False),
            ("fp8_channel", E4M3, (1, 32), Scale.FP32, Rule.AMAX, 8.0, False),
            ("fp8_block", E4M3, (1, 32), Scale.FP32, Rule.AMAX, 8 + 32 / 128**2, False),
        )
    ],
)
def test_row_and_its_default_rule(name, element, block, scale, rule, bits, stochastic):
    row = parse(name)
    assert (row.element, row.block, row.scale, row.rule, row.stochastic) == (element, block, scale, rule, stochastic)
    assert row.block_size == block[0] * block[1]
    assert row.bits_per_value == bits


def test_table_of_formats_is_complete():
    assert list(FORMATS) == [
        *("mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "nvfp4"),
        *("mxfp4_2d", "nvfp4_2d", "mxfp4_sr", "nvfp4_sr"),
        *("fp8", "fp8_channel", "fp8_block"),
    ]


@pytest.mark.parametrize("row", FORMATS.values(), ids=lambda row: row.name)
def test_a_scale_is_for_the_block_but_for_float32_scales(row):
    if not row.name.startswith("fp8"):
        assert row.tile == row.weight_tile == row.block
        assert row.for_weights is row
    assert row.for_weights.tile == row.weight_tile
    assert row.for_weights.for_weights == row.for_weights
    assert (row.for_weights.spec, row.for_weights.bits_per_value) == (row.spec, row.bits_per_value)


@pytest.mark.parametrize(
    ("name", "tile", "weight_tile", "multiple", "of_tensor"),
    [
        pytest.param("fp8", (ALL, ALL), (ALL, ALL), (1, 1), True, id="fp8"),
        pytest.param("fp8_channel", (1, ALL), (1, ALL), (1, 1), False, id="fp8_channel"),
        pytest.param("fp8_block", (1, 128), (128, 128), (1, 128), False, id="fp8_block"),
        pytest.param("mxfp4_2d", (32, 32), (32, 32), (32, 32), False, id="mxfp4_2d"),
        pytest.param("nvfp4", (1, 16), (1, 16), (1, 16), True, id="nvfp4"),
        pytest.param("nvfp4:single_level", (1, 16), (1, 16), (1, 16), False, id="single_level"),
    ],
)
def test_how_far_a_scale_reaches(name, tile, weight_tile, multiple, of_tensor):
    row = parse(name)
    assert (row.tile, row.weight_tile, row.multiple, row.has_tensor_scale) == (tile, weight_tile, multiple, of_tensor)


@pytest.mark.parametrize("row", FORMATS.values(), ids=lambda row: row.name)
def test_every_row_round_trips_through_its_spec_with_every_rule(row):
    assert parse(row.name) == row
    assert parse(row.spec) == row
    for rule in row.rules:
        other = parse(f"{row.name}:{rule.value}")
        assert other.rule is rule
        assert other.spec == f"{row.name}:{rule.value}"
        assert parse(other.spec) == other
        assert (other.element, other.block, other.scale, other.stochastic, other.name) == (
            *(row.element, row.block, row.scale, row.stochastic),
            row.name,
        )


@pytest.mark.parametrize("row", FORMATS.values(), ids=lambda row: row.name)
def test_rules_belong_to_the_kind_of_scale(row):
    expected = {"nv": NV_RULES, "fp": ("amax",)}.get(row.name[:2], MX_RULES)
    assert tuple(rule.value for rule in row.rules) == expected


@pytest.mark.parametrize("rule", MX_RULES)
def test_never_clips_is_true_of_rceil_and_ceil_alone_under_e2m1(rule):
    assert parse(f"mxfp4:{rule}").never_clips == (rule in ("rceil", "ceil"))


@pytest.mark.parametrize("name", ["mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8"])
@pytest.mark.parametrize("rule", MX_RULES)
def test_never_clips_is_true_of_even_m1_too_where_the_element_reaches_1_75(name, rule):
    # even_m1 takes one exponent more from significand 1.75 on, which every element but E2M1 holds
    assert parse(f"{name}:{rule}").never_clips == (rule in ("rceil", "ceil", "even_m1"))


@pytest.mark.parametrize("rule", NV_RULES)
def test_two_level_scales_can_always_clip(rule):
    assert not parse(f"nvfp4:{rule}").never_clips  # s_b is rounded, half of the time down


@pytest.mark.parametrize("name", ["fp8", "fp8_channel", "fp8_block"])
def test_a_scale_from_the_amax_of_its_tile_never_clips(name):
    assert parse(name).never_clips


# --- parse ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("mxfp4", "mxfp4:even"),
        ("mxfp4:ocp", "mxfp4:floor"),
        ("mxfp8", "mxfp8_e4m3:rceil"),
        ("mxfp8:ocp", "mxfp8_e4m3:floor"),
        ("mxfp8:even_m1", "mxfp8_e4m3:even_m1"),
        ("  MXFP4:Floor ", "mxfp4:floor"),
        ("nvfp4:min_normal", "nvfp4:min_normal"),
    ],
)
def test_parse_gives_the_canonical_spec(spec, canonical):
    assert parse(spec).spec == canonical


def test_parse_passes_a_row_through():
    row = parse("mxfp4:rceil")
    assert parse(row) is row


@pytest.mark.parametrize("spec", ["mxfp5", "", "mxfp4 :even", "fp4:floor", ":floor"])
def test_unknown_format_names_the_known_ones(spec):
    with pytest.raises(FormatError, match="unknown format") as caught:
        parse(spec)
    message = str(caught.value)
    assert repr(spec) in message
    for name in [*FORMATS, *SYNONYMS]:
        assert re.search(rf"\b{name}\b", message)


@pytest.mark.parametrize("spec", ["mxfp4:up", "mxfp4:", "mxfp4:nvidia", "mxfp8:even:x"])
def test_unknown_mx_rule_names_the_known_ones(spec):
    with pytest.raises(FormatError, match="unknown scale rule") as caught:
        parse(spec)
    message, _, meant = str(caught.value).partition("; did you mean ")
    assert message.endswith("knows: floor, rceil, ceil, even, even_m1, ocp")
    assert meant == ("even?" if spec == "mxfp8:even:x" else "")
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize("spec", ["nvfp4:floor", "nvfp4:ocp", "nvfp4_2d:even"])
def test_unknown_nvfp4_rule_names_the_known_ones_and_not_ocp(spec):
    with pytest.raises(FormatError, match="unknown scale rule") as caught:
        parse(spec)
    assert str(caught.value).endswith("knows: nvidia, min_subnormal, min_normal, single_level")


# --- parse_list -------------------------------------------------------------------------------------------------


def test_parse_list_keeps_order_over_commas_repeats_and_rows():
    rows = parse_list(["nvfp4, mxfp8", "mxfp4:floor", parse("mxint8")])
    assert [row.spec for row in rows] == ["nvfp4:nvidia", "mxfp8_e4m3:rceil", "mxfp4:floor", "mxint8:floor"]


def test_parse_list_takes_one_format_with_two_rules():
    assert [row.spec for row in parse_list(["mxfp4:floor,mxfp4:even"])] == ["mxfp4:floor", "mxfp4:even"]


@pytest.mark.parametrize(
    ("specs", "twice"),
    [
        pytest.param(["mxfp4,mxfp4"], "mxfp4:even", id="same"),
        pytest.param(["mxfp4", "mxfp4:even"], "mxfp4:even", id="default-named"),
        pytest.param(["mxfp8", "mxfp8_e4m3"], "mxfp8_e4m3:rceil", id="synonym"),
        pytest.param(["mxfp4:ocp,mxfp4:floor"], "mxfp4:floor", id="rule-synonym"),
        pytest.param([parse("nvfp4"), "nvfp4"], "nvfp4:nvidia", id="row-and-string"),
    ],
)
def test_parse_list_refuses_the_same_format_and_rule_twice(specs, twice):
    with pytest.raises(FormatError, match=f"{twice} is given twice"):
        parse_list(specs)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        pytest.param([], "no quant spec given", id="nothing"),
        pytest.param([""], "empty quant spec", id="empty-string"),
        pytest.param(["mxfp4,"], "empty quant spec", id="trailing-comma"),
        pytest.param(["mxfp4, ,nvfp4"], "empty quant spec", id="blank-between"),
        pytest.param(["mxfp4,mxfp5"], "unknown format 'mxfp5'", id="unknown-among-known"),
    ],
)
def test_parse_list_refuses(specs, message):
    with pytest.raises(FormatError, match=message):
        parse_list(specs)
