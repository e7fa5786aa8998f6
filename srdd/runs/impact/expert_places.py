"""Which tokens of a sequence each expert gets, where every expert is a module of its own.

Not here: experts that are fused in one module, whose call says it (routed.py). A mixture hands an expert some rows of
its own input: they are looked up in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from srdd.models.wrapped import named_modules
from srdd.runs.impact.routed import expert_of, places


class ExpertPlaces:
    """Watches the mixtures and experts that `names`, Linears of a model, are in."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        modules = dict(named_modules(model))
        experts = {place[0] for name in names if (place := expert_of(name))}
        self._experts = {name: modules[name] for name in experts}
        self._mixtures = {name: modules[name] for name in {_mixture_of(expert) for expert in experts}}
        self._rows: dict[str, Tensor] = {}  # that each mixture got, [rows, features]
        self._places: dict[str, Tensor | None] = {}

    def of(self, expert: str) -> Tensor | None:
        """Where its rows stand among those of its mixture in the sequence at hand; None where that is not known."""
        return self._places.get(expert)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """For one sequence, whose places are known inside the block."""
        hooks = [(module, self._mixture(name)) for name, module in self._mixtures.items()]
        hooks += [(module, self._expert(name)) for name, module in self._experts.items()]
        handles = [module.register_forward_pre_hook(hook) for module, hook in hooks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._rows.clear()
            self._places.clear()

    def _mixture(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._rows[name] = args[0].detach().flatten(0, -2)

        return hook

    def _expert(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            among = self._rows.get(_mixture_of(name))
            self._places[name] = None if among is None else places(args[0].detach().flatten(0, -2), among)

        return hook


def _mixture_of(expert: str) -> str:
    return expert.rpartition(".experts.")[0]
