"""Reports made by hand for tests: every number follows from a noise power a reader can see."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from srdd.core.modes import Mode
from srdd.core.roles import Norm
from srdd.core.tally import Tally
from srdd.core.uncertainty import total
from srdd.documents.costs import (
    Clean,
    Cost,
    Costs,
    CostSettings,
    GroupCost,
    How,
    LayerCost,
    LinearCost,
    Sensitivity,
    WholeCost,
)
from srdd.documents.parts import Calibration, Kind, Model, Note
from srdd.documents.probe import Break, Probe, ProbeSettings
from srdd.documents.report import Report, in_order
from srdd.documents.rin import CLASSES, RinConfig, Target
from srdd.documents.schema import Coverage, Settings, Site, measurement

N = 1024


def tally(
    relative_error: float, noise: float = 1.0, power: float = 100.0, deadzone: int = 0, clipped: int = 0
) -> Tally:
    """N elements of power `power` and noise `noise` in all: SQNR 10 log10(power / noise) dB.

    The other sums are what normal data of that power may have: no tally that is opened may contradict itself.
    """
    rms = math.sqrt(power / N)
    largest = 3.2 * rms
    errors = min(0.8 * math.sqrt(N * noise), 0.9 * N * relative_error * largest, 0.9 * N * rms)
    return Tally(
        n=N,
        nonzero=N,
        deadzone=deadzone,
        clipped=clipped,
        at_max=clipped,
        sum_x2=power,
        sum_x4=3 * power * power / N,
        sum_e2=noise,
        sum_e2_deadzone=noise * deadzone / N,
        sum_abs_x=0.8 * N * rms,
        sum_abs_e=errors,
        sum_rel=N * relative_error if noise else 0.0,
        sum_q2=power,
        sum_xq=power - noise / 2,
        max_abs_x=largest,
        max_abs_e=min(math.sqrt(noise), largest),
    )


def make_report(
    layers: Mapping[Kind, Sequence[Sequence[Tally]]],
    specs: Sequence[str] = ("mxfp4:even",),
    *,
    model: str = "toy",
    hashes: Sequence[str] | None = None,
) -> Report:
    """`layers[kind][layer]` holds one tally for a weight, one per calibration sequence for an activation."""
    sites = []
    sequences = 0
    for kind, rows in layers.items():
        for layer, tallies in enumerate(rows):
            measured = measurement(total(tallies), None if kind == "weight" else list(tallies))
            sequences = sequences if kind == "weight" else len(tallies)
            name = f"model.layers.{layer}" + ("" if kind == "output" else ".mlp.down_proj")
            role = "decoder_layer" if kind == "output" else "down_proj"
            formats = dict.fromkeys(specs, measured)
            sites.append(Site(kind=kind, name=name, role=role, layer=layer, index=layer, formats=formats))
    names = list(hashes or (f"s{i}" for i in range(sequences)))
    depth = max((len(rows) for rows in layers.values()), default=0)
    return in_order(
        Report(
            model=Model(id=model, parameter_count=N, layer_count=depth, weights_hash=f"hash of {model}"),
            settings=Settings(
                formats=list(specs),
                kinds=list(layers),
                calibration=Calibration(source="toy", seq_len=8, sequence_hashes=names) if names else None,
                device="cpu",
                dtype="float32",
                backend="reference",
                backend_reason="asked for",
                thresholds={"sqnr_db": 20.0},
                versions={},
            ),
            coverage=Coverage(parameters=N, measured=N),
            sites=sites,
        )
    )


def make_rin(layers: Mapping[int, float], target: Target = "rmsnorm", **settings: Any) -> RinConfig:
    """A noise document: QeRL's schedule from 0.05 to 0.0005 in 10 stages unless `settings` says otherwise."""
    return RinConfig.model_validate(
        {
            "provenance": {
                "srdd": "0",
                "report_sha256": "0" * 64,
                "model": "tiny",
                "quant": "mxfp4:even",
                "site": "output",
                "metric": "relative_error",
                "strategy": "variable",
            },
            "schedule": {"sigma_start": 0.05, "sigma_end": 0.0005, "num_stages": 10},
            "target": target,
            "target_classes": CLASSES[target],
            "layer_multipliers": dict(layers),
            **settings,
        }
    )


def cost_settings(*how: How, rows: int = 0) -> CostSettings:
    """mxfp4 on weights and inputs, two sequences."""
    return CostSettings(
        formats=["mxfp4:even"],
        modes=["both"],
        how=list(how),
        calibration=Calibration(source="toy", seq_len=8, sequence_hashes=["a", "b"]),
        tokens_per_sequence=rows,
        backend="eager",
    )


def report_of_costs(costs: Costs, model: Model | None = None, warnings: Sequence[str] = ()) -> Report:
    """A report without sites, as `srdd impact` writes it."""
    return Report(
        model=model or Model(id="toy", parameter_count=1),
        settings=Settings(
            formats=costs.settings.formats,
            kinds=[],
            calibration=costs.settings.calibration,
            device="cpu",
            dtype="float32",
            backend="eager",
            backend_reason="asked for",
            thresholds={},
            versions={},
        ),
        coverage=Coverage(parameters=0, measured=0),
        sites=[],
        costs=costs,
        warnings=[Note(text) for text in warnings],
    )


