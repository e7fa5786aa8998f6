"""Rule "claims": what the config says of a module against what its tensors are.

A serving stack builds its kernels from the config and then looks for tensors of that form: a module that is plain where
a format is claimed, or packed where it is ignored, fails to load or loads garbage.

Not here: whether modules agree with each other (fusion.py). Routers and embeddings are no modules of an audit.

Worked number: config_groups for 7 Linears of each layer, `ignore` without an eighth that is plain: one finding, a
warning, for the eighth is in no group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from srdd.analysis.audit.facts import PLAIN, Facts, Module
from srdd.documents.audit import Finding, Grave

_HEADS = ("lm_head", "embed_out")  # stacks differ on whether a class of Linears covers them


def find(facts: Facts) -> Iterator[Finding]:
    """Ignored but packed, claimed but plain, another format than claimed, in no group; a format that nothing holds."""
    if facts.unheld:
        yield Finding(
            level="error",
            kind="claims",
            module=facts.config,
            found=facts.unheld.partition("; remove")[0].partition("; correct")[0],
            expected="a format that the tensors hold",
            advice="correct or remove quantization_config, or export again",
        )
        return
    for module in facts.modules:
        yield from _of(facts, module)
    yield from _odd_ones(facts)


def _of(facts: Facts, module: Module) -> Iterator[Finding]:
    claimed = module.claimed
    if module.is_packed:
        if claimed == PLAIN:
            yield _finding(
                "error", module, f"stored in {module.form}, and {facts.config} ignores it", "a plain weight",
                "take it off the ignore list, or store it in 16 bits",
            )  # fmt: skip
        elif claimed is not None and claimed.split(" ")[0] != module.family:
            yield _finding(
                "error", module, f"stored in {module.form}, and {facts.config} says {claimed}", claimed,
                f"correct its format in {facts.config}",
            )  # fmt: skip
        elif claimed is None and _names_modules(facts):
            yield _finding(
                "error", module, f"stored in {module.form}, and no group of {facts.config} has it",
                "a group that targets it", "add it to the targets of a group",
            )  # fmt: skip
        return
    if claimed not in (None, PLAIN) and not _is_left_plain(facts, module):
        level: Grave = "warning" if module.role in _HEADS or module.beside_text else "error"
        yield _finding(
            level, module, f"stored as {module.form}, and {facts.config} says {claimed}", f"codes in {claimed}",
            "add it to the ignore list, or quantize it",
        )  # fmt: skip
    elif claimed is None and _names_modules(facts) and not module.beside_text:
        yield _finding(
            "warning", module, f"stored as {module.form}, in no group of {facts.config} and not ignored",
            "a group or the ignore list", "add it to the ignore list: SGLang refuses it, others differ",
        )  # fmt: skip


def _names_modules(facts: Facts) -> bool:
    """Whether the config tells of each module, so that silence on one is a mistake."""
    return facts.method == "compressed-tensors" and any(module.claimed is not None for module in facts.modules)


def _odd_ones(facts: Facts) -> Iterator[Finding]:
    """A plain module among packed ones of its role, where one format without rules is claimed for all."""
    if facts.method not in ("fp8", "fbgemm_fp8", "mxfp8"):
        return
    by_role: dict[str, list[Module]] = defaultdict(list)
    for module in facts.modules:
        if module.layer is not None and not module.beside_text:
            by_role[module.role].append(module)
    for modules in by_role.values():
        packed = [module for module in modules if module.is_packed]
        if 2 * len(packed) <= len(modules):
            continue
        for module in modules:
            if not module.is_packed and not _is_left_plain(facts, module):
                yield _finding(
                    "error",
                    module,
                    f"stored as {module.form}; the other {len(packed)} of its role are packed, and "
                    "modules_to_not_convert does not name it",
                    packed[0].form,
                    "name it in modules_to_not_convert, or quantize it",
                )


def _is_left_plain(facts: Facts, module: Module) -> bool:
    """By whole parts of its name: "mlp.gate" names no gate_proj, "vision_tower" all that is in it."""
    entries = (entry.strip("*.") for entry in facts.left_plain)
    return any(f".{entry}." in f".{module.name}." for entry in entries if entry)


def _finding(level: Grave, module: Module, found: str, expected: str, advice: str) -> Finding:
    return Finding(level=level, kind="claims", module=module.name, found=found, expected=expected, advice=advice)
