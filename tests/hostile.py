"""A report whose every name tries to be more than a name. If one succeeds, window.pwned is set or a request is made."""

from builders import cost_settings, make_report, report_of_costs, tally

from srdd.core.modes import MODES
from srdd.documents.costs import Cost, Costs, GroupCost, LayerCost, LinearCost, Ratio
from srdd.documents.experiment import ArmResult, Experiment, ExperimentSettings, PairedTest
from srdd.documents.parts import Calibration, Model, Note
from srdd.documents.probe import Baseline, Break, Probe, ProbeSettings, Trial
from srdd.documents.report import Report, in_order
from srdd.documents.schema import Site

NAMES = (
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=2>",
    "<!--<script>",
    '"><svg onload=window.pwned=3>',
    "<a href='http://pwned.invalid/'>click</a>",
    "<b>bold</b> &lt;i&gt; %{x} @@scripts@@ $\\frac{1}{",
    '=HYPERLINK("http://pwned.invalid","x")',
    "| `cell` [link](http://pwned.invalid) @somebody #1 www.pwned.invalid",
    "\u2028\u2029\u202eright-to-left\u0000\x1b[31m",
    "__proto__",
    "x" * 3000,
    "</style><style>body{display:none}</style>",
)
SPEC = "</script><u>mxfp4</u>:even"


def hostile_report() -> Report:
    """One layer per name; the name stands for module, role, group, member, note, model and warning."""
    rows = [[tally(0.2 + 0.01 * i, 1.0 + i)] * 2 for i in range(len(NAMES))]
    report = make_report({"weight": [[row[0]] for row in rows], "output": rows}, ("mxfp4:even", SPEC), model=NAMES[0])
    sites = []
    for site in report.sites:
        name = NAMES[site.layer or 0]
        sites.append(
            Site(
                kind=site.kind,
                name=name,
                role=name,
                layer=site.layer,
                index=site.index,
                group=name,
                members=[name, name],
                notes=[Note(name)],
                formats=site.formats,
            )
        )
    model = report.model.model_copy(update={"architecture": NAMES[1], "revision": NAMES[3]})
    calibration = report.settings.calibration.model_copy(update={"source": NAMES[4]})
    settings = report.settings.model_copy(
        update={"calibration": calibration, "selection": NAMES[2], "backend": NAMES[1]}
    )
    coverage = report.coverage.model_copy(update={"uncovered": list(NAMES)})
    warnings = [Note(f"ERROR {name}") for name in NAMES]
    changed = {"sites": sites, "model": model, "settings": settings, "coverage": coverage, "warnings": warnings}
    return in_order(report.model_copy(update=changed))


def noise_documents(model: Model, names: tuple[str, ...] = ("w16a16", "w4a4")) -> tuple[Probe, Experiment]:
    """A probe and an experiment whose modes and arms are called as told; the last of each collapses at the end."""
    calibration = Calibration(source=names[0], seq_len=8, sequence_hashes=["s0", "s1"])
    run = {"calibration": calibration, "exclude": [], "device": "cpu", "dtype": "float32", "backend": "eager"}
    seeds, sigmas, last = [0, 1, 2], [0.01, 0.02, 0.04], names[-1]
    trials = [
        Trial(
            mode=mode,
            target=names[0],
            profile=profile,
            sigma=sigma,
            noise_rms=sigma,
            relative=10 * sigma,
            changed_share=1,
            seed=seed,
            loss=None if (dead := mode == last and sigma == 0.04 and seed == 2) else 3 + 10 * sigma + seed / 10,
            entropy=2.5,
            kl=None if dead else sigma,
            kl_clean=None if dead else sigma,
            top1=0.75,
            loss_change=None if dead else 10 * sigma + seed / 10,
            sequence_error=0.1,
        )
        for mode in names
        for profile in ("global", "guided")
        for sigma in sigmas
        for seed in seeds
    ]
    probe = Probe(
        model=model,
        settings=ProbeSettings(
            format=names[0],
            modes=list(names),
            targets=[names[0]],
            sigmas={names[0]: sigmas},
            relative=False,
            seeds=seeds,
            criterion="loss",
            limit=1.1,
            versions={},
            **run,
        ),
        baselines=[Baseline(mode=mode, loss=3.0, entropy=2.4, kl_clean=0.1, top1_clean=0.9) for mode in names],
        trials=trials,
        breaks=[
            Break(
                mode=mode,
                target=names[0],
                profile=profile,
                sigma=None if mode == last else 0.025,
                interval=None if mode == last else (0.02, 0.03),
                noise_rms=None if mode == last else 0.025,
                relative=None if mode == last else 0.25,
                by_seed=[None if mode == last else 0.025] * 3,
                note=last,
            )
            for mode in names
            for profile in ("global", "guided")
        ],
        warnings=list(names),
    )
    experiment = Experiment(
        model=model,
        settings=ExperimentSettings(
            kind="inference",
            format=names[0],
            mode=names[0],
            target=names[0],
            sigma_start=0.01,
            sigma_end=0.01,
            relative=False,
            seeds=seeds,
            worst=2,
            ranked_by=names[0],
            report_sha256="0" * 64,
            samples=2,
            versions={},
            **run,
        ),
        arms=[
            ArmResult(
                name=name,
                meaning=name,
                quantized=True,
                layers=[[0, 1]] * 3,
                noise_rms=[0.01] * 3,
                losses=[3.0, 3.1, None if name == last else 3.2],
                mean=None if name == last else 3.1,
                std=None if name == last else 0.1,
            )
            for name in names
        ],
        comparisons=[
            PairedTest(
                a=names[0],
                b=name,
                difference=None if name == last else 0.05,
                interval=None if name == last else (-0.1, 0.2),
                effect_size=None if name == last else 0.5,
                p=None if name == last else 0.031,
                p_holm=None if name == last else 0.25,
                verdict=name,
            )
            for name in names
        ],
        verdict=names[-1],
        warnings=list(names),
    )
    return probe, experiment


def impact_document(model: Model, names: tuple[str, ...] = ("a", "b")) -> Report:
    """Costs alone: a Linear and a group per name; the first is the costliest."""
    kl, error = Cost(value=0.25, error=0.01), Ratio(value=0.25, error=0.01)
    costs = Costs(
        settings=cost_settings("predicted", "groups", rows=64),
        layers=[
            LayerCost(layer=0, format="mxfp4:even", mode="both", isolated=error, cumulative=error, predicted_kl=kl)
        ],
        groups=[
            GroupCost(
                name=name,
                layer=0,
                members=[name],
                parameters=1,
                format="mxfp4:even",
                predicted_kl={"both": Cost(value=kl.value / (1 + i), error=0.001)},
                measured_kl={"both": kl},
            )
            for i, name in enumerate(names)
        ],
        linears=[
            LinearCost(
                module=name,
                role=name,
                layer=0,
                parameters=1,
                format="mxfp4:even",
                output_error=dict.fromkeys(MODES, error),
                interaction=-0.12,
                predicted_kl=dict.fromkeys(MODES, Cost(value=kl.value / (1 + i), error=0.001)),
            )
            for i, name in enumerate(names)
        ],
    )
    return report_of_costs(costs, model, names)
