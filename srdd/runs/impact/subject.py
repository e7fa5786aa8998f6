"""What a run of costs works on: the layers of a model, the modules in it that quantize, and their fusion groups.

Not here: measuring (sweep.py, fisher.py) and rows (priced.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from srdd.core.formats import BlockFormat
from srdd.models.fake import fake_quantize
from srdd.models.quantizer import Quantizer
from srdd.models.running import explained
from srdd.models.sites import Site, SiteMap
from srdd.models.stack import LayerStack, logits_of
from srdd.runs.impact.fisher import Fisher
from srdd.runs.impact.request import Sensitive
from srdd.runs.impact.routed import expert_of
from srdd.runs.impact.sensitivity import NormWeight, norm_weights


@dataclass(frozen=True)
class Subject:
    """A model as a run of costs sees it."""

    stack: LayerStack
    has_head: bool  # a language-model head, without which there is no loss and no KL
    sites: tuple[Site, ...]  # the inputs of all modules that quantize, in module order
    sizes: dict[str, int]  # how many values the weights of each hold
    left_out: tuple[str, ...]  # modules that stay as they are
    norms: tuple[NormWeight, ...]

    @property
    def linears(self) -> list[Site]:
        """Linears that get every token; those of routed experts count as experts."""
        return [site for site in self.sites if site.role != "experts" and expert_of(site.module) is None]

    @property
    def units(self) -> dict[str, str]:
        """The fusion group of every module by its name; a Linear that is fused with nothing is one by itself."""
        return {site.module: site.group or site.module for site in self.sites}

    def fisher(
        self, quantizers: Sequence[Quantizer], sensitive: Sequence[Sensitive], *, label_samples: int = 1, seed: int = 0
    ) -> Fisher:
        """What predicts the costs of this model."""
        return Fisher(
            self.stack,
            [site.module for site in self.sites],
            quantizers,
            units=self.units,
            norms=self.norms if "norm" in sensitive else (),
            linear_traces="linear" in sensitive,
            label_samples=label_samples,
            seed=seed,
        )


def subject_of(model: nn.Module, sites: SiteMap, token_ids: Tensor, exclude: Sequence[str]) -> Subject:
    """`token_ids`, [sequences, length], tell whether there is a head. Raises SiteError when no layers are found."""
    stack = LayerStack(model)
    any_format: BlockFormat | None = None
    handle = fake_quantize(model, Quantizer(any_format), exclude=exclude, default_exclude=())
    sizes: dict[str, int] = {}
    for site in sites.of("weight"):
        sizes[site.module] = sizes.get(site.module, 0) + site.numel
    return Subject(
        stack=stack,
        has_head=has_head(stack, token_ids),
        sites=tuple(site for site in sites.of("input") if site.module in handle.modules),
        sizes=sizes,
        left_out=handle.left_out,
        norms=tuple(norm_weights(model)),
    )


def has_head(stack: LayerStack, token_ids: Tensor) -> bool:
    """Whether the model gives logits for token ids [sequences, length]; two tokens are run."""
    with explained(stack.model, token_ids[:1]), torch.no_grad():
        output = stack.visit(token_ids[:1, :2], lambda call: call.output(call.hidden))
    return logits_of(output) is not None


def headless(model: nn.Module) -> str:
    return f"{type(model).__name__} has no language-model head"
