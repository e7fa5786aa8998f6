"""Whether two standard errors hold what they promise: python benchmarks/coverage.py FOLDER [--only 128|512|long].

Texts that every machine with srdd has (documentation of Python, numpy, scipy and torch) are packed as calibration data
is and scanned once; what is measured stays in FOLDER and is not measured again. Neighbouring sequences are then taken
sixteen or more at a time, as if each set were the text of a scan of its own; no document is in two sets. The table has
the share of pairs of sets whose difference lies within two standard errors of it: the median over sites, layers or
groups, the lowest and the highest in brackets; and the errors over the true spread of such differences. "sequences":
each is a unit, as it was; "documents": as it is. Within t: a set of few documents needs more than two errors for the
same confidence, and that many are taken. "long": sets are parts of one long document, each in blocks, and are
compared with the other parts of their document.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from pathlib import Path
from pydoc_data.topics import topics
from statistics import fmean, median

from scipy.stats import t as student

from srdd.core.formats import parse_list
from srdd.core.metrics import METRICS
from srdd.core.units import units_of
from srdd.documents.costs import Cost, Costs
from srdd.documents.merging_costs import merge_costs
from srdd.documents.parts import Calibration
from srdd.documents.report import Report
from srdd.documents.schema import Measurement
from srdd.models.selection import Selection
from srdd.models.source import open_model
from srdd.runs.calibration import Sequences, load_sequences
from srdd.runs.impact.predict import predict_costs
from srdd.runs.scanning import scan

_OWN = "argparse asyncio collections decimal difflib doctest email.message fractions logging pickle random statistics"
_MORE = "subprocess turtle typing unittest zipfile numpy numpy.linalg scipy.linalg scipy.optimize scipy.signal"
MODULES = sorted(f"{_OWN} {_MORE} scipy.stats torch torch.nn".split(" "))
LAYERS = [0, 7, 15, 22, 29]
CHUNK = 32  # sequences whose costs are measured and kept at once


@dataclass(frozen=True)
class Trial:
    """One kind of text."""

    name: str
    seq_len: int
    characters: tuple[int, int]  # of a document
    sequences: int
    cost_sequences: int
    cost_tokens: int  # the first of each
    sets: tuple[int, ...]  # sequences in one
    of_one: bool = False  # a set is of one document and is compared with other sets of it


TRIALS = (
    Trial("128", 128, (600, 2500), 512, 320, 128, (16, 32)),
    Trial("512", 512, (2000, 12000), 192, 192, 160, (16,)),
    Trial("long", 128, (20000, 10**9), 512, 0, 0, (16,), of_one=True),
)
Error = Callable[[Sequence[int], tuple[int, ...] | None], tuple[float, float]]  # places, units -> value, error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=[trial.name for trial in TRIALS])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for trial in TRIALS:
        if options.only in (None, trial.name):
            report, costs = measured(trial, options.folder)
            for size in trial.sets:
                table(trial, size, report, costs)


def texts(characters: tuple[int, int]) -> list[str]:
    """Docstrings and topics of the language, each once, of so many characters."""
    found = {topics[name].strip(): None for name in sorted(topics)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some names of typing are deprecated
        for module in map(importlib.import_module, MODULES):
            public = (getattr(module, name) for name in sorted(vars(module)) if not name.startswith("_"))
            for thing in (module, *public):
                if isinstance(thing.__doc__, str):
                    found.setdefault(inspect.cleandoc(thing.__doc__))
    return [text for text in found if characters[0] <= len(text) <= characters[1]]


def measured(trial: Trial, folder: Path) -> tuple[Report, Costs | None]:
    """Read from the folder where they are known."""
    data, kept = folder / f"{trial.name}.jsonl", folder / f"{trial.name}.json"
    if not data.exists():
        data.write_text("\n".join(json.dumps({"text": text}) for text in texts(trial.characters)), encoding="utf-8")
    opened = open_model("smollm2")
    every = load_sequences(data, opened.tokenizer, samples=trial.sequences, seq_len=trial.seq_len)
    if not kept.exists():
        sites = Selection.parse("input,output", layers=LAYERS)
        scan(opened.model, every, "mxfp4", sites, identity=opened.identity).save(kept)
    chunks = []
    for start in range(0, trial.cost_sequences, CHUNK):
        file = folder / f"{trial.name}-costs-{start:04d}.json"
        if not file.exists():
            part = first_of(every, start, trial.cost_tokens)
            costs = predict_costs(opened.model, part, parse_list(["mxfp4"]), sensitive=())
            file.write_text(costs.model_dump_json(), encoding="utf-8")
        chunks.append(Costs.model_validate_json(file.read_text(encoding="utf-8")))
    return Report.load(kept), reduce(merge_costs, chunks) if chunks else None


def first_of(every: Sequences, start: int, tokens: int) -> Sequences:
    """The first tokens of a chunk of sequences."""
    ids, pieces = every.token_ids[start : start + CHUNK, :tokens], every.pieces[start : start + CHUNK]
    return Sequences(ids, every.source, every.data_sha256, "", every.seed, pieces)


def table(trial: Trial, size: int, report: Report, costs: Costs | None) -> None:
    calibration = report.settings.calibration
    assert calibration is not None, "activations have tokens"
    print(f"\n{size} sequences of {trial.seq_len} tokens a set")
    print("| | sequences: within 2 errors | error / spread | documents: within 2 errors | error / spread | within t |")
    print("| --- | --- | --- | --- | --- | --- |")
    sets = of_one_document(calibration, size) if trial.of_one else disjoint(calibration, size)
    for metric in METRICS:
        if not metric.of_maximum:
            sites = [site_error(site.formats["mxfp4:even"], metric.name) for site in report.sites]
            print_row(metric.name, sites, calibration, sets)
    print_sets("metrics", calibration, sets)
    if costs is not None:
        paid = costs.settings.calibration
        sets = disjoint(paid, size)
        for name, of in numbers(costs):
            print_row(name, [cost_error(cost.sequences or []) for cost in of], paid, sets)
        print_sets("costs", paid, sets)


def print_sets(what: str, calibration: Calibration, sets: list[list[list[int]]]) -> None:
    units = [len(set(units_in(calibration, places))) for of in sets for places in of]
    pairs = sum(math.comb(len(of), 2) for of in sets)
    print(
        f"{what}: {pairs} pairs of {len(units)} sets, {fmean(units):.1f} documents in one ({min(units)}-{max(units)})"
    )


def disjoint(calibration: Calibration, size: int) -> list[list[list[int]]]:
    """Runs of neighbouring sequences that share no document, from four places to begin with."""
    shifted = []
    for shift in range(0, size, max(size // 4, 1)):
        sets, at, count = [], shift, len(calibration.documents)
        while at + size <= count:
            sets.append(list(range(at, at + size)))
            at += size
            while at < count and calibration.documents[at] == calibration.documents[at - 1]:
                at += 1
        shifted.append(sets)
    return shifted


def of_one_document(calibration: Calibration, size: int) -> list[list[list[int]]]:
    """Runs of neighbouring sequences, a list for each document that has two or more."""
    places: dict[str, list[int]] = {}
    for at, name in enumerate(calibration.documents):
        places.setdefault(name, []).append(at)
    runs = [[of[at : at + size] for at in range(0, len(of) - size + 1, size)] for of in places.values()]
    return [sets for sets in runs if len(sets) > 1]


def units_in(calibration: Calibration, places: Sequence[int]) -> tuple[int, ...]:
    return units_of([calibration.documents[at] for at in places], [calibration.offsets[at] for at in places])


def site_error(whole: Measurement, metric: str) -> Error:
    sequences = whole.sequences or []

    def of(places: Sequence[int], unit_of: tuple[int, ...] | None) -> tuple[float, float]:
        part = Measurement(sequences=[sequences[at] for at in places], unit_of=unit_of)
        return part.value(metric), part.error(metric)

    return of


def cost_error(sequences: Sequence[float]) -> Error:
    def of(places: Sequence[int], unit_of: tuple[int, ...] | None) -> tuple[float, float]:
        cost = Cost.of([sequences[at] for at in places], unit_of)
        return cost.value, math.nan if cost.error is None else cost.error

    return of


def numbers(costs: Costs) -> Iterator[tuple[str, list[Cost]]]:
    """Of the whole model, and predicted layer by layer, in W4A4."""
    assert costs.clean is not None, "a language model"
    whole = [row for row in costs.whole if row.mode == "both"]
    yield "loss of the model as it is", [costs.clean.loss]
    yield "loss", [row.loss for row in whole]
    yield "KL", [row.kl for row in whole]
    yield "top-1 agreement", [row.top1 for row in whole]
    yield (
        "predicted KL of layers",
        [row.predicted_kl for row in costs.layers if row.predicted_kl and row.mode == "both"],
    )
    yield "predicted KL of groups", [row.predicted_kl["both"] for row in costs.groups if "both" in row.predicted_kl]


def print_row(name: str, rows: Sequence[Error], calibration: Calibration, sets: list[list[list[int]]]) -> None:
    found = [[covered(row, calibration, sets, grouped=grouped) for row in rows] for grouped in (False, True)]
    known = [[one for one in of if one is not None] for of in found]
    if not all(known):
        print(f"| {name} | - | - | - | - | - |")
        return
    before, after = known
    cells = [spread([one.within for one in before]), f"{median(one.share for one in before):.2f}"]
    cells += [spread([one.within for one in after]), f"{median(one.share for one in after):.2f}"]
    print(f"| {name} | {' | '.join(cells)} | {spread([one.within_t for one in after])} |", flush=True)


def spread(shares: Sequence[float]) -> str:
    if len(shares) == 1:
        return f"{100 * shares[0]:.0f} %"
    return f"{100 * median(shares):.0f} % ({100 * min(shares):.0f}-{100 * max(shares):.0f})"


@dataclass(frozen=True)
class Covered:
    within: float  # share of pairs within two errors
    within_t: float  # within as many errors as a t distribution holds 95.45 % in
    share: float  # root mean square of the errors over that of the true spread


def covered(row: Error, calibration: Calibration, shifted: list[list[list[int]]], *, grouped: bool) -> Covered | None:
    """None of a number that never has an error."""
    within, within_t, squares, spreads = [], [], [], []
    for sets in shifted:
        found = []
        for places in sets:
            unit_of = units_in(calibration, places) if grouped else None
            found.append((*row(places, unit_of), len(set(unit_of or places)) - 1))
        for (a, error_a, free_a), (b, error_b, free_b) in combinations(found, 2):
            error = math.hypot(error_a, error_b)
            if error > 0:
                freedom = error**4 / (error_a**4 / free_a + error_b**4 / free_b)  # Welch and Satterthwaite
                within.append(abs(a - b) <= 2 * error)
                within_t.append(abs(a - b) <= student.ppf(1 - student_tail(), freedom) * error)
                squares.append(error**2)
                spreads.append((a - b) ** 2)
    if not within or not any(spreads):
        return None
    return Covered(fmean(within), fmean(within_t), math.sqrt(fmean(squares) / fmean(spreads)))


def student_tail() -> float:
    """What a normal distribution holds beyond two of its errors on one side."""
    return math.erfc(math.sqrt(2)) / 2


if __name__ == "__main__":
    main()
