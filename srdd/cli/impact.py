"""`srdd impact`: what quantization costs, down to KL; writes srdd-impact.json and shows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srdd.cli import options

if TYPE_CHECKING:
    from srdd.core.formats import BlockFormat
    from srdd.core.modes import Mode
    from srdd.documents.costs import How
    from srdd.documents.report import Report


_FORMATS = ["mxfp4"]
_MODES: dict[str, Mode] = {"w": "weight", "a": "input", "wa": "both"}


def impact(
    context: typer.Context,
    model: options.Model = None,
    model_option: options.ModelOption = None,
    quant: Annotated[
        list[str], typer.Option("--quant", help="Formats, comma separated; identity is the control.")
    ] = _FORMATS,
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
    noise_on: options.NoiseOn = "norm",
    draws: Annotated[
        int | None,
        typer.Option("--draws", help="Draws of formats that round stochastically (default: 4): mean and spread."),
    ] = None,
    exclude: options.Unquantized = None,
    plant: options.Plant = None,
    data: options.Data = None,
    text_column: options.TextColumn = None,
    samples: Annotated[int, typer.Option("--samples", help="Sequences to run.")] = 8,
    seq_len: options.SeqLen = 512,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Sequences at once.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="For the order of the text, labels and noise.")] = 0,
    out: options.Document = Path("srdd-impact.json"),
    force: options.Force = False,
    adapter: options.Adapter = None,
    adapter_as: options.AdapterAs = None,
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

    Example: srdd impact smollm2 --quant mxfp4 --modes wa --attribute gradient,swap
    """
    from srdd.cli import console
    from srdd.cli.opening import given, refuse_unused
    from srdd.core.files import check_new
    from srdd.errors import setting

    model, lora = options.named_model(context, model, model_option), options.one_adapter(adapter)
    formats, wanted, attributes = _formats(quant), _parse_modes(modes), _attributes(attribute)
    sensitive = options.named_sensitive(noise_on)
    _check_numbers(rows, label_samples, attributes)
    if "predicted" not in attributes:
        refuse_unused(given(context), ("noise_on",), f"without {setting('attribute', 'gradient')}")
    faults = options.named_faults(plant)
    check_new(out, force=force)

    from srdd.cli.opening import ModelOptions, TextOptions, open_with_text, planted
    from srdd.cli.progress import bars_on
    from srdd.exporters.terminal import costs
    from srdd.runs.impact.request import check_draws
    from srdd.runs.impact.run import measure_impact

    check_draws(draws, [fmt for fmt in formats if fmt is not None])
    aside = console.aside()
    opened, sequences = open_with_text(
        aside,
        ModelOptions(model, revision, dtype, device, device_map, trust_remote_code, backend, lora, adapter_as),
        TextOptions(data, text_column, samples, seq_len, batch_size, seed),
    )
    names = ", ".join("identity" if f is None else f.spec for f in formats)
    aside.print(f"Impact of {names} ({', '.join(wanted)}) on {samples} sequences of {seq_len} tokens, {opened.device}")
    with planted(opened.model, faults), bars_on(aside) as progress:
        report = measure_impact(
            opened.model,
            sequences,
            formats,
            wanted,
            how=attributes,
            sensitive=sensitive,
            tokens_per_sequence=rows,
            label_samples=label_samples,
            batch_size=batch_size,
            exclude=tuple(exclude or ()),
            noise=noise,
            draws=draws,
            backend=backend,
            seed=seed,
            identity=opened.identity,
            notes=opened.notes,
            progress=progress,
        )
    report.save(out)
    if as_json:
        from srdd.documents.report import dumps

        console.machine(dumps(report))
    else:
        costs.show(console.people(), report, top)
    aside.print(f"Impact: {out}.{_hint(report, out)}")


def _hint(report: Report, out: Path) -> str:
    """What ranks layers by damage, if the report holds it."""
    has_kl = any(row.predicted_kl or row.measured_kl for row in report.costs.layers) if report.costs else False
    return f" Rank by damage with `srdd zones {out}`." if has_kl else ""


def _check_numbers(rows: int, label_samples: int, attributes: list[How]) -> None:
    from srdd.errors import NoEffectError, SettingError, setting

    if rows < 0:
        raise SettingError("rows", rows, "expected 0 (all) or more")
    if label_samples < 1:
        raise SettingError("label_samples", label_samples, "expected 1 or more")
    if label_samples > 1 and "predicted" not in attributes:
        raise NoEffectError("label_samples", f"without {setting('attribute', 'gradient')}")


def _formats(quant: list[str]) -> list[BlockFormat | None]:
    """None is the identity, the control."""
    from srdd.core.formats import parse_list

    names = options.named_formats(quant)
    real = [name for name in names if name != "identity"]
    parsed: list[BlockFormat | None] = [*parse_list(real)] if real else []
    return [*parsed, None] if len(real) < len(names) else parsed


def _parse_modes(text: str) -> list[Mode]:
    from srdd.errors import SettingError

    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in _MODES]
    if unknown or len(set(names)) != len(names):
        raise SettingError("modes", repr(text), f"expected each of {', '.join(_MODES)} at most once")
    return [_MODES[name] for name in names]


def _attributes(text: str) -> list[How]:
    from srdd.errors import SettingError

    names = ["gradient", "swap"] if text == "both" else [name.strip() for name in text.split(",")]
    known: dict[str, How] = {"gradient": "predicted", "swap": "layers", "swap-groups": "groups"}
    if not set(names) <= set(known):
        raise SettingError("attribute", repr(text), f"expected {', '.join(known)}, or both (gradient,swap)")
    return [known[name] for name in dict.fromkeys(names)]
