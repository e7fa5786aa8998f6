"""Rules of the audit on facts made by hand: where each begins, and what orders of rows are called."""

import random

import pytest

from srdd.analysis.audit import findings
from srdd.analysis.audit.facts import Codes, Compared, Facts, Module, Permuted, Scales, TensorScale
from srdd.analysis.audit.orders import named

FULL = Codes(4, (16,) * 256)  # 4096 bytes, every one as often


def module(name: str = "model.layers.0.mlp.up_proj", **more: object) -> Module:
    given: dict[str, object] = {
        "form": "NVFP4", "family": "NVFP4", "shape": (64, 128), "role": name.rpartition(".")[2], "values": 8192,
        "sum_x2": 8192 * 0.02**2, "codes": FULL,
    }  # fmt: skip
    return Module(name=name, **{**given, **more})  # type: ignore[arg-type]


def kinds(*modules: Module, **more: object) -> list[tuple[str, str]]:
    return [(f.level, f.kind) for f in findings(Facts(tuple(modules), **more))]  # type: ignore[arg-type]


def nv(at_top: int) -> Scales:
    return Scales("m.weight_scale", "F8_E4M3", 1000, at_top=at_top, low=1.0, high=448.0)


@pytest.mark.parametrize(
    ("at_top", "found"),
    [(1, []), (20, []), (21, [("warning", "scales")]), (250, [("warning", "scales")]), (251, [("error", "scales")])],
)
def test_saturation_begins_at_2_and_fails_at_25_percent(at_top: int, found: list[tuple[str, str]]) -> None:
    assert kinds(module(scales=nv(at_top))) == found


@pytest.mark.parametrize(("zero", "level"), [(1, "warning"), (499, "warning"), (500, "error")])
def test_zero_scales_over_codes(zero: int, level: str) -> None:
    scales = Scales("m.weight_scale", "F8_E4M3", 1000, zero=zero, zero_over_codes=zero, low=1.0, high=2.0)
    assert kinds(module(scales=scales)) == [(level, "scales")]
    assert kinds(module(scales=Scales("m.weight_scale", "F8_E4M3", 1000, zero=zero, low=1.0, high=2.0))) == []


@pytest.mark.parametrize(("ratio", "found"), [(1.0, []), (1.0009, []), (1.002, [("error", "tensor scales")])])
def test_tensor_scales_are_equal_to_a_thousandth(ratio: float, found: list[tuple[str, str]]) -> None:
    def shard(name: str, value: float) -> Module:
        scale = TensorScale(f"{name}.weight_scale_2", (value,), divides=False)
        return module(f"m.{name}", matrix="m.qkv", tensor_scale=scale)

    assert kinds(shard("q_proj", 1e-4), shard("k_proj", 1e-4 * ratio)) == found


def test_every_byte_is_needed_only_where_there_are_enough() -> None:
    unsigned = [count if byte & 0x88 == 0 else 0 for byte, count in enumerate(FULL.by_byte)]
    assert kinds(module(codes=Codes(4, tuple(unsigned)))) == [("error", "codes")]
    few = [count // 16 for count in unsigned]  # 64 bytes
    assert kinds(module(codes=Codes(4, tuple(few)))) == []


@pytest.mark.parametrize(("times", "level"), [(1.0, None), (60.0, None), (70.0, "warning"), (1100.0, "error")])
def test_a_module_beside_its_siblings(times: float, level: str | None) -> None:
    modules = [module(f"model.layers.{layer}.mlp.up_proj", layer=layer) for layer in range(5)]
    odd = module("model.layers.5.mlp.up_proj", layer=5, sum_x2=8192 * (0.02 * times) ** 2)
    assert kinds(*modules, odd) == ([] if level is None else [(level, "size")])


@pytest.mark.parametrize(
    ("error2", "product", "wrong", "is_found"),
    [(0.01, 1.0, 0, False), (0.24, 1.0, 0, False), (0.26, 1.0, 0, True), (0.01, 1.0, 1, True), (0.06, 1.26, 0, True),
     (0.06, 0.79, 0, True), (0.04, 0.81, 0, False)],
)  # fmt: skip
def test_where_a_matrix_is_off(error2: float, product: float, wrong: int, is_found: bool) -> None:
    matrix = Compared("m", (64, 128), 1.0, 1.0, error2, product, wrong)
    assert bool(kinds(module(), compared=(matrix,))) is is_found


def test_errors_come_first() -> None:
    scales = Scales("m.weight_scale", "F8_E4M3", 1000, nan=1, zero=1, zero_over_codes=1, low=1.0, high=2.0)
    levels = [level for level, _ in kinds(module(scales=scales), unclaimed={"a": "b"})]
    assert levels == sorted(levels)
    assert set(levels) == {"error", "warning"}


def test_nothing_at_all_is_no_finding() -> None:
    assert findings(Facts(())) == []


# --- orders of rows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ([4, 5, 6, 7, 0, 1, 2, 3], "the two halves swapped"),
        ([0, 2, 4, 6, 1, 3, 5, 7], "even rows first, then odd ones (interleaved in the reference)"),
        ([0, 4, 1, 5, 2, 6, 3, 7], "its halves interleaved (one after the other in the reference)"),
        ([7, 6, 5, 4, 3, 2, 1, 0], "in reverse"),
        ([3, 4, 5, 6, 7, 0, 1, 2], "shifted by 3"),
        ([0, 2, 1, 3, 4, 6, 5, 7], "in each 4 rows, even rows first, then odd ones (interleaved in the reference)"),
        ([1, 0, 2, 3, 4, 5, 6, 7], "2 of 8 rows in other places: row 0 is its row 1, row 1 is its row 0"),
        ([1, 2, 3, 0, 4, None, 6, 7], "4 of 8 rows in other places: row 0 is its row 1, row 1 is its row 2, "
         "row 2 is its row 3, ..."),
    ],
)  # fmt: skip
def test_orders_have_names(order: list[int | None], words: str) -> None:
    assert named(order) == words


def test_a_random_order_has_no_name() -> None:
    order: list[int | None] = list(range(128))
    random.Random(3).shuffle(order)
    assert "rows in other places" in named(order)


def test_an_order_is_said_of_the_matrix() -> None:
    permuted = Permuted((1, 0, *range(2, 64)))
    matrix = Compared("m", (64, 128), 1.0, 1.0, 0.1, 0.95, 2, permuted=permuted)
    (finding,) = findings(Facts((module(),), compared=(matrix,)))
    assert "row 0 is its row 1" in finding.found
