"""Faults as text: what is read, what is refused, and that the text of a fault is read as that fault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srdd.core.faults import KINDS, Fault, parse_fault
from srdd.errors import SettingError


def test_texts() -> None:
    assert parse_fault("layer=10,deadzone=0.01") == Fault(10, "deadzone", 0.01)
    given = "layer=3, module=mlp.down_proj, noise=5e-2, at=input, steps=prefill, seed=4"
    assert parse_fault(given) == Fault(3, "noise", 0.05, "mlp.down_proj", "input", "prefill", 4)
    assert parse_fault("dead-channel=2,layer=0") == Fault(0, "dead_channel", 2)
    assert parse_fault("dead_head=1,layer=0") == Fault(0, "dead_head", 1, at="input")
    assert Fault(1, "bias", -0.5, "mlp", "weight").place == "weight of layer 1 mlp"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' not understood"),
        ("10", "'10' not understood"),
        ("layer=1", "expected a layer and one kind"),
        ("deadzone=0.1", "expected a layer and one kind"),
        ("layer=1,deadzone=0.1,bias=1", "expected a layer and one kind"),
        ("layer=1,deadzone=0.1,deadzone=0.2", "not understood"),
        ("layer=x,deadzone=0.1", "are numbers"),
        ("layer=1,deadzon=0.1", "did you mean deadzone"),
        ("layer=-1,deadzone=0.1", "count from 0"),
        ("layer=1,deadzone=0", "a number between 0 and 1"),
        ("layer=1,deadzone=1", "a number between 0 and 1"),
        ("layer=1,deadzone=nan", "a number between 0 and 1"),
        ("layer=1,noise=inf", "a number above 0"),
        ("layer=1,noise=-1", "a number above 0"),
        ("layer=1,bias=0", "a finite number other than 0"),
        ("layer=1,dead_channel=1.5", "a whole number from 1"),
        ("layer=1,dead_channel=inf", "a whole number from 1"),
        ("layer=1,deadzone=0.1,at=middle", "at is one of weight, input, output"),
        ("layer=1,deadzone=0.1,steps=some", "steps is one of all, prefill"),
        ("layer=1,deadzone=0.1,at=weight", "name the module"),
        ("layer=1,module=mlp,deadzone=0.1,at=weight,steps=prefill", "leave steps out"),
        ("layer=1,dead_head=1,at=output", "leave at out"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_fault(text, "fault")
    assert str(caught.value).startswith("fault=")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.integers(0, 999),
    st.sampled_from([kind for kind in KINDS.values() if kind.name != "dead_head"]),
    st.floats(0.001, 0.999),
    st.integers(1, 9),
    st.sampled_from([None, "mlp", "self_attn.q_proj"]),
    st.sampled_from(["input", "output"]),
    st.sampled_from(["all", "prefill"]),
    st.integers(0, 99),
)
def test_a_fault_is_read_from_its_own_text(layer, kind, share, count, module, at, steps, seed) -> None:  # type: ignore[no-untyped-def]
    size = float(count) if kind.whole else float(f"{share:g}")
    fault = Fault(layer, kind.name, size, module, at, steps, seed)
    assert parse_fault(str(fault)) == fault
