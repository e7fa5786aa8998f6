"""What each kind of fault does to a tensor: one function a row of `srdd.core.faults.KINDS`, all with one contract.

A function gets the tensor [..., channels], the size, and `Draw`, from which all that is random comes. It returns a
tensor of the same shape and type and leaves its argument alone. "Token" is one vector along the last axis; of a weight
it is a row. Gradients pass as autograd finds them, and straight through a flipped bit.

Not here: where and when (faults.py).

Worked number: with size 0.01, a token (1.0, 0.02, -0.005) becomes (1.0, 0.02, 0) in a deadzone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from srdd.errors import SettingError
from srdd.models.straight_through import straight_through

STUCK_AT = 1.0
# unsigned bits of a float: the integer of its width, and the lowest bit of its exponent
_EXPONENT = {
    torch.float32: (torch.int32, 23),
    torch.bfloat16: (torch.int16, 7),
    torch.float16: (torch.int16, 10),
    torch.float64: (torch.int64, 52),
}


@dataclass
class Draw:
    """Random numbers of one planted fault. Places are the same at every call, noise is new at every call."""

    seed: int
    heads: int | None = None  # of the module's input, where it is known
    _noise: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._noise = torch.Generator().manual_seed(self.seed)

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal numbers, drawn on the CPU in float32 so that every device gets the same."""
        return torch.randn(like.shape, generator=self._noise, dtype=torch.float32, device="cpu").to(like)

    def channels(self, count: int, width: int, like: Tensor) -> Tensor:
        """`count` of `width` places, as booleans [width]."""
        order = torch.randperm(width, generator=torch.Generator().manual_seed(self.seed), device="cpu")
        chosen = torch.zeros(width, dtype=torch.bool, device="cpu")
        chosen[order[:count]] = True
        return chosen.to(like.device)

    def places(self, share: float, like: Tensor) -> Tensor:
        """About this share of the values, at least one, as booleans of the tensor's shape."""
        drawn = torch.rand(like.shape, generator=torch.Generator().manual_seed(self.seed), device="cpu")
        chosen = drawn < share
        chosen.view(-1)[int(drawn.argmin())] = True
        return chosen.to(like.device)


def deadzone(x: Tensor, size: float, draw: Draw) -> Tensor:
    """Everything below `size` of its token's largest magnitude is 0."""
    magnitude = x.abs()
    return torch.where(magnitude < size * magnitude.amax(-1, keepdim=True), torch.zeros_like(x), x)


def saturation(x: Tensor, size: float, draw: Draw) -> Tensor:
    """Everything beyond `size` of its token's largest magnitude has that magnitude."""
    limit = size * x.abs().amax(-1, keepdim=True)
    return torch.minimum(torch.maximum(x, -limit), limit)


def noise(x: Tensor, size: float, draw: Draw) -> Tensor:
    """Gaussian noise of `size` root mean squares of the token."""
    return x + size * _rms(x) * draw.noise(x)


def absolute_noise(x: Tensor, size: float, draw: Draw) -> Tensor:
    """Gaussian noise of standard deviation `size`."""
    return x + size * draw.noise(x)


def bias(x: Tensor, size: float, draw: Draw) -> Tensor:
    """`size` root mean squares of the token, added to every value of it."""
    return x + size * _rms(x)


def stuck(x: Tensor, size: float, draw: Draw) -> Tensor:
    """`size` of the channels, at least one, read 1.0."""
    chosen = draw.channels(max(1, round(size * x.shape[-1])), x.shape[-1], x)
    return torch.where(chosen, torch.full_like(x, STUCK_AT), x)


def bit_flip(x: Tensor, size: float, draw: Draw) -> Tensor:
    """`size` of the values have the lowest bit of their exponent flipped: they double or halve."""
    if x.dtype not in _EXPONENT:
        raise SettingError("plant", "bit_flip", f"expected a tensor of floats of 2 bytes or more, found {x.dtype}")
    integer, bit = _EXPONENT[x.dtype]
    flipped = (x.detach().contiguous().view(integer) ^ (1 << bit)).view(x.dtype)
    flipped = torch.where(x.detach() == 0, x.detach(), flipped)  # a zero would become a number out of nothing
    return straight_through(x, torch.where(draw.places(size, x), flipped, x.detach()))


def dead_channel(x: Tensor, size: float, draw: Draw) -> Tensor:
    """`size` channels are 0."""
    if size > x.shape[-1]:
        raise SettingError("plant", f"dead_channel={size:g}", f"the tensor has {x.shape[-1]} channels")
    return x.masked_fill(draw.channels(int(size), x.shape[-1], x), 0.0)


def dead_head(x: Tensor, size: float, draw: Draw) -> Tensor:
    """`size` heads are 0."""
    heads = draw.heads
    if not heads or x.shape[-1] % heads or size > heads:
        raise SettingError("plant", f"dead_head={size:g}", f"the tensor has {heads or 'no known'} heads")
    chosen = draw.channels(int(size), heads, x).repeat_interleave(x.shape[-1] // heads)
    return x.masked_fill(chosen, 0.0)


FUNCTIONS: dict[str, Callable[[Tensor, float, Draw], Tensor]] = {
    function.__name__: function
    for function in (deadzone, saturation, noise, absolute_noise, bias, stuck, bit_flip, dead_channel, dead_head)
}


def _rms(x: Tensor) -> Tensor:
    return x.detach().square().mean(-1, keepdim=True).sqrt()
