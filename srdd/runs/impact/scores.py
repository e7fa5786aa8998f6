"""Squared products g . d of everything that is predicted, by sequence.

Not here: the products (fisher.py). Products at the same position add up before they are squared, for a fusion group, an
expert or a layer; at different positions they are squared first (`diagonal`), or not (`sum`).

Worked number: two Linears with products 0.2 and -0.1 at one position and 0.1 and 0.1 at the next: diagonal
(0.1^2 + 0.2^2) / 2 = 0.025 for their group, 0.035 for the two by themselves.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from srdd.runs.impact.routed import expert_of

K = TypeVar("K", bound=Hashable)
ByExpert = tuple[str, str, str, int]  # format, mode, module, expert


@dataclass(frozen=True)
class Product:
    """g . d of one module, or of a layer's own output, at every row of a sequence, [1, rows]."""

    spec: str
    mode: str
    of: str | int  # a module, or a layer whose output was measured
    values: Tensor
    rows: str | None = None  # what the rows are, if not the positions of the sequence


@dataclass
class Score:
    """Predicted KL summed over a sequence's tokens, one entry per sequence."""

    diagonal: list[float] = field(default_factory=list)
    sum: list[float] = field(default_factory=list)


class Table(dict[K, Score], Generic[K]):
    """Scores by key. A sequence in which a key does not occur (an expert without tokens) costs it nothing."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self._samples, self._sequences = samples, 0

    def add(self, key: K, diagonal: float, whole: float) -> None:
        """To the sequence at hand, the mean over label samples."""
        score = self.setdefault(key, Score())
        missing = self._sequences + 1 - len(score.diagonal)
        score.diagonal += [0.0] * missing
        score.sum += [0.0] * missing
        score.diagonal[-1] += diagonal / self._samples
        score.sum[-1] += whole / self._samples

    def end_sequence(self) -> None:
        self._sequences += 1
        for score in self.values():
            missing = self._sequences - len(score.diagonal)
            score.diagonal += [0.0] * missing
            score.sum += [0.0] * missing


class Scores:
    """All scores of a run: `units` are the fusion groups of modules that are in one, `layers` the layers' names."""

    def __init__(self, layers: Sequence[str], units: Mapping[str, str], samples: int) -> None:
        self._layers, self._units = layers, units
        self.modules = Table[tuple[str, str, str]](samples)
        self.groups = Table[tuple[str, str, str]](samples)  # products of a group's modules added, then squared
        self.experts = Table[ByExpert](samples)
        self.layer_sums = Table[tuple[str, str, int]](samples)  # products of a layer's modules added, then squared
        self.layers = Table[tuple[str, str, int]](samples)  # of the layer's own output error
        self.traces = Table[str](samples)  # squared lengths of gradients of weights, by parameter
        self.tokens: dict[tuple[str, int], dict[str, int]] = {}  # of an expert, as each of its modules got them
        self._tables: list[Table[Any]] = [
            self.modules, self.groups, self.experts, self.layer_sums, self.layers, self.traces
        ]  # fmt: skip

    def got(self, expert: tuple[str, int], module: str, count: int) -> None:
        """An expert's module got so many tokens."""
        counts = self.tokens.setdefault(expert, {})
        counts[module] = counts.get(module, 0) + count

    def add(self, products: Sequence[Product]) -> None:
        """The products of a backward pass."""
        joint: dict[tuple[int, Any], dict[str | None, Tensor]] = {}
        for at, product in enumerate(products):
            joint[-1, at] = {None: product.values}
            for which, key in enumerate(self._parts(product)):
                if key is not None:
                    rows = joint.setdefault((which, key), {})
                    known = rows.get(product.rows)
                    rows[product.rows] = product.values if known is None else known + product.values
        targets: tuple[Table[Any], ...] = (self.groups, self.experts, self.layer_sums)
        keys = [where for where, rows in joint.items() for _ in rows]
        values = _halves([values for rows in joint.values() for values in rows.values()])
        for (which, key), (diagonal, whole) in zip(keys, values, strict=True):
            if which >= 0:
                targets[which].add(key, diagonal, whole)
                continue
            product = products[key]
            own: Table[Any] = self.layers if isinstance(product.of, int) else self.modules
            own.add((product.spec, product.mode, product.of), diagonal, whole)

    def end_sequence(self) -> None:
        for table in self._tables:
            table.end_sequence()

    def _parts(self, product: Product) -> tuple[Any, Any, Any]:
        """The group, expert and layer that a module's product is part of."""
        if isinstance(product.of, int):
            return None, None, None
        name, key = product.of, (product.spec, product.mode)
        expert = expert_of(name)
        layer = next((i for i, layer in enumerate(self._layers) if name.startswith(f"{layer}.")), None)
        return (
            (*key, self._units.get(name, name)),
            None if expert is None else (*key, *expert),
            None if layer is None else (*key, layer),
        )


def _halves(products: Sequence[Tensor]) -> list[tuple[float, float]]:
    """Half the sum of squares and half the square of the sum of each, those of one length and device together."""
    by_length: dict[tuple[int, torch.device], list[int]] = {}
    for at, product in enumerate(products):
        by_length.setdefault((product.numel(), product.device), []).append(at)
    found: list[tuple[float, float]] = [(0.0, 0.0)] * len(products)
    for places in by_length.values():
        stacked = torch.stack([products[at].flatten() for at in places])
        diagonal = (stacked.square().sum(1) / 2).tolist()
        whole = (stacked.sum(1).square() / 2).tolist()
        for at, pair in zip(places, zip(diagonal, whole, strict=True), strict=True):
            found[at] = pair
    return found


_POSITIONS = 64  # drawn for at once: one number for every word of the vocabulary


def draw_labels(p: Tensor, generator: torch.Generator) -> Tensor:
    """Labels sampled from the model's probabilities [sequences, positions, vocabulary]: [sequences, positions].

    A race of exponentials (the label is argmax p / q): every label has a draw q of its own, so that a model of almost
    the same probabilities gets almost the same labels. Where a single draw is looked up in cumulated probabilities,
    rounding alone moves labels of the tail, and with them the few positions that decide a sum.
    """
    labels = torch.empty(p.shape[:2], dtype=torch.int64, device=p.device)
    for sequence, rows in enumerate(p):
        for start in range(0, len(rows), _POSITIONS):
            part = rows[start : start + _POSITIONS]
            uniform = torch.rand(part.shape, generator=generator, dtype=torch.float32, device="cpu")
            race = uniform.log_().neg_().to(p.device)  # infinite where 0 was drawn, which cannot win
            labels[sequence, start : start + _POSITIONS] = torch.div(part, race).argmax(-1)
    return labels
