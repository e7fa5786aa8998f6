"""rin.yaml as the configuration that a trainer reads: one file per form.

A module that declares FORM, the name for `srdd multipliers --format`, and `render(config) -> str` is an exporter; a new
form is a new file with these two, and nothing else changes. A module may declare WARNING, one line that the command
prints beside the output. Modules here are imported to list their forms: what is slow to import belongs inside `render`.

Not here: YAML and JSON, the forms of the document itself (srdd.documents.saving).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from srdd.exporters.registry import declared

if TYPE_CHECKING:
    from srdd.documents.rin import RinConfig

__all__ = ["RinExporter", "rin_exporters"]


class RinExporter(Protocol):
    """What a module of this folder offers."""

    FORM: str

    def render(self, config: RinConfig) -> str: ...


def rin_exporters() -> dict[str, RinExporter]:
    """Every exporter of rin.yaml by its form."""
    return dict(declared(__name__, __path__, "FORM"))
