"""The KL that quantizing one Linear, expert, fusion group or layer will cost, from one forward and one backward pass.

Not here: measuring it (sweep.py), how experts are called (routed.py), what noise costs (sensitivity.py).

Let d be the change of a tensor and z the logits it moves by dz = J d. To second
order KL(p(z) || p(z + dz)) = 1/2 dz' F dz, with F = diag(p) - p p' the Fisher information of the softmax, and
F = E[(y - p)(y - p)'] over labels y drawn from p. So KL = 1/2 E[(g . d)^2] with g the gradient of -log p(y) at the
tensor: labels are sampled from the model, one backward pass gives g everywhere.

A change at position s moves the logits of all later positions, and changes at different positions add up there. With
g_s . d_s at every position, `sum` squares their sum over the sequence (exact to second order, noisy: one square per
sequence and label sample) and `diagonal` sums their squares (takes errors of different positions as uncorrelated).
What neither sees: third and higher orders, which matter where a change is not small.

A routed expert is the same: its rows are run again, clean and quantized, and g . d stands at the position of its token.
Which experts a token goes to is taken as it is: that a change below may send it to others is not in the prediction
(benchmarks/experts.py shows that nothing else is missing).

For a Linear y = W x with g = dloss/dy: g . (dW x) = (g dW) . x and g . (W dx) = (g W) . dx; g W is what backward
computes anyway, so that weight, input and both cost one more product per format.

Worked number: p = (1/2, 1/2), dz = (0.2, 0): 1/2 (0.25 * 0.04) = 0.005; the exact KL is 0.00499.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from srdd.errors import SiteError
from srdd.kernels.precision import to_float64
from srdd.models.modules import experts_transposed, fused_experts
from srdd.models.quantizer import Quantizer
from srdd.models.replaced_forward import Forward, ReplacedForward
from srdd.models.stack import LayerCall, LayerStack, first, logits_of
from srdd.models.wrapped import named_modules
from srdd.runs.impact.expert_places import ExpertPlaces
from srdd.runs.impact.linears import by_sequence
from srdd.runs.impact.routed import RoutedCall, expert_of, routed_call
from srdd.runs.impact.scores import Product, Scores, draw_labels
from srdd.runs.impact.sensitivity import NormWeight, gathering, squared_length, taken
from srdd.runs.impact.sweep import Changes


@dataclass
class _Sequence:
    """What is known of the sequence at hand."""

    length: int
    changes: Changes = field(default_factory=dict)
    products: list[Product] = field(default_factory=list)  # of one label sample
    # The last input quantized, by format, with what it was made of: q, k and v read the same tensor.
    inputs: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Fisher:
    """Accumulates scores over sequences, which run one at a time: only then is it known whose rows an expert gets.

    `names` are Linears and fused experts; `units` says which of them are one fusion group, by its name. With `norms`
    and `linear_traces` the squared lengths of gradients of weights are kept too, by parameter.
    """

    def __init__(
        self,
        stack: LayerStack,
        names: Sequence[str],
        quantizers: Sequence[Quantizer],
        *,
        units: Mapping[str, str] | None = None,
        norms: Sequence[NormWeight] = (),
        linear_traces: bool = False,
        label_samples: int = 1,
        seed: int = 0,
    ) -> None:
        modules = dict(named_modules(stack.model))
        self._stack = stack
        self._modules = {name: modules[name] for name in names}
        self._places = ExpertPlaces(stack.model, names)
        self._quantizers, self._samples = quantizers, label_samples
        self._norms, self._linear_traces = list(norms), linear_traces
        self._generator = torch.Generator().manual_seed(seed)
        self._now = _Sequence(0)
        self.ran: set[str] = set()  # of `names`
        self.strange: set[str] = set()  # fused experts that are called in a way which is not understood
        self.scores = Scores(stack.names, units or {}, label_samples)

    def run(self, token_ids: Tensor, changes: Changes) -> Tensor:
        """Sequences [count, length], and what quantizing each layer alone changes at its output (from a sweep).

        Returns the clean logits of the last sequence. Raises SiteError for a model without a language-model head.
        """
        logits = torch.empty(0)
        for at, row in enumerate(token_ids):
            logits = self._run(row[None], {key: change[at : at + 1] for key, change in changes.items()})
        return logits

    def _run(self, token_ids: Tensor, changes: Changes) -> Tensor:
        self._now = _Sequence(token_ids.shape[1], changes)
        scored = ReplacedForward(self._modules, self._scored)
        with _frozen(self._stack.model), gathering(self._norms), self._places.watching(), scored, torch.enable_grad():
            logits = logits_of(self._stack.visit(token_ids, self._visitor))
            if logits is None:
                raise SiteError(f"{type(self._stack.model).__name__} has no language-model head to predict a KL at")
            clean = logits.detach()
            logits = logits[:, :-1]
            p = torch.softmax(logits.detach().float(), -1)
            for sample in range(self._samples):
                self._now.products.clear()
                # the gradient of -log p(label) at the logits, written down instead of taken: p less one at the label
                gradient = p.clone() if sample + 1 < self._samples else p
                labels = draw_labels(p, self._generator)[:, :, None]
                gradient.scatter_add_(2, labels, -torch.ones_like(labels, dtype=p.dtype))
                logits.backward(gradient.to(logits.dtype), retain_graph=sample + 1 < self._samples)  # type: ignore[no-untyped-call]
                self.scores.add(self._now.products)
                for norm in self._norms:
                    if (square := taken(norm)) is not None:
                        self.scores.traces.add(norm.name, square, square)
        self.scores.end_sequence()
        self._now = _Sequence(0)
        return clean

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
        for (spec, mode, layer), change in self._now.changes.items():
            if layer == index:
                self._now.products.append(Product(spec, mode, index, to_float64((g * change).sum(-1))))

    def add(self, name: str, module: nn.Module, given: Tensor, g: Tensor) -> Tensor:
        """Called in backward by a Linear: keeps g . d for all formats and modes, returns the gradient of its input."""
        x = by_sequence(name, given, (1, self._now.length))
        by_position = x is not None
        x = given.reshape(1, -1, given.shape[-1]) if x is None else x
        g = g.reshape(*x.shape[:-1], g.shape[-1])
        transposed = not isinstance(module, nn.Linear)
        w = module.weight.detach()  # type: ignore[operator]
        back = w.T if transposed else w  # [out, in]
        gx = g @ back
        if self._linear_traces:
            square = squared_length(g.flatten(0, -2), x.flatten(0, -2))
            self.scores.traces.add(f"{name}.weight", square, square)
        for quantizer in self._quantizers:
            dw = quantizer.weight(w, f"{name}.weight", transposed=transposed) - w
            dx = self._quantized(quantizer, x if by_position else given, name).reshape(x.shape) - x
            gd = g @ (dw.T if transposed else dw)
            of_weight, of_input = (gd * x).sum(-1), (gx * dx).sum(-1)
            products = {"weight": of_weight, "input": of_input, "both": of_weight + of_input + (gd * dx).sum(-1)}
            for mode, product in products.items():
                self._keep(quantizer.name, mode, name, to_float64(product), by_position)
        return gx.reshape(given.shape)

    def _quantized(self, quantizer: Quantizer, x: Tensor, name: str) -> Tensor:
        known = self._now.inputs.get(quantizer.name)
        if known is not None and _same(known[0], x) and not (quantizer.fmt and quantizer.fmt.stochastic):
            return known[1]
        q = quantizer.activation(x, name)
        self._now.inputs[quantizer.name] = x, q
        return q

    def _keep(self, spec: str, mode: str, name: str, product: Tensor, by_position: bool) -> None:
        expert = None if by_position else expert_of(name)
        if expert is None:
            # rows of another shape stand where nobody knows: they add up with nothing else
            rows = None if by_position else name
            self._now.products.append(Product(spec, mode, name, product, rows))
            return
        where = self._places.of(expert[0])
        if where is not None:
            product = torch.zeros(1, self._now.length, dtype=product.dtype, device=product.device).index_add_(
                1, where.to(product.device), product
            )
        self._now.products.append(Product(spec, mode, name, product, None if where is not None else expert[0]))

    def _scored(self, name: str, forward: Forward) -> Forward:
        """A module that keeps its products in backward; in passes without gradients it is itself."""
        module = self._modules[name]
        fused = bool(fused_experts(module))

        def scored(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            self.ran.add(name)
            if fused:
                return self._experts_scored(name, module, forward, args, kwargs)
            x = args[0] if args else next(iter(kwargs.values()))
            if (expert := expert_of(name)) is not None:
                self.scores.got(expert, name, x.shape[:-1].numel())
            return _Scored.apply(x, self, name, module, forward)  # type: ignore[no-untyped-call]

        return scored

    def _experts_scored(
        self, name: str, module: nn.Module, forward: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        output = forward(*args, **kwargs)
        call = routed_call(module, args, kwargs, self._now.length)
        if call is None or not isinstance(output, Tensor):
            self.strange.add(name)
            return output
        for expert, count in enumerate(call.tokens()):
            self.scores.got((name, expert), name, count)
        if output.requires_grad:
            output.register_hook(lambda g: self._expert_products(name, module, call, g))  # type: ignore[no-untyped-call]
        return output

    @torch.no_grad()
    def _expert_products(self, name: str, module: nn.Module, call: RoutedCall, g: Tensor) -> None:
        rows, transposed, tokens = call.rows_of(g), experts_transposed(module), call.tokens()
        clean = call.run(call.hidden, {})
        for quantizer in self._quantizers:
            weights = {
                p: quantizer.weight(getattr(module, p).detach(), f"{name}.{p}", transposed=transposed)
                for p in fused_experts(module)
            }
            hidden = quantizer.activation(call.hidden, name)
            for mode, (x, parameters) in {
                "weight": (call.hidden, weights),
                "input": (hidden, {}),
                "both": (hidden, weights),
            }.items():
                product = to_float64((rows * (call.run(x, parameters) - clean)).sum(-1))
                self._now.products.append(
                    Product(quantizer.name, mode, name, _summed(product, call.position, self._now.length))
                )
                squares = torch.zeros(len(tokens), dtype=product.dtype, device=product.device)
                squares.index_add_(0, call.expert, product.square() / 2)
                for expert, square in enumerate(squares.tolist()):
                    if tokens[expert]:
                        self.scores.experts.add((quantizer.name, mode, name, expert), square, square)


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


def _same(a: Tensor, b: Tensor) -> bool:
    """The same values in the same place; the first is alive, so that nothing else can have taken its place."""
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride() and a._version == b._version


def _summed(product: Tensor, position: Tensor, length: int) -> Tensor:
    """The products of all rows of a token, [1, length]."""
    return torch.zeros(length, dtype=product.dtype, device=product.device).index_add_(0, position, product)[None]


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
