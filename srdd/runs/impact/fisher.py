"""The KL that quantizing one Linear, or one layer, will cost, predicted from one forward and one backward pass.

Not here: measuring it (sweep.py). Let d be the change of a tensor and z the logits it moves by dz = J d. To second
order KL(p(z) || p(z + dz)) = 1/2 dz' F dz, with F = diag(p) - p p' the Fisher information of the softmax, and
F = E[(y - p)(y - p)'] over labels y drawn from p. So KL = 1/2 E[(g . d)^2] with g the gradient of -log p(y) at the
tensor: labels are sampled from the model, one backward pass gives g everywhere.

A change at position s moves the logits of all later positions, and changes at different positions add up there. With
g_s . d_s at every position, `sum` squares their sum over the sequence (exact to second order, noisy: one square per
sequence and label sample) and `diagonal` sums their squares (takes errors of different positions as uncorrelated).
What neither sees: third and higher orders, which matter where a change is not small.

For a Linear y = W x with g = dloss/dy: g . (dW x) = (g dW) . x and g . (W dx) = (g W) . dx; g W is what backward
computes anyway, so that weight, input and both cost one more product per format.

Worked number: p = (1/2, 1/2), dz = (0.2, 0): 1/2 (0.25 * 0.04) = 0.005; the exact KL is 0.00499.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from srdd.errors import SiteError
from srdd.kernels.precision import to_float64
from srdd.models.fake import Quantizer
from srdd.models.replaced_forward import Forward, ReplacedForward
from srdd.models.stack import LayerCall, LayerStack, first, logits_of
from srdd.runs.impact.linears import by_sequence
from srdd.runs.impact.sweep import Changes

_LAYER = "layer "  # keys of a layer's own products; no module's name holds a space


@dataclass
class Score:
    """Predicted KL summed over a sequence's tokens, one entry per sequence."""

    diagonal: list[float] = field(default_factory=list)
    sum: list[float] = field(default_factory=list)


