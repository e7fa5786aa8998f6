"""Every file that srdd writes or reads: schema, opening, saving, merging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srdd.documents.saving import save as save

__all__ = ["save"]


def __getattr__(name: str) -> Any:
    if name == "save":
        from srdd.documents.saving import save

        return save
    raise AttributeError(f"module 'srdd.documents' has no attribute {name!r}")
