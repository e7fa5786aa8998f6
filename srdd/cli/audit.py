"""`srdd audit`: what a packed checkpoint holds, and what is wrong. Exit 0 clean, 1 an error, 2 could not run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from srdd.cli import options


def audit(
    packed: Annotated[
        str, typer.Argument(metavar="PACKED", help="Hugging Face id, folder or .safetensors file.", show_default=False)
    ],
    reference: Annotated[
        str | None, typer.Option("--reference", help="The 16-bit original, to find what names and shapes hide.")
    ] = None,
    revision: options.Revision = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the audit: .json or .yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out when it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The audit for machines, on stdout.")] = False,
) -> None:
    """Say which module is in which format, and what config, scales, codes or names have wrong. No model is run.

    Example: srdd audit path/to/packed --reference path/to/original
    """
    from srdd.cli import console, outputs
    from srdd.documents import saving

    form = saving.form_of(out.suffix) if out else "json"
    outputs.check(out, force)

    from srdd.cli.progress import bars_on
    from srdd.core.packaged_models import packaged
    from srdd.errors import SourceError
    from srdd.exporters.terminal.audit import headline, show
    from srdd.models.files.checkpoint import open_checkpoint
    from srdd.runs.audit import audit as look

    aside = console.aside()
    if (packaged(packed) or Path(packed)).suffix == ".gguf":
        raise SourceError(
            f"{packed} is a GGUF file, in which codes and scales are one tensor; give a safetensors folder"
        )
    checkpoint = open_checkpoint(packed, revision=revision)
    original = None if reference is None else open_checkpoint(reference)
    with bars_on(aside) as progress:
        document = look(checkpoint, original, progress=progress)
    with nullcontext() if document.passed else console.deciding(headline(document)):
        if as_json:
            console.machine(saving.render(document, "json"))
        else:
            show(console.people(), document)
    if out is not None:
        outputs.write(out, saving.render(document, form))
        aside.print(f"Audit: {out}")
    if not document.passed:
        raise typer.Exit(1)