class Fisher:
    """Accumulates scores by (format, mode, module or layer name) over batches."""

    def __init__(
        self,
        stack: LayerStack,
        names: Sequence[str],
        quantizers: Sequence[Quantizer],
        *,
        label_samples: int = 1,
        seed: int = 0,
    ) -> None:
        modules = dict(stack.model.named_modules())
        self._stack = stack
        self._modules = {name: modules[name] for name in names}
        self._layer_of = {name: i for name in names for i, layer in enumerate(stack.names) if _inside(name, layer)}
        self._quantizers, self._samples = quantizers, label_samples
        self._generator = torch.Generator().manual_seed(seed)
        self._changes: Changes = {}  # for the batch at hand
        self._shape: Sequence[int] = (0, 0)  # of the batch at hand, [sequences, length]
        # g . d at every position of the batch at hand, by (format, mode, name)
        self._products: dict[tuple[str, str, str], Tensor] = {}
        self.skipped: set[str] = set()
        self.modules: dict[tuple[str, str, str], Score] = {}
        self.layer_sums: dict[tuple[str, str, int], Score] = {}  # products of a layer's modules added, then squared
        self.layers: dict[tuple[str, str, int], Score] = {}  # of the layer's own output error

    def run(self, token_ids: Tensor, changes: Changes) -> None:
        """One batch [sequences, length], and what quantizing each layer alone changes at its output (from a sweep).

        Raises SiteError for a model without a language-model head.
        """
        self._changes, self._shape = changes, token_ids.shape
        scored = ReplacedForward(self._modules, self._scored)
        with _frozen(self._stack.model), scored, torch.enable_grad():
            logits = logits_of(self._stack.visit(token_ids, self._visitor))
            if logits is None:
                raise SiteError(f"{type(self._stack.model).__name__} has no language-model head to predict a KL at")
            logits = logits[:, :-1]
            p = torch.softmax(logits.detach().float(), -1)
            totals: dict[tuple[str, Any], Score] = {}
            for sample in range(self._samples):
                self._products.clear()
                # the gradient of -log p(label) at the logits, written down instead of taken: p less one at the label
                gradient = p.clone() if sample + 1 < self._samples else p
                labels = self._draw(p)[:, :, None]
                gradient.scatter_add_(2, labels, -torch.ones_like(labels, dtype=p.dtype))
                logits.backward(gradient.to(logits.dtype), retain_graph=sample + 1 < self._samples)  # type: ignore[no-untyped-call]
                self._square(totals)
        for (target, key), score in totals.items():
            kept = getattr(self, target).setdefault(key, Score())
            kept.diagonal += [value / self._samples for value in score.diagonal]
            kept.sum += [value / self._samples for value in score.sum]
        self._changes = {}
        self._products.clear()

    def _visitor(self, call: LayerCall) -> Any:
        if call.index == 0:
            # backward starts here: nothing below the first layer is wanted
            hidden = call.hidden.detach().requires_grad_()
            call = replace(call, hidden=hidden)
        output = call.output(call.hidden)
        clean = first(output)
        if clean.requires_grad:
            clean.register_hook(lambda g: self._layer_products(call.index, g))  # type: ignore[no-untyped-call]
        return output

    def _layer_products(self, index: int, g: Tensor) -> None:
        for (spec, mode, layer), change in self._changes.items():
            if layer == index:
                self._products[spec, mode, f"{_LAYER}{index}"] = to_float64((g * change).sum(-1))

    def add(self, name: str, module: nn.Module, given: Tensor, g: Tensor) -> Tensor:
        """Called in backward by a Linear: keeps g . d for all formats and modes, returns the gradient of its input."""
        x = by_sequence(name, given, self._shape)
        assert x is not None, "the stand-in leaves out what cannot be told apart"
        g = g.reshape(*x.shape[:-1], g.shape[-1])
        transposed = not isinstance(module, nn.Linear)
        w = module.weight.detach()  # type: ignore[operator]
        back = w.T if transposed else w  # [out, in]
        gx = g @ back
        for quantizer in self._quantizers:
            dw = quantizer.weight(w, f"{name}.weight", transposed=transposed) - w
            dx = quantizer.activation(x, name) - x
            gd = g @ (dw.T if transposed else dw)
            of_weight, of_input = (gd * x).sum(-1), (gx * dx).sum(-1)
            products = {"weight": of_weight, "input": of_input, "both": of_weight + of_input + (gd * dx).sum(-1)}
            for mode, product in products.items():
                self._products[quantizer.name, mode, name] = to_float64(product)
        return gx.reshape(given.shape)

    def _scored(self, name: str, forward: Forward) -> Forward:
        """A Linear that keeps its products in backward; in passes without gradients it is itself."""
        module = self._modules[name]

        def scored(x: Tensor) -> Any:
            if not torch.is_grad_enabled():
                return forward(x)
            if by_sequence(name, x, self._shape) is None:
                self.skipped.add(name)
                return forward(x)
            return _Scored.apply(x, self, name, module, forward)  # type: ignore[no-untyped-call]

        return scored

    def _draw(self, p: Tensor) -> Tensor:
        """Labels sampled from the model's probabilities, [sequences, length - 1]."""
        uniform = torch.rand(p.shape[:2], generator=self._generator, dtype=torch.float32, device="cpu").to(p.device)
        below = p.cumsum(-1)
        labels = torch.searchsorted(below, (uniform * below[..., -1])[..., None]).squeeze(-1)
        return labels.clamp(max=p.shape[-1] - 1)

    def _square(self, totals: dict[tuple[str, Any], Score]) -> None:
        """Half the squares of the products at hand, added to each sequence's totals over label samples."""
        joint: dict[tuple[str, str, int], Tensor] = {}
        for (spec, mode, name), product in self._products.items():
            if name.startswith(_LAYER):
                _add(totals, ("layers", (spec, mode, int(name.removeprefix(_LAYER)))), product)
                continue
            _add(totals, ("modules", (spec, mode, name)), product)
            layer = self._layer_of.get(name)
            if layer is not None:
                key = (spec, mode, layer)
                joint[key] = joint[key] + product if key in joint else product
        for layer_key, product in joint.items():
            _add(totals, ("layer_sums", layer_key), product)


def _add(totals: dict[tuple[str, Any], Score], key: tuple[str, Any], product: Tensor) -> None:
    diagonal = (product.square().sum(1) / 2).tolist()
    whole = (product.sum(1).square() / 2).tolist()
    score = totals.setdefault(key, Score([0.0] * len(diagonal), [0.0] * len(whole)))
    score.diagonal = [a + b for a, b in zip(score.diagonal, diagonal, strict=True)]
    score.sum = [a + b for a, b in zip(score.sum, whole, strict=True)]


class _Scored(torch.autograd.Function):
    """A Linear whose backward hands input and gradient to the scorer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scorer: Fisher, name: str, module: nn.Module, forward: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.scorer, ctx.name, ctx.module = scorer, name, module
        result: Tensor = forward(x)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            return ctx.scorer.add(ctx.name, ctx.module, x, grads[0]), None, None, None, None


def _inside(name: str, layer: str) -> bool:
    return name.startswith(f"{layer}.")


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter gathers a gradient: only those of activations are wanted."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    try:
        for p in wanted:
            p.requires_grad_(False)
        yield
    finally:
        for p in wanted:
            p.requires_grad_(True)
