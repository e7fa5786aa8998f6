"""What the user asked to measure: kinds, name patterns, layers and exclusions.

Not here: finding sites (sites.py). A pattern or layer that matches nothing is an error, because it is a typo.

`Selection.parse("weight,input:*down_proj", layers=[0, 1, 2, 3, 29], exclude=["*lm_head"])` selects all weights and the
inputs of down_proj modules in five layers. Patterns are shell globs over module names; `*` crosses dots.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from torch import nn

from srdd.documents.parts import KINDS, Kind
from srdd.documents.schema import Skipped
from srdd.errors import SiteError, setting
from srdd.models.modules import require_module
from srdd.models.sites import Site, SiteMap, find_sites

_NAMES = f"see the names with {setting('find_sites')}"


@dataclass(frozen=True)
class Selection:
    """A parsed choice of sites. `text` repeats it for the report; None when everything was chosen."""

    patterns: dict[Kind, tuple[str, ...]]  # kind -> globs
    layers: tuple[int, ...] | None = None
    exclude: tuple[str, ...] = ()

    @classmethod
    def parse(
        cls, sites: str | Sequence[str], *, layers: Iterable[int] | None = None, exclude: Sequence[str] = ()
    ) -> Selection:
        """From "weight,input:*mlp*" or a list of such. Raises SiteError for an unknown kind."""
        patterns: dict[Kind, tuple[str, ...]] = {}
        for text in [sites] if isinstance(sites, str) else sites:
            for part in text.split(","):
                name, colon, glob = part.strip().partition(":")
                kind = next((k for k in KINDS if name in (k, f"{k}s")), None)
                if kind is None or (colon and not glob):
                    given = setting("sites", repr(part.strip()))
                    raise SiteError(f"{given} not understood; expected {', '.join(KINDS)}, or e.g. input:*down_proj")
                patterns[kind] = (*patterns.get(kind, ()), glob or "*")
        return cls(patterns, None if layers is None else tuple(layers), tuple(exclude))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(kind for kind in KINDS if kind in self.patterns)

    @property
    def text(self) -> str | None:
        parts = [f"{k}:{g}" for k in self.kinds for g in self.patterns[k] if g != "*"]
        if self.layers is not None:
            parts.append("layers " + ",".join(map(str, self.layers)))
        parts += [f"without {glob}" for glob in self.exclude]
        return "; ".join(parts) or None

    def apply(self, model: nn.Module) -> SiteMap:
        """The sites of a model that were asked for. Raises SiteError when a part of the selection matches nothing."""
        require_module(model)
        return self.filter(find_sites(model, self.kinds))

    def filter(self, found: SiteMap) -> SiteMap:
        """Apply kinds, patterns and exclusions; weights that fall out are listed as not selected."""
        if self.layers is not None:
            found = _only_layers(found, self.layers)
        for kind in self.kinds:
            for glob in self.patterns[kind]:
                if not any(fnmatchcase(site.name, glob) for site in found.of(kind)):
                    if glob == "*":
                        raise SiteError(_none_of(kind, [k for k in self.kinds if found.of(k)]))
                    raise SiteError(f"{setting('sites', f'{kind}:{glob}')} matches nothing; {_NAMES}")
        for glob in self.exclude:
            if not any(fnmatchcase(site.name, glob) for site in found.sites):
                raise SiteError(f"{setting('exclude', glob)} matches nothing; {_NAMES}")
        kept = tuple(site for site in found.sites if self._wants(site))
        if not kept:
            raise SiteError(f"nothing is left to measure after {setting('exclude')}")
        names = {site.name for site in kept if site.kind == "weight"}
        out = [site for site in found.of("weight") if site.name not in names]
        dropped = tuple(Skipped(name=s.name, parameters=s.numel, reason="not selected") for s in out)
        skipped = (*found.skipped, *dropped)
        return replace(found, sites=kept, skipped=skipped, kinds=self.kinds, selection=self.text)

    def _wants(self, site: Site) -> bool:
        return any(fnmatchcase(site.name, glob) for glob in self.patterns.get(site.kind, ())) and not any(
            fnmatchcase(site.name, glob) for glob in self.exclude
        )


def _none_of(kind: Kind, others: Sequence[Kind]) -> str:
    looked = " (layers: an nn.ModuleList of alike blocks that hold Linears)" if kind == "output" else ""
    instead = f"; leave it out: {setting('sites', ','.join(others))}" if others else ""
    return f"nothing to measure as {kind}: this model has none{looked}{instead}"


def _only_layers(found: SiteMap, layers: Sequence[int]) -> SiteMap:
    beyond = sorted(layer for layer in layers if layer >= found.layer_count)
    if beyond:
        span = f"layers 0-{found.layer_count - 1}" if found.layer_count else "no decoder layers"
        raise SiteError(f"layer(s) {', '.join(map(str, beyond))} do not exist; this model has {span}")
    kept = tuple(site for site in found.sites if site.layer in layers)
    out = [site for site in found.of("weight") if site.layer not in layers]
    dropped = tuple(Skipped(name=s.name, parameters=s.numel, reason="not selected") for s in out)
    return replace(found, sites=kept, skipped=(*found.skipped, *dropped))
