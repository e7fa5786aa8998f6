"""`srdd scan`: open, measure, write the report, show the summary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srdd.cli import options
from srdd.core.metrics import BY_NAME, METRICS
from srdd.core.near import did_you_mean
from srdd.core.verdicts import CLASSIC
from srdd.errors import SettingError

if TYPE_CHECKING:
    from srdd.documents.report import Report
    from srdd.models.sites import SiteMap
    from srdd.runs.scanning import CostKind

_FORMATS = ["mxfp4,nvfp4,mxfp8"]
_ALL = "weight,input,output"
# what a dry run, which measures nothing, has no use for
_NOT_DRY = (
    *("strict", "out", "force", "threshold", "data", "text_column", "seed", "backend"),
    *("samples", "seq_len", "batch_size"),
)
_COSTS = ("plant", "cost", "cost_tokens", "noise_on")


def scan(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Hugging Face id, folder, .gguf or .safetensors file, or smollm2 / minilm."
        ),
    ] = None,
    model_option: options.ModelOption = None,
    quant: Annotated[
        list[str], typer.Option("--quant", help="Formats NAME or NAME:RULE, comma separated; may repeat.")
    ] = _FORMATS,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            help="Of a packed MODEL: the 16-bit original. Measures the stored codes, beside rounding anew.",
        ),
    ] = None,
    sites: Annotated[
        str | None, typer.Option("--sites", help=f"Any of {_ALL}, each also KIND:GLOB, e.g. input:*down_proj.")
    ] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="Only these layers, e.g. 0-3,29.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", help="Leave out modules by glob; may repeat.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Calibration: .txt, .jsonl, .json, .parquet, .npz. Default: own text.")
    ] = None,
    text_column: options.TextColumn = None,
    samples: Annotated[int, typer.Option("--samples", help="Sequences to run.")] = 16,
    seq_len: options.SeqLen = 512,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Sequences at once.")] = 4,
    seed: Annotated[int, typer.Option("--seed", help="For the order of the text and stochastic rounding.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the report goes.")] = Path("srdd-report.json"),
    force: options.Force = False,
    adapter: options.Adapter = None,
    adapter_as: options.AdapterAs = None,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    trust_remote_code: options.TrustRemoteCode = False,
    backend: options.Backend = "auto",
    cost: Annotated[
        str | None,
        typer.Option(
            "--cost", help="none, predicted or measured. Default: predicted where the model has a language-model head."
        ),
    ] = None,
    cost_tokens: Annotated[
        int | None, typer.Option("--cost-tokens", help="Tokens that costs are measured on; 1280 by default.")
    ] = None,
    noise_on: options.NoiseOn = "norm",
    plant: options.Plant = None,
    threshold: Annotated[
        list[str] | None, typer.Option("--threshold", help="Override a classic limit, e.g. sqnr_db=18; may repeat.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 for NaN or infinite values, and for dead weights.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the sites and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary for machines on stdout.")] = False,
) -> None:
    """Measure a model's weights, Linear inputs and layer outputs under low-precision formats; write a report.

    Example: srdd scan smollm2 --quant mxfp4,nvfp4
    """
    from srdd.cli import console
    from srdd.cli.opening import ModelOptions, TextOptions, given, refuse_unused
    from srdd.cli.summary import summary
    from srdd.core.files import check_new
    from srdd.core.formats import parse_list
    from srdd.errors import setting

    # Everything that can be refused without torch is refused first, before anything slow is loaded.
    model, lora = options.named_model(context, model, model_option), options.one_adapter(adapter)
    typed = given(context)
    own_alone = reference is not None and "quant" not in typed  # the form of the packed weights, whichever it is
    formats = () if own_alone else parse_list(options.named_formats(quant))
    thresholds = parse_thresholds(threshold or ())
    costs = parse_cost(cost, cost_tokens)
    sensitive, faults = options.named_sensitive(noise_on), options.named_faults(plant)
    if costs == "none":
        refuse_unused(typed, ("cost_tokens", "noise_on"), f"with {setting('costs', 'none')}")
    if dry_run:
        refuse_unused(typed, (*_NOT_DRY, *_COSTS), f"with {setting('dry_run')}")
    else:
        check_new(out, force=force)
    from srdd.cli.scan_reference import run_against
    from srdd.cli.scan_steps import ScanOptions, run

    aside = console.aside()
    site_map, report = (run if reference is None else partial(run_against, reference))(
        ScanOptions(
            formats,
            sites,
            layers,
            tuple(exclude or ()),
            thresholds,
            dry_run,
            typed,
            costs,
            cost_tokens,
            sensitive,
            faults,
        ),
        ModelOptions(model, revision, dtype, device, device_map, trust_remote_code, backend, lora, adapter_as),
        TextOptions(data, text_column, samples, seq_len, batch_size, seed),
        aside,
    )
    if report is None:
        list_sites(site_map, as_json)
        return
    report.save(out)
    failure = _failure(report) if strict else ""
    with console.deciding() if failure else nullcontext():
        if as_json:
            console.document("summary", summary(report))
        else:
            from srdd.exporters.terminal import screen

            screen.show(console.people(), report, str(out))
            if report.adapter is not None:
                from srdd.exporters.terminal import adapter as adapter_table

                adapter_table.show(console.people(), report.adapter)
    aside.print(f"Report: {out}")
    if failure:
        console.problem(f"failed: {failure} (--strict)")
        raise typer.Exit(1)


def _failure(report: Report) -> str:
    """Why a strict scan fails; "" where it does not."""
    if report.has_errors:
        return "a site holds NaN or infinite values"
    if any(note.level == "dead" for note in report.warnings):
        return "a weight, or an output channel of one, is all zero"
    return ""


def list_sites(site_map: SiteMap, as_json: bool) -> None:
    """The sites of a dry run on stdout, one a line: kind, layer, module."""
    from srdd.cli import console

    rows = [
        {"kind": s.kind, "name": s.name, "role": s.role, "layer": s.layer, "group": s.group} for s in site_map.sites
    ]
    if as_json:
        console.document("sites", {"sites": rows})
        return
    for row in rows:
        console.machine(f"{row['kind']:<7} {'-' if row['layer'] is None else row['layer']:>4}  {row['name']}")


def parse_cost(text: str | None, tokens: int | None) -> CostKind:
    """What `--cost` says; "auto" where it is not given. Raises SettingError."""
    from srdd.errors import SettingError

    known: dict[str, CostKind] = {"none": "none", "predicted": "predicted", "measured": "measured"}
    if text is not None and text not in known:
        raise SettingError("costs", repr(text), f"expected {', '.join(known)}")
    if tokens is not None and tokens < 4:
        raise SettingError("cost_tokens", tokens, "expected at least 4")
    return "auto" if text is None else known[text]


def parse_thresholds(texts: Sequence[str]) -> dict[str, float]:
    """The classic thresholds with overrides such as "sqnr_db=18" applied.

    Raises SettingError, also for a metric given twice and for a limit that no measurement can cross.
    """
    thresholds = dict(CLASSIC)
    seen: set[str] = set()
    for text in texts:
        name, equals, number = text.partition("=")
        metric = BY_NAME.get(name.strip())
        if not equals or metric is None or metric.better is None:
            names = [m.name for m in METRICS if m.better is not None]
            known = ", ".join(names) + did_you_mean(name, [] if metric else names)
            raise SettingError("threshold", text, f"not understood; expected NAME=NUMBER with NAME one of: {known}")
        try:
            thresholds[metric.name] = float(number)
        except ValueError:
            raise SettingError("threshold", text, f"{number!r} is no number") from None
        if not math.isfinite(thresholds[metric.name]):
            raise SettingError("threshold", text, "expected a finite number")
        if metric.name in seen:
            raise SettingError("threshold", text, f"{metric.name} is given twice; give it once")
        seen.add(metric.name)
        low, high = -1 if metric.name == "cosine" else 0, 1
        if metric.unit != "dB" and not low <= thresholds[metric.name] <= high:
            share = ", e.g. 0.1 for 10%" if metric.unit == "%" else ""
            raise SettingError("threshold", text, f"expected {low} to {high}{share}")
    return thresholds
