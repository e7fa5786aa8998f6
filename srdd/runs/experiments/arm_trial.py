"""One arm with one seed: inference under noise, or a short fine-tuning with noise and the quantized loss after it.

Not here: arms (arms.py) and tests of significance (paired_tests.py). Inference: noise of the first step, loss on the
seed's own text. Training: AdamW through straight-through fake quantization on text drawn by the seed, with noise before
each step's forward that is off before the optimizer steps; then the loss on held-out text, quantized and without noise.
Stochastic rounding draws anew at every call in training, and once a seed where a loss is measured. The weights are put
back bit for bit.

Worked number: 20 steps of 2 sequences of 128 tokens are 5,120 tokens of training, about a minute on two cores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor, nn

from srdd.core.faults import Fault
from srdd.core.modes import Mode
from srdd.documents.rin import RinConfig, Schedule, Target
from srdd.models.quantizer import Quantizer
from srdd.noise import Injection, Injector
from srdd.runs.experiments import evaluation, profiles
from srdd.runs.experiments.arms import Arm
from srdd.runs.experiments.evaluation import Outcome
from srdd.runs.experiments.fault import planted
from srdd.runs.experiments.modes import in_mode
from srdd.runs.token_ids import batches_of


@dataclass(frozen=True)
class Setting:
    """What all arms share."""

    model: nn.Module
    mode: Mode | None
    quantizer: Quantizer
    exclude: Sequence[str]
    target: Target
    schedule: Schedule
    relative: bool
    fault: Fault | None
    batch_size: int
    device: torch.device

    def config(self, arm: Arm, seed: int) -> RinConfig | None:
        """The noise document of an arm; None for arms without noise on weights."""
        if arm.layers is None:
            return None
        count, start = profiles.layer_count(self.model), self.schedule.sigma_start
        if arm.name == "global":
            made = profiles.everywhere(count, self.target, start, relative=self.relative)
        else:
            on = arm.noisy_layers(seed)
            made = profiles.chosen(count, on, self.target, start, relative=self.relative, name=arm.name)
        return made.model_copy(update={"schedule": self.schedule})

    @contextmanager
    def treated(self, arm: Arm, seed: int, *, fresh: bool = False) -> Iterator[None]:
        """Quantization and fault of an arm; `fresh`: stochastic rounding draws anew at every call."""
        if not arm.quantized:
            yield
            return
        quantizer = self.quantizer
        if quantizer.stochastic:  # what is kept is of one draw
            quantizer = replace(quantizer, draw=seed, fresh=fresh, kept={})
        with in_mode(self.model, self.mode, quantizer, self.exclude):
            if self.fault is None:
                yield
            else:
                with planted(self.model, self.fault, self.schedule.sigma_start if arm.dither else 0.0, seed):
                    yield


@dataclass(frozen=True)
class Training:
    """How a fine-tuning runs; `batch_size` sequences a step."""

    steps: int
    learning_rate: float
    batch_size: int


def infer(setting: Setting, arm: Arm, seed: int, ids: Tensor) -> tuple[float | None, float]:
    """Loss on `ids` under the arm, and the noise's root mean square. None for a loss that is not finite."""
    setting.model.eval()
    config = setting.config(arm, seed)
    with torch.no_grad():
        if config is None:
            return _loss(setting, arm, seed, ids), 0.0
        config = config.model_copy(update={"schedule": profiles.constant(setting.schedule.sigma_start)})
        injector = Injector(setting.model, config, seed=seed, evaluation="allow")
        with injector.applied(0, 1) as injection:
            return _loss(setting, arm, seed, ids), _noise_rms(injection)


def train(
    setting: Setting, training: Training, arm: Arm, seed: int, pool: Tensor, held_out: Tensor
) -> tuple[float | None, float]:
    """Loss on `held_out` after a fine-tuning on `pool`, and the first noise's root mean square."""
    model = setting.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    grads = {name: p.grad for name, p in model.named_parameters()}
    training_before, wanted = model.training, {n: p.requires_grad for n, p in model.named_parameters()}
    try:
        for p in model.parameters():
            p.requires_grad_(p.is_floating_point())
            p.grad = None
        with (
            torch.enable_grad(),
            torch.random.fork_rng(devices=[setting.device] if setting.device.type == "cuda" else []),
        ):
            torch.manual_seed(seed)  # dropout draws the same in every arm of a seed
            rms, finite = _fine_tune(setting, training, arm, seed, pool)
        model.eval()
        with torch.no_grad():
            quiet = Arm(arm.name, arm.meaning, arm.quantized, None)  # the test is without noise
            return (_loss(setting, quiet, seed, held_out) if finite else None), rms
    finally:
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(before[name])
                p.requires_grad_(wanted[name])
                p.grad = grads[name]
        model.train(training_before)


def _fine_tune(setting: Setting, training: Training, arm: Arm, seed: int, pool: Tensor) -> tuple[float, bool]:
    """Root mean square of the first noise, and whether every loss was finite."""
    model = setting.model
    model.train()
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed), device="cpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=0.0)
    config = setting.config(arm, seed)
    injector = None if config is None else Injector(model, config, seed=seed)
    rms = 0.0
    with setting.treated(arm, seed, fresh=True):
        for step in range(training.steps):
            rows = [
                int(order[i % len(order)]) for i in range(step * training.batch_size, (step + 1) * training.batch_size)
            ]
            batch = pool[rows].to(setting.device)
            injection = None if injector is None else injector.apply(step, training.steps)
            try:
                loss = model(batch, labels=batch).loss
                finite = bool(torch.isfinite(loss))
                if finite:
                    loss.backward()
            finally:
                if injector is not None:
                    injector.restore()
            if not finite:
                return rms, False
            if injection is not None and not rms:
                rms = _noise_rms(injection)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return rms, True


def _loss(setting: Setting, arm: Arm, seed: int, ids: Tensor) -> float | None:
    outcome = Outcome()
    with setting.treated(arm, seed):
        for batch in batches_of(ids, setting.batch_size, setting.device):
            evaluation.add(outcome, evaluation.references(setting.model, batch))
    loss = fmean(outcome.loss)
    return loss if math.isfinite(loss) else None


def _noise_rms(injection: Injection) -> float:
    power = math.fsum(row.std**2 * row.values for row in injection.touched)
    return math.sqrt(power / max(1, sum(row.values for row in injection.touched)))
