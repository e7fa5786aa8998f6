"""Rule "fusion": modules that serving stacks run as one must be in one format.

vLLM takes the first shard's scheme without a word where q, k and v differ, and the experts' from expert 0.

Not here: equal tensor scales among them (tensor_scales.py).

Worked number: of 128 experts x 3 matrices, one up_proj in MXFP8 among NVFP4: one finding, which names that up_proj.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from srdd.analysis.audit.facts import Facts, Module
from srdd.documents.audit import Finding

_NAMED = 3  # modules in a sentence


def find(facts: Facts) -> Iterator[Finding]:
    """Every fusion group whose modules differ."""
    groups: dict[str, list[Module]] = defaultdict(list)
    for module in facts.modules:
        if module.group is not None:
            groups[module.group].append(module)
    for group, modules in groups.items():
        form_of = {module.name: _form(module, modules) for module in modules}
        forms = Counter(form_of.values())
        if len(forms) < 2 or not any(module.is_packed for module in modules):
            continue
        usual = forms.most_common(1)[0][0]
        others = [module for module in modules if form_of[module.name] != usual] if forms[usual] > 1 else modules
        named = ", ".join(f"{module.name.removeprefix(group + '.')} in {module.form}" for module in others[:_NAMED])
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        rest = f", the other {forms[usual]} in {usual}" if others != modules else ""
        yield Finding(
            level="error",
            kind="fusion",
            module=group,
            found=f"{named}{more}{rest}",
            expected="one format, for serving stacks run them as one",
            advice="export the whole group in one format",
        )


def _form(module: Module, beside: list[Module]) -> str:
    """Its form; a matrix no larger than a block of its neighbours has one scale as they have several."""
    if module.form != "FP8 per tensor":
        return module.form
    for other in beside:
        size = re.fullmatch(r"FP8 in blocks of (\d+) x (\d+)", other.form)
        if size and module.shape[-2] <= int(size[1]) and module.shape[-1] <= int(size[2]):
            return other.form
    return module.form
