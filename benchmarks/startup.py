"""Start-up of the commands that must not import torch, against importing the libraries they stand on.

The report is of the demo's size: 362 sites, three formats, 16 calibration sequences, 6 MB.
"""

import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from timing import median_seconds, verdict

from srdd.core.tally import Tally
from srdd.core.uncertainty import total
from srdd.documents.parts import Calibration, Model
from srdd.documents.report import Report
from srdd.documents.schema import Coverage, Settings, Site, measurement
from srdd.kernels import measure

LAYERS, SEQUENCES = 30, 16
# What any command line of Typer costs before its command begins: adapters built with pydantic for every argument.
EMPTY = """
import typer
app = typer.Typer(add_completion=False, rich_markup_mode=None)
@app.command()
def nothing(path: str) -> None: ...
app()
"""
SPECS = ["mxfp4:even", "nvfp4:nvidia", "mxfp8_e4m3:rceil"]


def tallies() -> dict[str, list[Tally]]:
    """By format, of random tensors: reports whose sums contradict each other are refused."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(512, 576, generator=generator) * (1 + place) for place in range(24)]
    return {spec: [Tally.from_vector(measure(x, spec, backend="eager").tolist()) for x in tensors] for spec in SPECS}


def site(kind: str, layer: int, index: int, known: dict[str, list[Tally]], generator: random.Random) -> Site:
    formats = {}
    for spec in SPECS:
        sequences = [] if kind == "weight" else generator.choices(known[spec], k=SEQUENCES)
        formats[spec] = measurement(total(sequences) if sequences else generator.choice(known[spec]), sequences)
    return Site(kind=kind, name=f"layers.{layer}.{index}", role="linear", layer=layer, index=index, formats=formats)


def write_report(path: Path) -> None:
    generator, known = random.Random(0), tallies()
    counts = {"weight": 7, "input": 4, "output": 1}
    Report(
        model=Model(id="synthetic", parameter_count=1, layer_count=LAYERS),
        settings=Settings(
            formats=SPECS,
            kinds=list(counts),
            calibration=Calibration(source="none", seq_len=512, sequence_hashes=[str(i) for i in range(SEQUENCES)]),
            device="cpu",
            dtype="float32",
            backend="fused",
            backend_reason="synthetic",
            thresholds={},
            versions={},
        ),
        coverage=Coverage(parameters=1, measured=1),
        sites=[
            site(k, x, i, known, generator) for k, count in counts.items() for x in range(LAYERS) for i in range(count)
        ],
    ).save(path)


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        write_report(report)
        base = median_seconds(lambda: run("-c", "import typer, rich, pydantic"))
        print(f"import typer, rich, pydantic  {base:.2f} s; report of {report.stat().st_size / 1e6:.1f} MB")
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY)
        print(f"{'a Typer command that does nothing':34} {median_seconds(lambda: run(str(empty), 'x')) / base:.2f}")
        limit = ["--limit", "relative_error=+5%", "--site", "output"]
        both = [str(report), "--baseline", str(report)]
        slim = str(Path(folder) / "gate.json")
        run("-m", "srdd", "check", str(report), "--write-baseline", slim)
        for name, command, most in (
            ("--help", ["--help"], 2),
            ("zones", ["zones", str(report)], 2),
            ("check, one limit", ["check", *both, *limit], 2),
            ("check, the built-in limits", ["check", *both], 3),
            ("check, a slim baseline", ["check", str(report), "--baseline", slim], 3),
        ):
            seconds = median_seconds(lambda command=command: run("-m", "srdd", *command))
            print(f"srdd {name:29} {verdict(seconds / base, most, at_most=True)}")
        for command in (["formats"], ["schema"], ["multipliers", str(report)], ["advise", str(report)]):
            seconds = median_seconds(lambda command=command: run("-m", "srdd", *command))
            print(f"srdd {command[0]:29} {seconds / base:.2f}")


if __name__ == "__main__":
    main()
