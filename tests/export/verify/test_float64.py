"""Models in float64 though they say float32, and rounding errors put in on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.verify.float64 import Float64
from export.verify.reference import LEVEL, Float64Reference, float64_reference


class Casting(nn.Module):
    """Asks for float32 in every way that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 8)
        self.plain = torch.rand(8)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        y = self.linear(x.to(torch.float32)).float() + torch.full((8,), 0.1)
        y = y * self.plain.type_as(x) + torch.arange(8, dtype=x.dtype) / torch.tensor(3.0)
        y += torch.zeros(8)
        return torch.softmax(y, -1, dtype=torch.float32).to(self.linear.weight.dtype)


def test_every_operator_computes_in_float64() -> None:
    """Casts, new tensors, attributes that are no buffers; and the model is not written to."""
    model, x = Casting().eval(), torch.rand(4, 32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad(), Float64():
        found = model(x)
    weight, bias = (before[f"linear.{name}"].double() for name in ("weight", "bias"))
    y = F.linear(x.double(), weight, bias) + torch.full((8,), 0.1).double()
    y = y * model.plain.double() + torch.arange(8).double() / 3
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.softmax(y, -1), rtol=1e-14, atol=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert x.dtype == model.plain.dtype == torch.float32


def test_what_a_model_writes_stays_in_the_mode() -> None:
    """In place, to a buffer of its own: the next run starts where this one did."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sum: Tensor = nn.Buffer(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.sum += x
            return self.sum * 1.0

    model, x = Counting(), torch.rand(3)
    reference = float64_reference(model, (x,))
    assert reference is not None
    for _ in range(2):
        assert np.array_equal(reference([x.numpy()])[0], x.double().numpy())
        reference.spread([x.numpy()])
    assert torch.equal(model.sum, torch.zeros(3))


def of(function: Any, *inputs: Tensor) -> tuple[Float64Reference, list]:
    arrays = [x.numpy() for x in inputs]
    return Float64Reference(lambda: function, inputs), arrays


def in_order(x: Tensor, weight: Tensor, order: Tensor) -> Tensor:
    """A grouped convolution in float32, its taps added one after the other in ``order``."""
    rows, columns = (n - k + 1 for n, k in zip(x.shape[2:], weight.shape[2:], strict=True))
    total = torch.zeros(1, x.shape[1], rows, columns)
    for at in order.tolist():
        i, j = divmod(at, weight.shape[3])
        total += weight[:, 0, i, j][None, :, None, None] * x[:, :, i : i + rows, j : j + columns]
    return total


@pytest.mark.parametrize("kind", ["uniform", "normal", "derivative"])
@pytest.mark.parametrize("size", [3, 7, 15])
def test_every_order_of_summation_is_within_the_spread(kind: str, size: int) -> None:
    """Forward, backward, drawn, negative taps first: the largest error of any is below what is measured."""
    conv = nn.Conv2d(4, 4, size, groups=4, bias=False)
    if kind == "uniform":
        nn.init.uniform_(conv.weight)
    elif kind == "derivative":
        line = torch.arange(size) - size // 2
        conv.weight.data = (line * torch.exp(-(line**2) / size))[:, None].expand(4, 1, size, size).clone()
    x = torch.randn(1, 4, 40, 40) if kind == "normal" else torch.rand(1, 4, 40, 40)
    reference, arrays = of(conv, x)
    (ideal,) = reference(arrays)
    (spread,) = reference.spread(arrays)
    weight = conv.weight.detach()
    taps = torch.arange(size * size)
    orders = [taps, taps.flip(0), weight[0].flatten().argsort(), torch.randperm(size * size)]
    errors = [
        float((in_order(x, weight, order).double() - torch.from_numpy(ideal)).abs().max()) for order in orders
    ]
    assert max(errors) < spread
    assert spread < 40 * max(errors)


NORMS = {
    "instance": lambda x: F.instance_norm(x),
    "group": lambda x: F.group_norm(x, 2),
    "layer": lambda x: F.layer_norm(x, x.shape[1:], torch.full(x.shape[1:], 3.0)),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_mean_that_is_large_is_off_by_its_own_size(name: str) -> None:
    """An even picture, normalised: what is off of the mean is divided by next to nothing."""

    class Normed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return NORMS[name](x)

    x = 100 + torch.rand(1, 4, 30, 30)
    reference, arrays = of(Normed(), x)
    (spread,) = reference.spread(arrays)
    apart = float((Normed()(x).double() - torch.from_numpy(reference(arrays)[0])).abs().max())
    assert apart < spread < 1e-2


def test_noise_grows_with_its_level_and_has_a_seed() -> None:
    """What is drawn depends on the seed alone."""
    conv, x = nn.Conv2d(4, 4, 5, groups=4), torch.rand(1, 4, 20, 20)

    def noise(level: float, seed: int) -> Tensor:
        runs = []
        for mode in (Float64(), Float64(level, seed=seed, unit=2.0**-24)):
            with torch.no_grad(), mode:
                runs.append(conv(x))
        return runs[1] - runs[0]

    assert torch.equal(noise(1.0, 0), noise(1.0, 0))
    assert not torch.equal(noise(1.0, 0), noise(1.0, 1))
    torch.testing.assert_close(noise(16.0, 0), 16 * noise(1.0, 0), rtol=1e-6, atol=1e-14)
    assert not noise(0.0, 0).any()


def test_exact_sums_have_no_noise() -> None:
    """Pictures of integers under a binomial kernel; with a third in a tap, there is some."""
    conv = nn.Conv2d(3, 3, 5, groups=3, bias=False)
    line = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    conv.weight.data = torch.outer(line, line).expand(3, 1, 5, 5).clone()
    picture = torch.randint(0, 256, (1, 3, 32, 32)).float()
    reference, arrays = of(conv, picture)
    assert reference.spread(arrays) == [0.0]
    conv.weight.data[0, 0, 0, 0] = 1 / 3
    reference, arrays = of(conv, picture)
    assert reference.spread(arrays)[0] > 0


class Threshold(nn.Module):
    """A mean of what is above ``at``; ``jumps`` says whether the step shows."""

    def __init__(self, at: float, jumps: bool) -> None:
        super().__init__()
        self.at, self.jumps = at, jumps

    def forward(self, x: Tensor) -> Tensor:
        y = x * 0.7
        return torch.where(y > self.at, y - (0.0 if self.jumps else self.at), 0.0)


@pytest.mark.parametrize("jumps", [True, False])
def test_decisions_that_rounding_turns(jumps: bool) -> None:
    """A hair from the threshold: an output that jumps there is found, one that does not is none."""
    x = torch.rand(1000)
    at = float(x[500].double() * 0.7)
    reference, arrays = of(Threshold(at, jumps), x)
    assert reference.decides(arrays) == [jumps]
    far, arrays = of(Threshold(-1.0, jumps), x)
    assert far.decides(arrays) == [False]


def test_a_spread_lies_between_two_jumps() -> None:
    """A rounding to integers that noise turns adds nothing to the spread: what is discrete is held."""
    x = torch.full((100,), 0.5, dtype=torch.float32) / 0.7

    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 0.7).round() + x * 0.7

    reference, arrays = of(Rounded(), x)
    (spread,) = reference.spread(arrays)
    assert spread < LEVEL * 2.0**-22
    assert reference.decides(arrays) == [True]


def test_the_unit_is_that_of_a_type_that_is_named() -> None:
    """A model on integers may have no narrow tensor but one that it makes, of a type that it names."""

    def means(x: Tensor) -> Tensor:
        weight = torch.linspace(0.1, 0.3, 3, dtype=torch.float32).softmax(0)
        return (x.to(weight.dtype) * weight).sum(-1).round().to(torch.uint8)

    x = torch.randint(0, 256, (3000, 3), dtype=torch.uint8)
    reference, arrays = of(means, x)
    assert reference._known(arrays)[1].unit == 2.0**-24
    assert reference.decides(arrays) == [True]


def test_more_draws_find_what_one_does_not_move() -> None:
    """Half of all numbers are moved by one draw, here not the only one that there is."""
    nearly = torch.tensor([7.5 + 2.0**-19])
    for skipped in range(8):

        def rounded(x: Tensor, skipped: int = skipped) -> Tensor:
            for _ in range(skipped):  # draws other signs for what follows
                torch.exp(x)
            return (x / 3.0).round().to(torch.int32)

        reference, arrays = of(rounded, nearly)
        assert reference.decides(arrays, 8) == [True]
        if reference.decides(arrays) == [False]:
            return
    pytest.fail("every first draw moved it")
