"""`srdd impact`: what quantization costs, down to KL; writes srdd-impact.json and shows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srdd.cli import options

if TYPE_CHECKING:
    from srdd.core.formats import BlockFormat
    from srdd.core.modes import Mode


_POINTS: dict[str, Mode] = {"w": "weight", "a": "input", "wa": "both"}


def impact(
    model: Annotated[str, typer.Option("--model", help="Hugging Face id, folder, .gguf file, or smollm2 / minilm.")],
    quant: Annotated[
        list[str] | None, typer.Option("--quant", help="Formats, comma separated; identity is the control.")
    ] = None,
    modes: Annotated[
        str, typer.Option("--modes", help="w: weights (W4A16), a: inputs (W16A4), wa: both (W4A4).")
    ] = "w,a,wa",
    attribute: Annotated[
        str,
        typer.Option(
            "--attribute",
            help="Any of gradient: predicted KL; swap: measured, a layer at a time; swap-groups: a fusion group at a "
            "time; or both: gradient,swap.",
        ),
    ] = "gradient",
    rows: Annotated[int, typer.Option("--rows", help="Tokens per sequence for errors of Linears; 0: all.")] = 64,
    label_samples: Annotated[int, typer.Option("--label-samples", help="Labels drawn per token for gradient.")] = 1,
    noise: Annotated[
        bool, typer.Option("--noise", help="Also the KL of Gaussian noise of each layer's error norm.")
    ] = False,
    exclude: options.Unquantized = None,
    data: options.Data = None,
    text_column: options.TextColumn = None,
    samples: Annotated[int, typer.Option("--samples", help="Sequences to run.")] = 8,
    seq_len: options.SeqLen = 512,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Sequences at once.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="For the order of the text, labels and noise.")] = 0,
    out: options.Document = Path("srdd-impact.json"),
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    trust_remote_code: options.TrustRemoteCode = False,
    backend: options.Backend = "auto",
    top: Annotated[int, typer.Option("--top", min=1, help="How many Linears to list.")] = 10,
    as_json: options.AsJson = False,
) -> None:
    """Measure what quantization costs: W, A and W+A, local and accumulated, down to KL; write srdd-impact.json.

    Example: srdd impact --model smollm2 --quant mxfp4 --modes wa --attribute gradient,swap
    """
    from srdd.cli import console
    from srdd.core.files import check_writable, write_text

    formats, points, attributes = _formats(quant), _points(modes), _attributes(attribute)
    _check_numbers(rows, label_samples, attributes)
    check_writable(out)

    from srdd.cli.opening import open_with_text
    from srdd.cli.progress import bars_on
    from srdd.exporters.terminal import impact as impact_tables
    from srdd.models.fake import EXCLUDE
    from srdd.runs.impact.run import measure_impact

    people = console.people()
    opened, sequences = open_with_text(
        people,
        model,
        data,
        text_column=text_column,
        samples=samples,
        seq_len=seq_len,
        batch_size=batch_size,
        seed=seed,
        backend=backend,
        revision=revision,
        dtype=dtype,
        device=device,
        device_map=device_map,
        trust_remote_code=trust_remote_code,
    )
    names = ", ".join("identity" if f is None else f.spec for f in formats)
    people.print(f"Impact of {names} ({', '.join(points)}) on {samples} sequences of {seq_len} tokens, {opened.device}")
    with bars_on(people) as progress:
        document = measure_impact(
            opened.model,
            sequences,
            formats,
            points,
            attribute=attributes,  # type: ignore[arg-type]  # _attributes refuses what is none
            tokens_per_sequence=rows,
            label_samples=label_samples,
            batch_size=batch_size,
            exclude=(*EXCLUDE, *(exclude or ())),
            noise=noise,
            backend=backend,
            seed=seed,
            identity=opened.identity,
            notes=opened.notes,
            progress=progress,
        )
    text = document.model_dump_json(indent=1)
    write_text(out, text + "\n")
    if as_json:
        console.machine(text)
    else:
        impact_tables.show(people, document, top)
    costs = {"gradient": "predicted_kl", "swap": "swap_kl"}
    given = document.settings.attribute if document.reference is not None else []
    ranked = [cost for name, cost in costs.items() if name in given]
    hint = f" Rank by damage with `srdd zones {out} --metric {ranked[0]}`." if ranked else ""
    people.print(f"Impact: {out}.{hint}")


def _check_numbers(rows: int, label_samples: int, attributes: list[str]) -> None:
    from srdd.errors import OptionError

    if rows < 0:
        raise OptionError(f"--rows {rows}: expected 0 (all) or more")
    if label_samples < 1:
        raise OptionError(f"--label-samples {label_samples}: expected at least 1")
    if label_samples > 1 and "gradient" not in attributes:
        raise OptionError(f"--label-samples {label_samples} has no effect without --attribute gradient; leave it out")


def _formats(quant: list[str] | None) -> list[BlockFormat | None]:
    from srdd.core.formats import parse_list
    from srdd.errors import OptionError

    names = [name.strip() for text in quant or () for name in text.split(",")]
    if not names:
        raise OptionError("no format given; say e.g. --quant mxfp4,nvfp4 (see `srdd formats`)")
    real = [name for name in names if name != "identity"]
    parsed: list[BlockFormat | None] = [*parse_list(real)] if real else []
    return [*parsed, None] if len(real) < len(names) else parsed


def _points(modes: str) -> list[Mode]:
    from srdd.errors import OptionError

    names = [name.strip() for name in modes.split(",")]
    unknown = [name for name in names if name not in _POINTS]
    if unknown or len(set(names)) != len(names):
        raise OptionError(f"--modes {modes!r}: expected each of {', '.join(_POINTS)} at most once")
    return [_POINTS[name] for name in names]


def _attributes(text: str) -> list[str]:
    from srdd.errors import OptionError

    names = ["gradient", "swap"] if text == "both" else [name.strip() for name in text.split(",")]
    known = ("gradient", "swap", "swap-groups")
    if not set(names) <= set(known):
        raise OptionError(f"--attribute {text!r}: expected {', '.join(known)}, or both (gradient,swap)")
    return list(dict.fromkeys(names))
