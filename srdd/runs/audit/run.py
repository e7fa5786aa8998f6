"""The audit itself: read, compare, decide, as one document.

Not here: counting (reading.py), comparing (comparing.py, matching.py), rules (srdd.analysis.audit).

    audit(open_checkpoint("packed"), open_checkpoint("original")).errors
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib.metadata import version

from srdd.analysis.audit import findings
from srdd.analysis.audit.facts import Compared, Facts, Module
from srdd.analysis.audit.reference import is_off
from srdd.documents.audit import Audit, AuditProvenance, Held
from srdd.errors import SiteError, SourceError
from srdd.models.checkpoint_sites import unknown_form
from srdd.models.files import packed
from srdd.models.files.checkpoint import Checkpoint
from srdd.runs.audit.comparing import Pairing, Sums, compared, paired
from srdd.runs.audit.matching import explained
from srdd.runs.audit.modules import modules_of, set_apart, unclaimed
from srdd.runs.setup import Progress, silent

_LEFT_PLAIN = ("modules_to_not_convert", "exclude_modules")


def audit(checkpoint: Checkpoint, reference: Checkpoint | None = None, *, progress: Progress = silent) -> Audit:
    """What a checkpoint holds and what is wrong with it; `reference` is its 16-bit original.

    Raises SourceError for codes of an unknown form and a reference of another architecture, SiteError where there is
    no weight at all.
    """
    clean, damaged, orphans = set_apart(checkpoint)
    unknown = next(filter(packed.is_unknown, damaged), None) or unknown_form(clean)
    if unknown:
        raise SourceError(unknown)
    pairing = None if reference is None else paired(clean, reference)
    modules = []
    values = sum(tensor.numel for tensor in clean.tensors.values())
    done = 0
    for module in modules_of(clean):
        modules.append(module)
        done += math.prod(module.shape)
        progress("tensors", done, values)
    progress("tensors", values, values)
    if not modules and not damaged:
        raise SiteError(f"{checkpoint.identity.id} holds no weight matrix among its {len(checkpoint.tensors)} tensors")
    matrices = [] if reference is None or pairing is None else _compared(clean, reference, pairing, progress)
    extra, lacking = unclaimed(clean, checkpoint, orphans)
    claims = checkpoint.claims
    facts = Facts(
        modules=tuple(modules),
        config=claims.file if claims else "config.json",
        method=claims.method if claims else None,
        left_plain=_left_plain(checkpoint),
        damaged=damaged,
        unheld=None if damaged else checkpoint.unheld,
        lacking=lacking,
        unclaimed=extra,
        compared=tuple(matrices),
        reference_only=pairing.reference_only if pairing else (),
        packed_only=pairing.packed_only if pairing else (),
    )
    return Audit(
        provenance=AuditProvenance(
            srdd=version("srdd"),
            config=facts.config if claims else None,
            method=facts.method,
            reference=None if reference is None else reference.identity,
        ),
        model=checkpoint.identity,
        modules=_held(modules, matrices),
        findings=findings(facts),
        notes=_notes(checkpoint),
    )


def _compared(clean: Checkpoint, reference: Checkpoint, pairing: Pairing, progress: Progress) -> list[Compared]:
    near: list[Compared] = []
    far: list[Sums] = []
    for at, (mine, other) in enumerate(pairing.sites, 1):
        for sums in compared(clean, reference, mine, other):
            if is_off(sums.compared) and sums.compared.reference2:
                far.append(sums)
            else:
                near.append(sums.compared)
        progress("reference", at, len(pairing.sites))
    return [*near, *explained(far, clean)]


def _left_plain(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The lists of methods whose readers look for parts of names; compressed-tensors' names are whole or patterns."""
    said = checkpoint.config.get("quantization_config")
    lists = [said.get(key) for key in _LEFT_PLAIN] if isinstance(said, dict) else []
    return tuple(str(entry) for entries in lists if isinstance(entries, list) for entry in entries)


def _held(modules: Iterable[Module], matrices: Iterable[Compared]) -> list[Held]:
    """The rows of the document; of fused experts the error is over all that were compared."""
    by_module: dict[str, list[Compared]] = {}
    for matrix in matrices:
        by_module.setdefault(matrix.name.partition(", expert ")[0], []).append(matrix)
    rows = []
    for module in modules:
        parts = by_module.get(module.name, [])
        original = sum(part.reference2 for part in parts)
        rms = module.rms
        rows.append(
            Held(
                name=module.name,
                role=module.role,
                layer=module.layer,
                form=module.form,
                packed=module.is_packed,
                shape=list(module.shape),
                claimed=module.claimed,
                rms=rms if rms is not None and math.isfinite(rms) else None,
                relative_rms=(sum(part.error2 for part in parts) / original) ** 0.5 if original else None,
                gain=sum(part.product for part in parts) / original if original else None,
            )
        )
    return rows


def _notes(checkpoint: Checkpoint) -> list[str]:
    """Of the files; what is said of packed weights there, a finding says here."""
    unpacked = packed.Unpacked(checkpoint.tensors)
    said = (*packed.stored_note(unpacked.packed), *packed.contradictions(unpacked, checkpoint.claims))
    return [note for note in checkpoint.notes if note not in said]
