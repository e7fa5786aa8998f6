"""Hooks that feed activations to the kernel while the model runs.

Not here: which tensors (srdd.models.sites), the numbers (srdd.kernels) and the loop over the data (model.py). A tap
attaches its hooks when it is entered and removes them all when it is left, also on an error. It keeps sums on the
device, one vector per sequence, site and format, and no tensor; nothing synchronises before `results`.

    with Tap(model, sites, measure=measure) as tap:
        tap.begin(["first sequence", "second"])
        model(token_ids)                      # [2, length]
    for result in tap.results():
        print(result.site.name, list(result.members), result.sequences["second"])

Modules that read the same tensor (q, k and v) share one measurement under the first one's name. Worked number: one
forward pass of SmolLM2 leaves 151 results: 4 inputs and 1 output for each of 30 layers, and lm_head's input.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from srdd import kernels
from srdd.errors import BusyError, SiteError, setting
from srdd.models.modules import fused_experts
from srdd.models.sites import Site
from srdd.models.wrapped import named_modules

# (tensors [sequences, ...], site name, their keys) -> [sequences, formats, fields]
Measure = Callable[[Tensor, str, Sequence[str]], Tensor]

_TAPPED: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # models that a tap is on, in this process
_LOCK = threading.Lock()


@dataclass
class Result:
    """What one measured tensor left behind."""

    site: Site
    features: int
    members: dict[str, None] = field(default_factory=dict)  # modules that read it, in order
    sequences: dict[str, Tensor] = field(default_factory=dict)  # key -> [formats, fields] on the device
    expert_tokens: Tensor | None = None  # fused experts: tokens each one got


class Tap:
    """Measures inputs and outputs of `sites` for every forward pass inside the `with` block."""

    def __init__(self, model: nn.Module, sites: Sequence[Site], *, measure: Measure) -> None:
        self._model = model
        self._sites = [site for site in sites if site.kind != "weight"]
        self._measure = measure
        self._keys: tuple[str, ...] = ()
        self._length = 0
        self._handles: list[RemovableHandle] = []
        self._results: dict[tuple[str, str], Result] = {}
        self._fired: set[tuple[str, str]] = set()
        # Who already measured a tensor in this pass. Weak, so that no activation outlives its use.
        self._seen: dict[int, tuple[weakref.ref[Tensor], int, Result]] = {}

    def __enter__(self) -> Tap:
        with _LOCK:
            if self._model in _TAPPED:
                raise BusyError("another scan of this model is running, and each would measure the other's passes")
            _TAPPED.add(self._model)
        try:
            self._hook_in()
        except BaseException:  # __exit__ is not called then, and the model would count as being scanned for good
            self._let_go()
            raise
        return self

    def _hook_in(self) -> None:
        modules = dict(named_modules(self._model))
        for site in self._sites:
            module = modules[site.module]
            if site.kind == "input":
                hook = self._input_hook(site, len(fused_experts(module)) > 0)
                self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                self._handles.append(module.register_forward_hook(self._output_hook(site)))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._let_go()

    def _let_go(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._seen.clear()
        _TAPPED.discard(self._model)

    def begin(self, keys: Sequence[str], length: int = 0) -> None:
        """Name the sequences of the next forward pass, one key per row of the batch, of `length` tokens each."""
        self._keys, self._length = tuple(keys), length
        self._seen.clear()

    def results(self) -> list[Result]:
        """All results in the order the model produced them. Raises SiteError for a hook that never fired.

        Towers need not run on text, unless nothing else was to be measured.
        """
        waited = [s for s in self._sites if not s.may_be_idle and not (s.beside_text and self._fired)]
        silent = [s.name for s in waited if (s.kind, s.name) not in self._fired]
        if silent:
            shown = ", ".join(silent[:5]) + (f" and {len(silent) - 5} more" if len(silent) > 5 else "")
            others = [s.name for s in self._sites if s.name not in set(silent)]
            globs = " ".join(setting("exclude", repr(glob)) for glob in _globs(silent, others))
            raise SiteError(
                f"{len(silent)} site(s) were never reached in the forward pass: {shown}; leave them out with {globs}"
            )
        return list(self._results.values())

    def idle(self) -> list[str]:
        """Experts that got no tokens: whole modules, and single experts of fused ones."""
        experts = [s for s in self._sites if s.kind == "input" and s.may_be_idle and not s.beside_text]
        names = [s.module for s in experts if (s.kind, s.name) not in self._fired]
        for result in self._results.values():
            if result.expert_tokens is not None:
                counts = result.expert_tokens.tolist()
                names += [f"{result.site.module}.{expert}" for expert, tokens in enumerate(counts) if tokens == 0]
        return names

    def without_pictures(self) -> list[str]:
        """Modules of towers and further heads that text alone does not reach."""
        silent = [s.module for s in self._sites if s.beside_text and (s.kind, s.name) not in self._fired]
        return list(dict.fromkeys(silent))

    def _input_hook(self, site: Site, experts: bool) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
            if not tensors:
                raise SiteError(f"{site.name}: its forward pass was given no tensor to measure")
            x = tensors[0]
            result = self._record(site, x)
            if experts:
                _count_tokens(result, module, tensors[1:])

        return hook

    def _output_hook(self, site: Site) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            while isinstance(output, tuple | list):
                output = output[0]
            if not isinstance(output, Tensor):
                raise SiteError(f"{site.name}: expected a tensor as output, found {type(output).__name__}")
            self._record(site, output)

        return hook

    def _record(self, site: Site, x: Tensor) -> Result:
        self._fired.add((site.kind, site.name))
        if site.kind == "input":
            seen = self._seen.get(id(x))
            if seen is not None and seen[0]() is x and seen[1] == x._version:
                seen[2].members[site.module] = None
                return seen[2]
        result = self._results.setdefault((site.kind, site.name), Result(site, x.shape[-1]))
        result.members[site.module] = None
        with torch.no_grad():
            vectors = self._measure(self._by_sequence(site, x.detach()), site.name, self._keys)
            for key, vector in zip(self._keys, vectors, strict=True):
                before = result.sequences.get(key)
                result.sequences[key] = vector if before is None else kernels.merge(before, vector)
        if site.kind == "input":
            self._seen[id(x)] = (weakref.ref(x), x._version, result)
        return result

    def _by_sequence(self, site: Site, x: Tensor) -> Tensor:
        """A batch as [sequences, ...]. Routed or flattened rows belong to one sequence only in a batch of one."""
        count = len(self._keys)
        if count == 0:
            raise SiteError("the tap was not told which sequences run: call begin() before each forward pass")
        if count == 1:
            return x.unsqueeze(0)
        if x.dim() > 3 and x.shape[1:3] == (count, self._length) and x.shape[1] != self._length:
            return x.transpose(0, 1)  # several states of every token, stacked before the batch (AltUp)
        if x.shape[0] == count:
            return x
        if x.dim() == 2 and not site.routed and x.shape[0] % count == 0:
            return x.view(count, -1, x.shape[-1])
        raise SiteError(
            f"{site.name}: cannot tell which rows of {tuple(x.shape)} belong to which of {count} sequences; "
            f"use {setting('batch_size', 1)}"
        )


def _globs(silent: Sequence[str], others: Sequence[str]) -> list[str]:
    """Few patterns that match all silent names and no other: a part of the model, or a module's own name."""
    globs: dict[str, None] = {}
    for name in silent:
        parts = name.split(".")
        above = (".".join(parts[:depth]) + "." for depth in range(1, len(parts)))
        part = next((p for p in above if not any(f"{other}.".startswith(p) for other in others)), None)
        own = f"*.{parts[-1]}"
        whole = part is None and not any(other.endswith(own[1:]) for other in others)
        globs[f"{part}*" if part else own if whole else name] = None
    return list(globs)


def _count_tokens(result: Result, module: nn.Module, others: Sequence[Tensor]) -> None:
    """Tokens routed to each of the fused experts, from the index tensor their forward pass is given."""
    indices = next((t for t in others if t.dtype in (torch.int64, torch.int32)), None)
    if indices is None:
        return
    experts = getattr(module, fused_experts(module)[0]).shape[0]
    # Expert parallelism marks tokens of other ranks with an index one past the last expert.
    counts = torch.bincount(indices.flatten(), minlength=experts)[:experts]
    result.expert_tokens = counts if result.expert_tokens is None else result.expert_tokens + counts
