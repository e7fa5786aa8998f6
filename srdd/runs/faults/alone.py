"""One layer run alone on its own input: again, and with small perturbations; and each of its modules against its parts.

Not here: what goes in and out (capture.py), what must come out (expected.py), and the verdict (srdd.analysis.faults).

Worked number: a Linear with weight 2 answers a perturbation of any size with gain 2; in a deadzone the gain rises with
the size, and where that begins is the break.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from srdd.documents.fault import ModuleHealth, Where
from srdd.kernels.precision import to_float64
from srdd.models.heads import column_heads, config_of
from srdd.models.modules import is_linear
from srdd.runs.faults.capture import Call, Capture
from srdd.runs.faults.deviation import deviation
from srdd.runs.faults.expected import matrix_of, product, some_rows, sum_of_parts, untouched_input, wide
from srdd.runs.faults.inferred import inferred_input
from srdd.runs.faults.weights import health_of

PERTURBATIONS = (0.001, 0.003, 0.01, 0.03, 0.1)  # in root mean squares of the token
Draw = Callable[[Tensor], Tensor]


def layer_health(
    model: nn.Module, capture: Capture, index: int, layer: Call, inside: Sequence[Call], *, linears: bool, draw: Draw
) -> list[ModuleHealth]:
    """The layer first, then its modules in the order of their ends."""
    config = config_of(model)
    second = capture.again(layer)
    rows = [_health(index, layer, inside, config, shallow=False)]
    rows[0].gains = gains(capture, layer, draw)
    seen: set[str] = set()
    for call in inside:
        if call.output is None or call.name in seen or call.output.shape[0] < 1:
            continue
        seen.add(call.name)
        linear = is_linear(call.module)
        row = _health(index, call, inside, config, shallow=not linears)
        if linear and linears:
            row.gains = gains(capture, call, draw)
            row.weight = health_of(call.module)
        rows.append(row)
    _note_instability(rows, [*inside, layer], second)
    return rows


def gains(capture: Capture, call: Call, draw: Draw) -> list[float]:
    """Root mean square of the response over that of the perturbation, at each size."""
    if call.given is None or call.output is None:
        return []
    given, clean = call.given, call.output.float()
    if is_linear(call.module):  # any rows will do
        some = some_rows(len(given)).to(given.device)
        given, clean = given[some], clean[some]
    x = given.float()
    rms = x.square().mean(-1, keepdim=True).sqrt()
    direction = draw(x)
    found = []
    for size in PERTURBATIONS:
        moved = (x + size * rms * direction).to(given.dtype)
        change = moved.float() - x
        answer = capture.run(call, moved).float() - clean
        ratio = float(
            to_float64(answer).square().mean().sqrt() / to_float64(change).square().mean().sqrt().clamp_min(1e-300)
        )
        found.append(_finite(ratio))
    return found


def _health(index: int, call: Call, inside: Sequence[Call], config: object, *, shallow: bool) -> ModuleHealth:
    y = call.output
    assert y is not None
    x = call.given
    name = type(call.module).__name__
    row = ModuleHealth(
        layer=index,
        module=call.name,
        kind="layer" if not call.name else "linear" if is_linear(call.module) else name,
        kurtosis_in=0.0 if x is None else _kurtosis(x),
        kurtosis_out=_kurtosis(y),
        values=y.numel(),
        zeros=float((y == 0).float().mean()),
        zeros_made=float(((y == 0) & (x != 0) if x is not None and x.shape == y.shape else y == 0).float().mean()),
        at_max=_ties(y),
        nonfinite=int((~torch.isfinite(y)).sum()),
        nonfinite_in=0 if x is None else int((~torch.isfinite(x)).sum()),
    )
    if row.nonfinite or row.nonfinite_in or (shallow and is_linear(call.module)):
        return row
    some = some_rows(y.shape[0])
    if is_linear(call.module):
        checked = product(call, some)
        if checked is not None:
            role = call.name.rpartition(".")[2]
            heads = column_heads(role if role == "o_proj" else "o_proj", call.name, config)  # type: ignore[arg-type]
            joins = "att" in call.name and x is not None and x.shape[1] == y.shape[1]
            row.output = deviation(*checked)
            row.unexplained = 0.0 if row.output is None else row.output.share
            if row.output is not None and row.output.share > 0:
                row.input = inferred_input(call, checked, some, heads if joins else None)
        return row
    entered = untouched_input(call, inside, some)
    if entered is not None:
        row.input = deviation(*entered)
    checked = sum_of_parts(call, inside, some)
    if checked is not None:
        row.output = deviation(*checked)
        row.unexplained = 0.0 if row.output is None else row.output.share
    return row


def _note_instability(rows: Sequence[ModuleHealth], first: Sequence[Call], second: Sequence[Call]) -> None:
    """Where two runs on the same input begin to differ: a module whose input is the same and whose output is not."""
    by_name = {row.module: row for row in rows}
    seen: set[str] = set()
    begun: set[str] = set()  # modules inside of which it begins
    for a, b in zip(first, second, strict=False):
        row = by_name.get(a.name)
        if a.name != b.name or row is None or a.name in seen or a.output is None or b.output is None:
            continue
        seen.add(a.name)
        if a.output.shape != b.output.shape or row.nonfinite:
            continue
        difference = (to_float64(a.output) - to_float64(b.output)).cpu()
        y = to_float64(a.output).cpu()
        row.instability = float(difference.square().mean().sqrt() / y.square().mean().sqrt().clamp_min(1e-300))
        if not row.instability:
            continue
        same_in = a.given is None or b.given is None or torch.equal(a.given, b.given)
        inner = any(name.startswith(f"{a.name}." if a.name else "") for name in begun)
        if same_in and not inner:
            begun.add(a.name)
            row.unstable_at, noisy, base = _begins(a, b, first, second)
            std = noisy.square().mean(1).sqrt() / 2**0.5
            relative = std / base.square().mean(1).sqrt().clamp_min(1e-300)
            row.noise_size = (float(relative.median()), float(std.median()))
            row.noise_scatter = (_scatter(relative), _scatter(std))


def _begins(a: Call, b: Call, first: Sequence[Call], second: Sequence[Call]) -> tuple[Where, Tensor, Tensor]:
    """At the input when the parts got different inputs, else at the output; the noise there, and what it is on."""
    assert a.output is not None
    assert b.output is not None
    if a.given is not None:
        prefix = f"{a.name}." if a.name else ""
        for c, d in zip(first, second, strict=False):
            inside = c.name.startswith(prefix) and c.name != a.name
            if inside and c.given is not None and d.given is not None and c.given.shape == a.given.shape:
                if not torch.equal(c.given, d.given):
                    return "input", to_float64(c.given - d.given).cpu(), to_float64(a.given).cpu()
                break
        if is_linear(a.module):
            found = _noise_before(a, b)
            if found is not None:
                return "input", found, to_float64(a.given).cpu()
    return "output", to_float64(a.output - b.output).cpu(), to_float64(a.output).cpu()


def _noise_before(a: Call, b: Call) -> Tensor | None:
    """The noise at a Linear's input, if its output's noise has the covariance that the weight makes of white noise."""
    assert a.output is not None
    assert b.output is not None
    assert a.given is not None
    w, error = matrix_of(a.module), wide(a.output) - wide(b.output)
    spread, rows = error.square().mean(0).sqrt().log(), w.square().sum(1).sqrt().log()
    if error.shape[0] < 8 or not torch.isfinite(spread).all():
        return None
    through = float((spread - rows - (spread - rows).mean()).square().mean())
    plain = float((spread - spread.mean()).square().mean())
    if w.shape[0] > w.shape[1]:  # white noise cannot lie in the few directions that a tall matrix has
        solved = torch.linalg.lstsq(w, error.T, driver="gelsd").solution.T
        left = float((error - solved @ w.T).square().sum() / error.square().sum())
        return solved if left < 0.01 else None
    if through >= 0.7 * plain:
        return None
    return torch.randn(a.given.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu") * (
        error.square().mean(1, keepdim=True).sqrt() / w.square().sum(1).mean().sqrt()
    )


def _scatter(values: Tensor) -> float:
    return _finite(float(values.std() / values.mean().clamp_min(1e-300))) if len(values) > 1 else 0.0


def _kurtosis(x: Tensor) -> float:
    values = to_float64(x)
    rms = values.square().mean().sqrt().clamp_min(1e-300)
    return _finite(float((values / rms).pow(4).mean()))


def _ties(y: Tensor) -> float:
    most = y.abs().amax(1, keepdim=True)
    alive = most[:, 0] > 0
    return max(0, int((y.abs() == most)[alive].sum()) - int(alive.sum())) / max(1, y.numel())


def _finite(value: float) -> float:
    return value if value == value and abs(value) < 1e300 else 1e300
