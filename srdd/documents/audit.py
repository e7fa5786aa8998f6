"""An audit: what a packed checkpoint holds, module by module, and what is wrong with it.

Not here: the rules that find it (srdd.analysis.audit) and the reading of tensors (srdd.runs.audit).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from srdd.documents.parts import Document, Model, Part

Grave = Literal["error", "warning"]


class Finding(Part):
    """One thing that is wrong, at one module or one set of modules."""

    level: Grave
    kind: str  # the rule: "fusion", "scales", ...
    module: str  # or tensor, or set of modules; "config.json" for what it says of no module in particular
    found: str
    expected: str
    advice: str  # what to do


class Held(Part):
    """One weight matrix as the files hold it, or the experts of a tensor that holds several."""

    name: str
    role: str
    layer: int | None = None
    form: str  # "NVFP4", "FP8 per row"; the type of what is not packed: "BF16"
    packed: bool
    shape: list[int]
    claimed: str | None = None  # by the config: a format, "plain", or None where it says nothing
    rms: float | None = None  # of the dequantized values; None where they were not read
    relative_rms: float | None = None  # of the error against the reference
    gain: float | None = None  # sum x r / sum r^2 against the reference; 1 where nothing is scaled


class AuditProvenance(Part):
    """What was audited, and against what."""

    srdd: str
    config: str | None = None  # the file whose claims were held against the tensors
    method: str | None = None  # its quant_method
    reference: Model | None = None


class Audit(Document):
    """The document that `srdd audit --out` writes."""

    CALLED, COMMAND = "checkpoint audit", "audit"

    schema_version: Literal[1] = 1
    document: Literal["srdd-audit"] = "srdd-audit"
    provenance: AuditProvenance
    model: Model
    modules: list[Held]
    findings: list[Finding] = Field(default_factory=list)  # errors first
    notes: list[str] = Field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "warning"]

    @property
    def passed(self) -> bool:
        """No finding at error level."""
        return not self.errors