_NORMS: tuple[tuple[str, Norm, float], ...] = (
    ("input_layernorm", "attention", 0.25),
    ("post_attention_layernorm", "mlp", 0.75),
)


def make_costs(
    kls: Mapping[str, Sequence[float]],
    modes: Sequence[Mode] = ("weight", "both"),
    whole: Mapping[str, float] | None = None,
    traces: Sequence[float] = (),
) -> Costs:
    """Costs of formats on two sequences: predicted KL of each layer with weights and inputs quantized.

    A layer has the groups qkv (half of its cost), o, gate_up and down, with standard errors of 5 %; weights alone cost
    a third. `whole` is the KL of the whole model by format, the sum of the layers where it is not given. `traces` are
    the noise sensitivities of layers, a quarter of each on the attention norm; with any, the final norm has 1.
    """
    shares = {"self_attn.qkv": 0.5, "self_attn.o_proj": 0.1, "mlp.gate_up": 0.15, "mlp.down_proj": 0.25}
    members = {"qkv": ("q_proj", "k_proj", "v_proj"), "gate_up": ("gate_proj", "up_proj")}
    share_of: dict[Mode, float] = {"weight": 1 / 3, "input": 2 / 3, "both": 1.0}

    def cost(value: float) -> Cost:
        return Cost.of([0.95 * value, 1.05 * value])

    layers, groups, linears, rows = [], [], [], []
    for spec, values in kls.items():
        for mode in modes:
            total = (whole or {}).get(spec, sum(values)) * share_of[mode]
            rows.append(WholeCost(format=spec, mode=mode, loss=cost(3 + total), kl=cost(total), top1=cost(0.6)))
        for at, value in enumerate(values):
            layers += [
                LayerCost(layer=at, format=spec, mode=mode, predicted_kl=cost(value * share_of[mode])) for mode in modes
            ]
            for name, share in shares.items():
                block, _, role = name.partition(".")
                mine = [f"model.layers.{at}.{block}.{member}" for member in members.get(role, (role,))]
                kl = {mode: cost(value * share * share_of[mode]) for mode in modes}
                groups.append(
                    GroupCost(
                        name=f"model.layers.{at}.{name}",
                        layer=at,
                        members=mine,
                        parameters=1000 * len(mine),
                        format=spec,
                        predicted_kl=kl,
                    )
                )
                linears += [
                    LinearCost(
                        module=module,
                        role=module.rpartition(".")[2],
                        layer=at,
                        group=groups[-1].name if len(mine) > 1 else None,
                        parameters=1000,
                        format=spec,
                        predicted_kl={mode: cost(estimate.value / len(mine)) for mode, estimate in kl.items()},
                    )
                    for module in mine
                ]
    return Costs(
        settings=CostSettings(
            formats=list(kls),
            modes=list(modes),
            how=["predicted"],
            calibration=Calibration(source="toy", seq_len=8, sequence_hashes=["a", "b"]),
            exclude=["*lm_head*"],
            left_out=["lm_head"],
        ),
        clean=Clean(loss=cost(3.0), entropy=cost(2.5)),
        whole=rows,
        layers=layers,
        groups=groups,
        linears=linears,
        sensitivities=[
            *(
                Sensitivity(
                    name=f"model.layers.{at}.{norm}.weight",
                    kind="norm",
                    layer=at,
                    feeds=feeds,
                    parameters=64,
                    rms=0.5,
                    trace=cost(trace * share),
                )
                for at, trace in enumerate(traces)
                for norm, feeds, share in _NORMS
            ),
            *(
                Sensitivity(name="model.norm.weight", kind="norm", layer=None, parameters=64, rms=2.0, trace=cost(1.0))
                for _ in traces[:1]
            ),
        ],
    )


def make_probe(model: Model, breaks: Mapping[str, float | None], fmt: str = "mxfp4:even", **settings: object) -> Probe:
    """A probe of uniform noise on norms that found these breaks, by mode; no trials."""
    return Probe(
        model=model,
        settings=ProbeSettings.model_validate(
            {
                "format": fmt,
                "modes": list(breaks),
                "targets": ["rmsnorm"],
                "sigmas": {"rmsnorm": [0.01, 0.1]},
                "relative": False,
                "seeds": [0, 1],
                "criterion": "loss",
                "limit": 1.1,
                "calibration": Calibration(source="toy", seq_len=8, sequence_hashes=["a", "b"]),
                "exclude": [],
                "device": "cpu",
                "dtype": "float32",
                "backend": "eager",
                "versions": {},
                **settings,
            }
        ),
        baselines=[],
        trials=[],
        breaks=[
            Break(
                mode=mode,
                target="rmsnorm",
                profile="global",
                sigma=sigma,
                interval=None if sigma is None else (0.9 * sigma, 1.1 * sigma),
                noise_rms=sigma,
                relative=None,
                by_seed=[sigma, sigma],
                note="" if sigma else "not reached",
            )
            for mode, sigma in breaks.items()
        ],
    )
