"""How much more noise a guided profile bears than uniform noise at equal damage: python benchmarks/noise_profiles.py.

Noise on norms. A scan gives sensitivities, costs and errors, `srdd multipliers` a profile for each strategy, and
`srdd probe` measures both profiles with the same seeds on other text. At equal damage means: at the same KL (against
the same mode without noise), or where the loss is 10 % up. The ratio is that of the noise's rms over all norms, by
seed, with a 95 % interval over seeds. Another model: --model FOLDER --data IDS.npz --seq-len N.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from itertools import pairwise
from pathlib import Path

from scipy.stats import t as student

from srdd.cli.app import main as srdd
from srdd.core.uncertainty import mean_and_error
from srdd.documents.opening import open_document
from srdd.documents.probe import Probe

PROFILES = {
    "equal-damage": ["--strategy", "equal-damage"],
    "equal-damage clamped": ["--strategy", "equal-damage", "--clamp", "0.5,2"],
    "inverse by predicted_kl": ["--strategy", "inverse"],
    "variable by relative_error": ["--strategy", "variable", "--site", "output"],
}
KLS = (0.05, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data")
    parser.add_argument("--seq-len", default="256")
    parser.add_argument("--sigmas", default="0.005,0.0075,0.0125,0.02,0.03,0.045")
    parser.add_argument("--seeds", default="5")
    parser.add_argument("--modes", default="w16a16,w4a4")
    parser.add_argument("--profiles", default=",".join(PROFILES))
    options = parser.parse_args()
    text = ["--seq-len", options.seq_len, *(["--data", options.data] if options.data else [])]
    print("| profile | mode | at 0.05 nats | at 0.2 nats | at the break |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        report, rin, probe = (Path(folder, name) for name in ("report.json", "rin.yaml", "probe.json"))
        run("scan", options.model, "--quant", "mxfp4", "--samples", "8", *text, "--out", report)
        for name, strategy in ((name, PROFILES[name]) for name in options.profiles.split(",")):
            run("multipliers", report, *strategy, "--sigma-start", "0.001", "--force", "--out", rin)
            of_noise = ["--sigmas", options.sigmas, "--seeds", options.seeds, "--samples", "4", "--seed", "100"]
            modes = ["--quant", "mxfp4", "--modes", options.modes, "--multipliers", rin]
            run("probe", options.model, *modes, *of_noise, *text, "--force", "--out", probe)
            document = open_document(probe, Probe).document
            for mode in document.settings.modes:
                at_kl = [ratio_at_kl(document, mode, kl) if mode == "w16a16" else "-" for kl in KLS]
                print(f"| {name} | {mode} | {' | '.join(at_kl)} | {ratio_at_break(document, mode)} |", flush=True)


def run(*arguments: object) -> None:
    """A command whose output does not matter."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        code = srdd([str(argument) for argument in arguments])
    if code:
        raise SystemExit(f"srdd {' '.join(map(str, arguments))}: exit code {code}")


def ratio_at_kl(probe: Probe, mode: str, kl: float) -> str:
    ratios = []
    for seed in probe.settings.seeds:
        found = {profile: noise_at(probe, mode, profile, seed, kl) for profile in ("global", "guided")}
        ratios.append(found["guided"] / found["global"])
    return said(ratios)


def noise_at(probe: Probe, mode: str, profile: str, seed: int, kl: float) -> float:
    """The rms of the noise that costs this KL, by a straight line through the logarithms of its neighbours."""
    rows = [t for t in probe.trials if (t.mode, t.profile, t.seed) == (mode, profile, seed) and t.kl]
    points = sorted((math.log(t.kl or 0.0), math.log(t.noise_rms)) for t in rows)
    wanted = math.log(kl)
    for (a, x), (b, y) in pairwise(points):
        if a <= wanted <= b:
            return math.exp(x + (y - x) * (wanted - a) / (b - a))
    return math.nan


def ratio_at_break(probe: Probe, mode: str) -> str:
    by_profile = {b.profile: b for b in probe.breaks if b.mode == mode}
    scale = {}
    for name, found in by_profile.items():
        if found.sigma is None or found.noise_rms is None:
            return f"- ({found.note})"
        scale[name] = found.noise_rms / found.sigma
    pairs = zip(by_profile["guided"].by_seed, by_profile["global"].by_seed, strict=True)
    return said([(a or math.nan) * scale["guided"] / ((b or math.nan) * scale["global"]) for a, b in pairs])


def said(ratios: list[float]) -> str:
    mean, error = mean_and_error(ratios)
    if math.isnan(mean):
        return "out of the grid"
    half = student.ppf(0.975, len(ratios) - 1) * error
    return f"{mean:.2f} ({mean - half:.2f} to {mean + half:.2f})"


if __name__ == "__main__":
    main()
