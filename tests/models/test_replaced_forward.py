"""Forwards replaced inside a block: put back as they were, in the right order, and not copied meanwhile."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from srdd.errors import BusyError
from srdd.models.replaced_forward import Forward, ReplacedForward
from srdd.models.stack import LayerCall, LayerStack

X = torch.ones(1, 2)


def own_forward(x: Tensor) -> Tensor:
    return x + 1


@pytest.fixture
def modules() -> dict[str, nn.Module]:
    """One with a forward of its own, as accelerate leaves it, and one without."""
    found = {"plain": nn.Identity(), "own": nn.Identity()}
    found["own"].forward = own_forward  # type: ignore[method-assign]
    return found


def as_found(modules: dict[str, nn.Module]) -> bool:
    return "forward" not in modules["plain"].__dict__ and modules["own"].__dict__["forward"] is own_forward


def tenfold(name: str, forward: Forward) -> Forward:
    return lambda x: 10 * forward(x)


def test_each_calls_what_was_there_and_is_put_back(modules: dict[str, nn.Module]) -> None:
    with ReplacedForward(modules, tenfold), ReplacedForward(modules, tenfold):
        assert [module(X)[0, 0].item() for module in modules.values()] == [100, 200]
    assert as_found(modules)
    with pytest.raises(RuntimeError, match="stop"), ReplacedForward(modules, tenfold):
        raise RuntimeError("stop")
    assert as_found(modules)


def test_a_stand_in_that_cannot_be_made_leaves_nothing_behind(modules: dict[str, nn.Module]) -> None:
    def only_plain(name: str, forward: Forward) -> Forward:
        if name == "own":
            raise RuntimeError("stop")
        return forward

    block = ReplacedForward(modules, only_plain)
    with pytest.raises(RuntimeError, match="stop"):
        block.__enter__()
    assert as_found(modules)
    with pytest.raises(BusyError, match="not active"):
        block.__exit__(None, None, None)


def test_blocks_end_in_reverse_order(modules: dict[str, nn.Module]) -> None:
    outer, inner = ReplacedForward(modules, tenfold, "scored"), ReplacedForward(modules, tenfold)
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(BusyError, match=r"plain and 1 more .* leave the inner block first .* still scored"):
        outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    outer.__exit__(None, None, None)
    assert as_found(modules)


def test_a_model_is_not_copied_while_its_layers_are_visited(tiny_llama: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_llama).eval()

    def visitor(call: LayerCall) -> object:
        with pytest.raises(BusyError, match=r"the model is being measured, .* copy it outside the block"):
            copy.deepcopy(model)
        return call.output(call.hidden)

    ids = torch.zeros(1, 4, dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(LayerStack(model).visit(ids, visitor).logits, model(ids).logits)
    copy.deepcopy(model)
