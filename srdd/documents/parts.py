"""What documents share: who was measured, on which tokens, made from what; notes and estimates.

Not here: the report's own parts (schema.py).
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import core_schema

from srdd.core.modes import Mode
from srdd.core.units import ENOUGH, units_of
from srdd.errors import ReportError

_MODEL_FIELDS = ("architecture", "layer_count", "parameter_count")


Kind = Literal["weight", "input", "output"]


KINDS: tuple[Kind, ...] = ("weight", "input", "output")
# what numbers are of: sites of a kind, whole layers or the whole model, as costs are
Place = Kind | Literal["layer", "model"]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=(), defer_build=True)


Level = Literal["dead", "error", "not deployable", "version 0", "warning"]

# What a note of each level begins with; a warning is every other.
_BEGINS: dict[Level, str] = {
    "dead": "ERROR: dead: ",  # a weight, or rows of it, that only zeros are in
    "error": "ERROR: ",
    "not deployable": "not deployable as is ",
    "version 0": "version 0 report: ",
    "warning": "",
}


class Note(str):
    """A sentence beside the numbers, and how grave it is. It is the text that people read and documents hold."""

    __slots__ = ()

    @classmethod
    def of(cls, level: Level, text: str) -> Note:
        return cls(_BEGINS[level] + text)

    @property
    def level(self) -> Level:
        """By its first words: the only place where they are read."""
        return next(level for level, begin in _BEGINS.items() if self.startswith(begin.rstrip(": ")))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


class Document(Part):
    """A part that is a file of its own. Its field `document` says in the file what it is."""

    CALLED: ClassVar[str]  # to people, in messages
    COMMAND: ClassVar[str]  # of srdd, which writes it
    IS_YAML: ClassVar[bool] = False  # it may be YAML, and then JSON too

    @classmethod
    def from_tree(cls, tree: dict[str, Any], name: str) -> Self:
        """From what a file holds; a class that knows older versions upgrades them here.

        Raises ReportError for another kind of document, ValidationError or OptionError for one that is not valid.
        """
        if tree.get("document") != cls.model_fields["document"].default:
            raise ReportError(f"{name} is no {cls.CALLED}; write one with `srdd {cls.COMMAND}`")
        return cls.model_validate(tree)


class Model(Part):
    """Which model was measured. The hash is over the headers and sizes of its weight files, not over every byte."""

    # The hash tells checkpoints apart whose tensors are called, shaped or stored otherwise; equal hashes do not prove
    # equal values. No field holds a path of anybody's machine.
    id: str
    revision: str | None = None
    architecture: str | None = None
    layer_count: int | None = None
    parameter_count: int
    weights_hash: str | None = None
    dtype: str | None = None


class MadeFrom(Part):
    """Which numbers of which report a document was made from."""

    srdd: str
    report_sha256: str
    model: str
    weights_hash: str | None = None
    quant: str
    site: str
    metric: str
    mode: Mode | None = None  # of a cost

    @classmethod
    def of(
        cls, model: Model, *, spec: str, kind: Place, metric: str, report_sha256: str = "", srdd: str = "", **more: Any
    ) -> Self:
        """`srdd` is the version that made it, by default this one; `more` are fields of a subclass."""
        from importlib.metadata import version  # slow to import, and most commands make no such document

        return cls(
            srdd=srdd or version("srdd"),
            report_sha256=report_sha256,
            model=model.id,
            weights_hash=model.weights_hash,
            quant=spec,
            site=kind,
            metric=metric,
            **more,
        )


class Calibration(Part):
    """The tokens behind the activations. `sequence_hashes` identify them; a sequence is never counted twice.

    `documents` are hashes of the documents that the sequences are of, by their own tokens, so that parts scanned apart
    know what they share; `offsets` tell where in it each sequence begins. Both empty: not known, and then every
    sequence is a unit of its own. `read` names the forms of what the file held, `dropped` what was left out of it.
    """

    source: str
    data_sha256: str | None = None
    seq_len: int
    sequence_hashes: list[str]
    documents: list[str] = Field(default_factory=list)
    offsets: list[int] = Field(default_factory=list)
    read: str = ""
    dropped: str = ""
    seed: int | None = None

    @model_validator(mode="after")
    def _a_document_each(self) -> Calibration:
        counts = {len(self.documents), len(self.offsets)}
        if len(counts) > 1 or not counts <= {0, len(self.sequence_hashes)}:
            told = f"{len(self.documents)} documents and {len(self.offsets)} offsets"
            raise ValueError(f"{told} of {len(self.sequence_hashes)} sequences; expected one each, or none")
        return self

    @property
    def tokens(self) -> int:
        return self.seq_len * len(self.sequence_hashes)

    @property
    def tokens_sha256(self) -> str:
        return hashlib.sha256("".join(self.sequence_hashes).encode()).hexdigest()

    @property
    def unit_of(self) -> tuple[int, ...] | None:
        """The unit of uncertainty of every sequence (srdd.core.units); None: each is its own."""
        units = units_of(self.documents, self.offsets)
        return units if len(set(units)) < len(units) else None

    @property
    def units(self) -> int:
        """How many units the standard errors rest on; they have one degree of freedom less."""
        return len(self.sequence_hashes) if self.unit_of is None else len(set(self.unit_of))

    @property
    def unit_names(self) -> list[str]:
        """What identifies the units in any order of the sequences: the hashes of all that belong to each."""
        members: dict[int, list[str]] = {}
        for unit, name in zip(self.unit_of or range(self.units), self.sequence_hashes, strict=True):
            members.setdefault(unit, []).append(name)
        return [" ".join(sorted(names)) for names in members.values()]


class Estimate(Part):
    """A mean over sequences and its standard error; None with fewer than two sequences."""

    value: float
    error: float | None = None


def other_model(base: Model, new: Model) -> list[tuple[str, object, object]]:
    """The fields by which two models are not the same, with both values; what one does not know cannot differ."""
    fields = [(name, getattr(base, name), getattr(new, name)) for name in _MODEL_FIELDS]
    return [(name, a, b) for name, a, b in fields if a and b and a != b]  # version 0 does not know


def notes_on_units(calibration: Calibration | None) -> list[Note]:
    """What a reader of standard errors must know of the text: that it is one document, or holds few."""
    if calibration is None or calibration.units < 2:
        return []
    documents = len(set(calibration.documents))
    if documents == 1:
        few = "standard errors over parts of it are too small; give several documents"
        return [Note(f"the text is one document: {few}")]
    count = len(calibration.sequence_hashes)
    if calibration.units < min(ENOUGH, count):
        rough = f"standard errors over fewer than {ENOUGH} are rough; give more or shorter documents"
        return [Note(f"the {count} calibration sequences are of {documents} documents: {rough}")]
    return []


def joined(a: Calibration, b: Calibration) -> Calibration:
    """The calibration of two halves. A half that does not know its documents has one for each of its sequences."""
    hashes, documents, offsets = [*a.sequence_hashes, *b.sequence_hashes], [], []
    if a.documents or b.documents:
        documents = [*(a.documents or a.sequence_hashes), *(b.documents or b.sequence_hashes)]
        offsets = [*(a.offsets or [0] * len(a.sequence_hashes)), *(b.offsets or [0] * len(b.sequence_hashes))]
    return a.model_validate({**dict(a), "sequence_hashes": hashes, "documents": documents, "offsets": offsets})


def same_sequences(a: Calibration, b: Calibration) -> bool:
    return a.seq_len == b.seq_len and sorted(a.sequence_hashes) == sorted(b.sequence_hashes)
