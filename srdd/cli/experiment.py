"""`srdd experiment aqn`: does noise help, and does guidance help it? Arms, controls, seeds, tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from srdd.cli import help, options

if TYPE_CHECKING:
    from srdd.documents.rin import Schedule

experiment = typer.Typer(
    cls=help.Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Controlled experiments: several arms, seeds, paired tests.",
    pretty_exceptions_enable=False,
)


@experiment.callback()
def about() -> None:
    """Controlled experiments: several arms, seeds, paired tests.

    Example: srdd experiment aqn smollm2 --quant mxfp4 --report srdd-report.json
    """


@experiment.command(cls=help.Command, short_help="Noise on all, worst, best or random layers, with tests.")
def aqn(
    context: typer.Context,
    quant: options.OneFormat,
    model: options.Model = None,
    model_option: options.ModelOption = None,
    report: Annotated[Path, typer.Option("--report", help="The report that ranks the layers.")] = Path(
        "srdd-report.json"
    ),
    kind: Annotated[
        str, typer.Option("--kind", help="inference: loss under noise; train: quantized loss after a fine-tuning.")
    ] = "inference",
    mode: Annotated[str | None, typer.Option("--mode", help="Default: weights and inputs, e.g. w4a4.")] = None,
    site: Annotated[str | None, typer.Option("--site", help="Of the report: weight, input or output.")] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="Ranks the layers (default: predicted_kl, without costs relative_error)."),
    ] = None,
    worst: Annotated[
        int | None, typer.Option("--worst", help="Layers in targeted, healthy, random (a quarter).")
    ] = None,
    target: Annotated[str, typer.Option("--target", help="What gets noise: rmsnorm, linear or both.")] = "rmsnorm",
    sigma_start: Annotated[float, typer.Option("--sigma-start", help="Noise; in inference the only sigma.")] = 0.01,
    sigma_end: Annotated[
        float | None, typer.Option("--sigma-end", help="train: last sigma (default: a hundredth of the first).")
    ] = None,
    relative: options.Relative = False,
    fault: Annotated[
        str | None,
        typer.Option(
            "--fault",
            help="Plant a fault in all arms but the clean one, e.g. layer=10,deadzone=0.01; adds a dither arm.",
        ),
    ] = None,
    plant: options.Plant = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Pairs; 5 or more.")] = 5,
    steps: Annotated[int, typer.Option("--steps", help="train: optimizer steps.")] = 20,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="train: AdamW's.")] = 2e-5,
    train_batch: Annotated[int, typer.Option("--train-batch", help="train: sequences a step.")] = 2,
    exclude: options.Unquantized = None,
    data: options.Data = None,
    text_column: options.TextColumn = None,
    samples: Annotated[
        int | None, typer.Option("--samples", help="Sequences per seed (2); train: held out for all seeds (16).")
    ] = None,
    seq_len: options.SeqLen = 128,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Sequences at once in evaluation.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="The first seed, and order of the text.")] = 0,
    out: options.Document = Path("srdd-experiment.json"),
    force: options.Force = False,
    revision: options.Revision = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto (train: float32), float32, bfloat16, float16.")] = "auto",
    device: options.Device = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    backend: options.Backend = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Compare noise on all, on the worst, on the best and on random layers, paired by seed, with corrected tests.

    Example: srdd experiment aqn smollm2 --quant mxfp4 --report srdd-report.json --seeds 8
    """
    from srdd.analysis.layer_costs import cost_specs, weakness
    from srdd.analysis.series import layer_series
    from srdd.cli import console
    from srdd.cli.opening import ModelOptions, TextOptions, given, open_with_text, planted
    from srdd.core.faults import parse_fault
    from srdd.core.files import check_new, write_text
    from srdd.core.formats import parse
    from srdd.core.metrics import COSTS
    from srdd.documents.opening import open_document
    from srdd.documents.report import Report
    from srdd.errors import SettingError

    model = options.named_model(context, model, model_option)
    measured = _measured(kind, given(context))
    _check_numbers(seeds, samples, {"steps": steps, "learning_rate": learning_rate, "train_batch": train_batch})
    fmt, training = parse(quant), measured == "train"
    faults = options.named_faults(plant)
    check_new(out, force=force)
    ranking = open_document(report, Report)
    document, sha256 = ranking.document, ranking.sha256
    spec = fmt.spec if fmt.spec in [*document.settings.formats, *cost_specs(document)] else None
    if spec is None:
        listed = ", ".join(document.settings.formats)
        console.problem(f"warning: {report} does not hold {fmt.spec}; its first format ranks the layers ({listed})")
    series = layer_series(document, site, spec, metric)
    for note in weakness(document) if series.metric not in COSTS else ():
        console.problem(f"warning: {note}")

    from srdd.cli.progress import bars_on
    from srdd.exporters.terminal import experiment as experiment_tables
    from srdd.runs.experiments.aqn import run_aqn
    from srdd.runs.experiments.arm_trial import Training
    from srdd.runs.experiments.arms import make_arms
    from srdd.runs.experiments.modes import parse_mode
    from srdd.runs.experiments.profiles import check_target
    from srdd.runs.experiments.same_model import check_report

    in_arms = None if fault is None else parse_fault(fault, "fault")
    if in_arms is not None and in_arms.layer >= series.depth:
        raise SettingError("fault", f"layer={in_arms.layer}", f"{report} has layers 0 to {series.depth - 1}")
    if mode is not None:
        parse_mode(mode, fmt)
    check_target(target)
    if worst is not None:
        make_arms(series.errors, worst, fault=in_arms is not None)
    schedule = _schedule(measured, sigma_start, sigma_end)
    per_seed = samples if samples is not None else 16 if training else 2
    fine_tuning = Training(steps, learning_rate, train_batch) if training else None
    needed = per_seed + steps * train_batch if training else per_seed * seeds
    aside = console.aside()
    opened, sequences = open_with_text(
        aside,
        ModelOptions(
            model,
            revision,
            "float32" if training and dtype == "auto" else dtype,
            device,
            None,
            trust_remote_code,
            backend,
        ),
        TextOptions(data, text_column, needed, seq_len, batch_size, seed),
    )
    notes = check_report(document.model, opened.identity, report)
    aside.print(
        f"AQN, {measured}: {fmt.spec}, noise on {target}, sigma {sigma_start:g}, {seeds} seeds, layers ranked by "
        f"{series.title}"
    )
    with planted(opened.model, faults), bars_on(aside) as progress:
        result = run_aqn(
            opened.model,
            sequences,
            fmt,
            series.errors,
            ranked_by=series.title,
            report_sha256=sha256,
            kind=measured,
            mode=mode,
            target=target,  # type: ignore[arg-type]  # the profile refuses what is none
            schedule=schedule,
            relative=relative,
            seeds=range(seed, seed + seeds),
            worst=worst,
            samples=per_seed,
            training=fine_tuning,
            fault=in_arms,
            batch_size=batch_size,
            exclude=tuple(exclude or ()),
            backend=backend,
            identity=opened.identity,
            notes=[*opened.notes, *notes],
            progress=lambda arm, done, total: progress("arms and seeds", done, total),
        )
    text = result.model_dump_json(indent=1)
    write_text(out, text + "\n")
    if as_json:
        console.machine(text)
    else:
        experiment_tables.show(console.people(), result)
    aside.print(f"Experiment: {out}. See it again with `srdd show {out}`.")


def _measured(kind: str, typed: frozenset[str]) -> Literal["inference", "train"]:
    """What --kind says, with nothing typed beside it that only the other takes."""
    from srdd.cli.opening import refuse_unused
    from srdd.errors import SettingError, setting

    if kind == "train":
        return "train"
    if kind != "inference":
        raise SettingError("measured", kind, "expected inference or train")
    of_training = ("steps", "learning_rate", "train_batch", "sigma_end")
    refuse_unused(typed, of_training, f"on {setting('measured', 'inference')}")
    return "inference"


def _check_numbers(seeds: int, samples: int | None, of_training: dict[str, float]) -> None:
    from srdd.errors import SettingError

    for name, value in of_training.items():
        if not value > 0:
            raise SettingError(name, f"{value:g}", "expected above 0")
    if seeds < 2:
        raise SettingError("seeds", seeds, "expected 2 or more; one seed shows nothing")
    if samples is not None and samples < 1:
        raise SettingError("samples", samples, "expected 1 or more")


def _schedule(kind: str, sigma_start: float, sigma_end: float | None) -> Schedule:
    from srdd.analysis.dose import Course

    course = Course("constant") if kind == "inference" else Course(sigma_end=sigma_end)
    return course.starting(sigma_start)
