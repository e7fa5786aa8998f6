"""`srdd probe`: how much noise each quantization mode bears; writes srdd-probe.json and shows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srdd.cli import options

if TYPE_CHECKING:
    from srdd.core.formats import BlockFormat
    from srdd.documents.probe import Criterion


def probe(
    context: typer.Context,
    quant: options.OneFormat,
    model: options.Model = None,
    model_option: options.ModelOption = None,
    modes: Annotated[str, typer.Option("--modes", help="With the format's bits.")] = "w16a16,w4a16,w16a4,w4a4",
    target: Annotated[str, typer.Option("--target", help="rmsnorm, linear or both, comma separated.")] = "rmsnorm",
    sigmas: Annotated[
        str | None, typer.Option("--sigmas", help="Grid, e.g. 0.01,0.02,0.05 (default: 0.025-0.8 of the weights' rms).")
    ] = None,
    relative: options.Relative = False,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Noise draws at every sigma.")] = 3,
    criterion: Annotated[
        str, typer.Option("--criterion", help="What may not move further than --limit: loss, entropy or agreement.")
    ] = "loss",
    limit: Annotated[
        float | None, typer.Option("--limit", help="Ratio to the mode without noise (1.1); agreement: a share (0.8).")
    ] = None,
    multipliers: Annotated[
        Path | None, typer.Option("--multipliers", help="rin.yaml: its profile beside the global one.")
    ] = None,
    exclude: options.Unquantized = None,
    plant: options.Plant = None,
    data: options.Data = None,
    text_column: options.TextColumn = None,
    samples: Annotated[int, typer.Option("--samples", help="Sequences to run.")] = 4,
    seq_len: options.SeqLen = 256,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Sequences at once.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="First noise seed, and order of the text.")] = 0,
    out: options.Document = Path("srdd-probe.json"),
    force: options.Force = False,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    backend: options.Backend = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Measure how much sigma each quantization mode bears, and where it breaks; write srdd-probe.json.

    Example: srdd probe smollm2 --quant mxfp4 --modes w16a16,w4a4 --seeds 5
    """
    from srdd.cli import console
    from srdd.core.files import check_new, write_text
    from srdd.documents.rin import load_rin

    model = options.named_model(context, model, model_option)
    fmt, grid = _format(quant), _numbers(sigmas)
    faults = options.named_faults(plant)
    check_new(out, force=force)
    guide = load_rin(multipliers) if multipliers is not None else None

    from srdd.cli.opening import ModelOptions, TextOptions, open_with_text, planted
    from srdd.cli.progress import bars_on
    from srdd.exporters.terminal import probe as probe_tables
    from srdd.runs.experiments.modes import name_of, parse_modes
    from srdd.runs.experiments.probe import measure_probe, targets_of

    measured = _criterion(criterion, limit, grid, range(seed, seed + seeds))
    names, targets = [name_of(mode, fmt) for mode in parse_modes(modes, fmt)], targets_of(target)
    aside = console.aside()
    opened, sequences = open_with_text(
        aside,
        ModelOptions(model, revision, dtype, device, None, trust_remote_code, backend),
        TextOptions(data, text_column, samples, seq_len, batch_size, seed),
    )
    aside.print(
        f"Noise on {', '.join(targets)} weights in {', '.join(names)} ({fmt.spec}), {seeds} seeds, {samples} sequences "
        f"of {seq_len} tokens, {opened.device}"
    )
    with planted(opened.model, faults), bars_on(aside) as progress:
        document = measure_probe(
            opened.model,
            sequences,
            fmt,
            modes,
            targets,
            sigmas=grid,
            relative=relative,
            seeds=range(seed, seed + seeds),
            criterion=measured,
            limit=limit,
            multipliers=guide,
            batch_size=batch_size,
            exclude=tuple(exclude or ()),
            backend=backend,
            identity=opened.identity,
            notes=opened.notes,
            progress=progress,
        )
    text = document.model_dump_json(indent=1)
    write_text(out, text + "\n")
    if as_json:
        console.machine(text)
    else:
        probe_tables.show(console.people(), document)
    aside.print(f"Probe: {out}. See it again with `srdd show {out}`.")


def _format(quant: str) -> BlockFormat:
    from srdd.core.formats import parse
    from srdd.errors import SettingError

    if "," in quant:
        raise SettingError("spec", quant, "a probe is of one format; run it once for each")
    return parse(quant)


def _criterion(text: str, limit: float | None, sigmas: list[float] | None, seeds: range) -> Criterion:
    """The criterion. What measure_probe would refuse once the model is open is refused here. Raises SettingError."""
    from srdd.errors import SettingError
    from srdd.runs.experiments.probe import LIMITS, check_settings

    criterion = next((name for name in LIMITS if name == text), None)
    if criterion is None:
        raise SettingError("criterion", text, f"expected {', '.join(LIMITS)}")
    check_settings(seeds, sigmas, criterion, LIMITS[criterion] if limit is None else limit)
    return criterion


def _numbers(text: str | None) -> list[float] | None:
    from srdd.errors import SettingError

    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SettingError("sigmas", repr(text), "expected numbers, e.g. 0.01,0.02,0.05") from None
