"""Models whose tensors have several names and readers: shared, loaded, copied, and taken apart again."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fx_passes import SharedKernelConv2d, share_kernels, shared_state_dict, unshare_kernels
from fx_passes.find.find_kernels import find_shared_kernels
from fx_passes.train.checkpoint import cuts_of

CHANNELS = 4
# What reads a tensor beside the module that holds it.
READERS = "none same other_groups transposed plain view bias_read bias_of_call".split()


def image() -> Tensor:
    return torch.randn(2, CHANNELS, 7, 7, generator=torch.Generator().manual_seed(5))


class Tied(nn.Module):
    """A model drawn by ``seed``: convolutions under one to three names, parents too, tied weights and biases,
    and readers of all kinds. ``values`` draws the numbers, which repeat as they have to."""

    def __init__(self, seed: int, values: int = 0) -> None:
        super().__init__()
        draw = random.Random(seed)
        self.calls: list[str] = []
        reads: list[tuple[str, str]] = []
        convs = [self._conv(draw) for _ in range(draw.randint(1, 3))]
        for conv in convs[1:]:
            if draw.random() < 0.5:
                self._tie(conv, convs[0], draw)
        for i, conv in enumerate(convs):
            for j in range(draw.randint(1, 3)):
                self._place(f"m{i}{j}", conv, draw)
            reads.append((self.calls[-1], draw.choice(READERS)))
        if draw.random() < 0.5:
            self.weight = convs[0].weight
            reads.append(("", draw.choice(["none", "same", "bias_read"])))
        if draw.random() < 0.5:
            self.unused = nn.Linear(2, 2)
            self.idle = convs[-1]
        self.register_buffer("buffer", torch.ones(1))
        self.reads = [(name, self._possible(name, how), self._groups(name)) for name, how in reads]
        self.called = [name for name in self.calls if draw.random() < 0.7] or self.calls[:1]
        g = torch.Generator().manual_seed(values)
        with torch.no_grad():
            for parameter in dict.fromkeys(self.parameters()):
                first = torch.randn(parameter[:1].shape, generator=g)
                parameter.copy_(first.expand_as(parameter))

    @staticmethod
    def _conv(draw: random.Random) -> nn.Module:
        kind: Any = draw.choice([nn.Conv2d, nn.Conv2d, nn.ConvTranspose2d, SharedKernelConv2d])
        options: dict[str, Any] = {"groups": draw.choice([4, 4, 2]), "bias": draw.random() < 0.7}
        if kind is SharedKernelConv2d:
            options["formulation"] = "grouped"
        return kind(CHANNELS, CHANNELS, 3, padding=1, **options)

    @staticmethod
    def _tie(conv: Any, first: Any, draw: random.Random) -> None:
        if conv.weight.shape == first.weight.shape and draw.random() < 0.7:
            conv.weight = first.weight
        if conv.bias is not None and first.bias is not None and conv.bias.shape == first.bias.shape:
            conv.bias = first.bias

    def _place(self, name: str, conv: nn.Module, draw: random.Random) -> None:
        way = draw.choice(["direct", "inside", "parent"])
        if way == "direct":
            setattr(self, name, conv)
            self.calls.append(name)
        else:
            setattr(self, name, nn.Sequential(conv, nn.ReLU()))
            self.calls.append(f"{name}.0")
        if way == "parent":
            setattr(self, f"{name}_again", getattr(self, name))
            self.calls.append(f"{name}_again.0")

    def _groups(self, name: str) -> int:
        holder: Any = self.get_submodule(name) if name else self
        return CHANNELS // int(holder.weight.shape[1])

    def _possible(self, name: str, how: str) -> str:
        """``how`` the tensors of a module can be read; decided here, for a tracer sees no shapes."""
        holder: Any = self.get_submodule(name) if name else self
        weight, bias = holder.weight, getattr(holder, "bias", None)
        whole, single = weight.shape[0] == CHANNELS, weight.shape[1] == 1
        possible = {
            "same": whole,
            "other_groups": whole and single,
            "transposed": whole and single,
            "bias_read": bias is not None,
            "bias_of_call": whole and bias is not None and bias.shape[0] == CHANNELS,
        }
        return how if possible.get(how, True) else "none"

    def forward(self, x: Tensor) -> Tensor:
        y = sum(self.get_submodule(name)(x) for name in self.called) + self.buffer
        for name, how, groups in self.reads:
            holder: Any = self.get_submodule(name) if name else self
            y = y + self._read(x, holder, how, groups)
        return y

    @staticmethod
    def _read(x: Tensor, holder: Any, how: str, groups: int) -> Tensor | float:
        if how == "plain":
            return holder.weight.sum()
        if how == "view":
            return holder.weight.flatten()[:1].sum()
        if how == "bias_read":
            return holder.bias.sum()
        if how == "same":
            return F.conv2d(x, holder.weight, padding=1, groups=groups)
        if how == "other_groups":
            return F.conv2d(x[:, :2], holder.weight, padding=1, groups=2)
        if how == "transposed":
            return F.conv_transpose2d(x, holder.weight, padding=1, groups=CHANNELS)
        if how == "bias_of_call":
            return F.conv2d(x, holder.weight, holder.bias, padding=1, groups=groups)
        return 0.0


def assert_same_state(first: nn.Module, model: nn.Module) -> None:
    """All names, shapes and values of ``model``; what it holds once, it may hold once or in full."""
    found, cuts = first.state_dict(), cuts_of(model)
    assert list(found) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        if name in cuts and found[name].shape != tensor.shape:
            tensor = tensor.repeat(cuts[name].groups, *[1] * (tensor.ndim - 1))
        assert found[name].shape == tensor.shape, name
        assert torch.equal(found[name], tensor), name


ROUTES = ("symbolic_trace", "torch.export")
SEEDS = range(48)


def shared(model: nn.Module, route: str) -> Any:
    return share_kernels(model, None if route == "symbolic_trace" else (image(),))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_with_ties_is_shared_loaded_and_taken_apart(seed: int, route: str) -> None:
    """The law, whatever ties there are: the checkpoint of the model loads, and the way back is the model."""
    model, x = Tied(seed), image()
    one = shared(model, route)
    assert torch.equal(one(x), model(x))
    # Its own checkpoint, and another one of the same kind.
    for other in (model, Tied(seed, values=1)):
        one.load_state_dict(other.state_dict())
        assert torch.equal(one(x), other(x))
    one.load_state_dict(shared_state_dict(one, model.state_dict()))
    back = unshare_kernels(one)
    assert torch.equal(back(x), model(x))
    assert_same_state(back, model)
    if not cuts_of(model):
        assert not cuts_of(back)
        back.load_state_dict(Tied(seed, values=1).state_dict())
        assert torch.equal(back(x), Tied(seed, values=1)(x))


def _copies(route: str) -> list[Callable[[Any], Any]]:
    pickled = [lambda m: pickle.loads(pickle.dumps(m))] if route == "symbolic_trace" else []
    return [copy.copy, copy.deepcopy, *pickled]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("seed", SEEDS[:16])
def test_copies_of_a_model_with_ties(seed: int, route: str) -> None:
    """A copy, a deep one and a pickled one load and come back as what they are copies of."""
    model, x = Tied(seed), image()
    for make in _copies(route):
        one = make(shared(model, route))
        other = Tied(seed, values=1)
        one.load_state_dict(other.state_dict())
        assert torch.equal(one(x), other(x))
        assert torch.equal(unshare_kernels(one)(x), other(x))
        back = make(unshare_kernels(one))
        assert torch.equal(back(x), other(x))
        assert_same_state(back, other)


@pytest.mark.slow
def test_what_is_drawn_covers_what_it_is_for() -> None:
    """Among the models are shared and refused ones, two names, and two readers of one shared weight."""
    several, refused, read = 0, 0, 0
    for seed in SEEDS:
        model = Tied(seed)
        found = find_shared_kernels(model)
        several += (
            any(f.shared for f in found) and len(model.state_dict()) > len(list(model.parameters())) + 1
        )
        refused += any(not f.shared for f in found)
        read += any(f.shared and f.site.form == "functional" for f in found)
    assert min(several, refused, read) >= 8
