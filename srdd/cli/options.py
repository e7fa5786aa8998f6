"""Options that several commands take alike: their names and help stand here once, their defaults in each command.

Not here: what a command does with them, and the checks before a model is opened (opening.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from srdd.core.faults import Fault
    from srdd.runs.impact.request import Sensitive


Model = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="Hugging Face id, folder, .gguf file, or smollm2 / minilm.")
]
ModelOption = Annotated[str | None, typer.Option("--model", help="The same, for scripts that name what they give.")]

Data = Annotated[Path | None, typer.Option("--data", help="Text or token ids, as for scan. Default: own text.")]
TextColumn = Annotated[
    str | None, typer.Option("--text-column", help="The one column of --data to read. Default: by its form.")
]
SeqLen = Annotated[int, typer.Option("--seq-len", help="Tokens a sequence.")]

Revision = Annotated[str | None, typer.Option("--revision", help="Of a Hugging Face id.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
DeviceMap = Annotated[
    str | None, typer.Option("--device-map", help="auto: spread a large model over devices (extra `big`).")
]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
Backend = Annotated[str, typer.Option("--backend", help="Kernel: auto, fused, eager or reference.")]

Adapter = Annotated[
    list[str] | None,
    typer.Option("--adapter", help="Folder of a LoRA adapter to put on MODEL, which may itself be such a folder."),
]
AdapterAs = Annotated[
    str | None,
    typer.Option(
        "--adapter-as", help="apart: in 16 bit beside the quantized weight (default); merged: quantized with it."
    ),
]

OneFormat = Annotated[str, typer.Option("--quant", help="One format, e.g. mxfp4.")]
Unquantized = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Leave modules unquantized by glob, besides lm_head and embeddings; may repeat."),
]
Plant = Annotated[
    list[str] | None,
    typer.Option("--plant", help="Break the model on purpose, e.g. layer=10,deadzone=0.01; may repeat."),
]
Relative = Annotated[
    bool, typer.Option("--relative", help="sigma counts in units of each weight's own root mean square.")
]

METRIC = "A cost or metric (default: predicted_kl, without costs relative_error)."
SITE = "Error statistics of these sites: weight, input or output (default: costs, without them output)."
CostMode = Annotated[
    str | None,
    typer.Option("--mode", help="Of a cost: both (w4a4), weight (w4a16) or input; default: both where measured."),
]

NoiseOn = Annotated[
    str, typer.Option("--noise-on", help="Whose noise sensitivity is measured with the costs: norm, linear or both.")
]

Document = Annotated[Path, typer.Option("--out", "-o", help="Where the document goes.")]
Force = Annotated[bool, typer.Option("--force", help="Replace --out when it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="The document for machines on stdout.")]


def named_formats(quant: list[str]) -> list[str]:
    """The names in all --quant together."""
    return [name.strip() for text in quant for name in text.split(",")]


def named_model(context: typer.Context, argument: str | None, option: str | None) -> str:
    """The model, given as an argument or by --model. Raises SettingError for none, and for two that differ."""
    from srdd.errors import SettingError

    if argument is not None and option is not None and argument != option:
        raise SettingError("model", option, f"{argument} is given as MODEL too; give one")
    model = option if argument is None else argument
    if model is None:
        raise SettingError("model", None, f"no model given; name one, e.g. `{context.command_path} smollm2`")
    return model


def one_adapter(adapters: list[str] | None) -> str | None:
    """The adapter's folder. Raises SettingError for several."""
    from srdd.errors import SettingError

    if adapters and len(adapters) > 1:
        raise SettingError("adapter", adapters[1], f"{adapters[0]} is given too; one adapter at a time")
    return adapters[0] if adapters else None


def named_sensitive(text: str) -> tuple[Sensitive, ...]:
    """norm, linear, or both of them, as "both" or as a list. Raises SettingError."""
    from srdd.errors import SettingError

    known: dict[str, Sensitive] = {"norm": "norm", "linear": "linear"}
    names = list(known) if text == "both" else [name.strip() for name in text.split(",")]
    if not set(names) <= set(known) or len(set(names)) != len(names):
        raise SettingError("sensitive", repr(text), f"expected {', '.join(known)} or both")
    return tuple(known[name] for name in names)


def named_faults(plant: list[str] | None) -> tuple[Fault, ...]:
    """What every --plant says. Raises SettingError."""
    from srdd.core.faults import parse_fault

    return tuple(parse_fault(text) for text in plant or ())
