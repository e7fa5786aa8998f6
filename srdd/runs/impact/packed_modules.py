"""Which modules of a packed checkpoint are stored in which form, so that the whole model can be rounded anew.

Not here: costs (reference.py) and errors of weights (srdd.runs.scans.stored).

Worked number: attention in FP8 by row and experts in MXFP4 are one model, "fp8_channel:stored+mxfp4:stored".
"""

from __future__ import annotations

from collections.abc import Sequence

from srdd.core.formats import BlockFormat, stored
from srdd.models.checkpoint_sites import checkpoint_sites
from srdd.models.files.checkpoint import Checkpoint
from srdd.models.files.packed.as_formats import fresh_format, nearest_format
from srdd.models.files.packed.contract import Packed
from srdd.runs.impact.reference import Fresh


def packed_modules(packed: Checkpoint, asked: Sequence[BlockFormat]) -> tuple[str, list[Fresh], list[str]]:
    """For costs of the whole model: the name of what is stored, what is rounded anew, and what cannot be.

    Several forms are joined by "+", as they are one model together.
    """
    forms: dict[str, set[str]] = {}
    for site in checkpoint_sites(packed).sites:
        found = {tensor.form for name in site.stored if isinstance(tensor := packed.tensors[name], Packed)}
        if found:
            forms.setdefault(site.module, set()).update(found)
    every = {form for found in forms.values() for form in found}
    name = "+".join(sorted({stored(nearest_format(form)).spec for form in every}))
    fresh = [Fresh(fmt.spec, {fmt: list(forms)}) for fmt in asked]
    modules: dict[BlockFormat, list[str]] = {}
    for module, found in forms.items():
        own = {fresh_format(form) for form in found}
        fmt = next(iter(own))
        if len(own) > 1 or fmt is None:
            why = f"costs: {module} is stored in {', '.join(sorted(found))}, so that the whole is not rounded anew"
            return name, fresh, [why]
        modules.setdefault(fmt, []).append(module)
    spec = "+".join(sorted(fmt.spec for fmt in modules))
    return name, [Fresh(spec, modules), *(one for one in fresh if one.spec != spec)], []
