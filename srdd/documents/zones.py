"""A zone map: contiguous zones of layers, the cuts between them and how stable each cut is, layers that stick out.

Not here: how zones are found (srdd.analysis.zones).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from srdd.core.layers import span
from srdd.documents.parts import Document, MadeFrom, Part

Label = Literal["high", "medium", "low"]


class Spread(Part):
    """A metric over the layers of a zone, in its own unit."""

    mean: float
    min: float
    max: float


class Zone(Part):
    """A run of layers; of zones taken together, their layers."""

    name: str
    layers: list[int]
    label: Label
    ratio: float  # mean error of its layers over that of the model's
    worst_layer: int
    metrics: dict[str, Spread]

    @property
    def span(self) -> str:
        return span(self.layers)


class Cut(Part):
    """A boundary that was found, and the share of perturbed series in which it is found again."""

    before_layer: int
    stability: float
    method: str
    units: int | None = None  # documents (or sequences) that were resampled; None: there were none to resample


class OutlierLayer(Part):
    """A layer that sticks out by itself. It belongs to a zone, but counts in none of its means."""

    layer: int
    value: float
    between: tuple[float, float]  # lowest and highest of what its neighbours let expect


class Ramp(Part):
    """A trend along the layers in place of zones: a line, or a parabola that turns; its values, not the layers' own."""

    shape: Literal["rises", "falls", "rises, then falls", "falls, then rises"]
    first: float
    last: float
    turn_layer: int | None = None
    at_turn: float | None = None


class ZoneProvenance(MadeFrom):
    """What the zones were made from, and how."""

    scheme: str
    max_zones: int | None = None


class ZoneMap(Document):
    """The document that `srdd zones --out` writes."""

    CALLED, COMMAND = "zone map", "zones"
    IS_YAML = True

    schema_version: Literal[1] = 1
    document: Literal["srdd-zones"] = "srdd-zones"
    provenance: ZoneProvenance
    zones: list[Zone]
    cuts: list[Cut] = Field(default_factory=list)
    outliers: list[OutlierLayer] = Field(default_factory=list)
    ramp: Ramp | None = None
    together: list[Zone] = Field(default_factory=list)  # zones taken as one, such as both edges
    layers: dict[int, str] = Field(default_factory=dict)  # layer -> name of its zone
