"""Checkpoints of repeated, shared and plain models, each loaded into the others."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fx_passes import (
    CheckpointError,
    share_kernels,
    shared_state_dict,
    unshare_kernels,
)
from fx_passes.kernels.expand import expand_block_diagonal
from fx_passes.train.checkpoint import cuts_of, forget_cuts


class Net(nn.Module):
    """Has a module, a dense block-diagonal module, a functional call, and a layer in front of them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.first = nn.Conv2d(3, 4, 1)
        self.module = nn.Conv2d(4, 8, 3, groups=4)
        self.dense = nn.Conv2d(8, 8, 3, bias=False)
        self.weight = nn.Parameter(torch.randn(1, 1, 3, 3, generator=g).repeat(8, 1, 1, 1))
        with torch.no_grad():
            for parameter in self.first.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=g))
            self.module.weight.copy_(torch.randn(2, 1, 3, 3, generator=g).repeat(4, 1, 1, 1))
            self.module.get_parameter("bias").copy_(torch.randn(2, generator=g).repeat(4))
            self.dense.weight.copy_(expand_block_diagonal(torch.randn(2, 2, 3, 3, generator=g), 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.dense(self.module(self.first(x))), self.weight, groups=8)


@pytest.fixture(params=["symbolic_trace", "torch.export"])
def shared(request: pytest.FixtureRequest) -> nn.Module:
    model = share_kernels(Net(0), None if request.param == "symbolic_trace" else (image(),))
    assert sum(p.numel() for p in model.parameters()) == 16 + 18 + 2 + 36 + 9
    return model


def image() -> Tensor:
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(5))


def test_a_repeated_checkpoint_loads(shared: nn.Module) -> None:
    """Each kernel is cut out of its repeats. The checkpoint stays as it was."""
    other = Net(1)
    checkpoint = other.state_dict()
    shapes = {name: tensor.shape for name, tensor in checkpoint.items()}
    shared.load_state_dict(checkpoint)
    assert torch.equal(shared(image()), other(image()))
    assert {name: tensor.shape for name, tensor in checkpoint.items()} == shapes


def test_a_shared_checkpoint_loads_into_itself(shared: nn.Module) -> None:
    """A shared model loads another one. So does its deepcopy."""
    other = share_kernels(Net(1))
    shared.load_state_dict(other.state_dict())
    assert torch.equal(shared(image()), other(image()))
    twin = copy.deepcopy(shared)
    twin.load_state_dict(Net(2).state_dict())
    assert torch.equal(twin(image()), Net(2)(image()))


def test_the_plain_model_comes_back(shared: nn.Module) -> None:
    """The original class loads the state_dict of ``unshare_kernels``. The plain model loads its own."""
    plain = unshare_kernels(shared)
    again = Net(1)
    again.load_state_dict(plain.state_dict())
    assert torch.equal(again(image()), Net(0)(image()))
    different = Net(1).state_dict()
    different["weight"][3] += 1
    plain.load_state_dict(different)
    assert torch.equal(plain.state_dict()["weight"], different["weight"])


@pytest.mark.parametrize(
    ("name", "place", "message"),
    [
        (
            "module.weight",
            (4, 0, 1, 2),
            "`module.weight`: group 2 differs from group 0 by 0.5 at [0, 0, 1, 2]",
        ),
        ("module.bias", (7,), "`module.bias`: group 3 differs from group 0 by 0.5 at [1]"),
        ("weight", (1, 0, 0, 0), "`weight`: group 1 differs from group 0 by 0.5 at [0, 0, 0, 0]"),
        ("dense.weight", (2, 2, 0, 0), "`dense.weight`: group 1 differs from group 0 by 0.5 at [0, 0, 0, 0]"),
        ("dense.weight", (0, 2, 0, 0), "`dense.weight`: it is not zero outside its 4 diagonal blocks"),
    ],
)
def test_repeats_that_differ_are_refused(
    shared: nn.Module, name: str, place: tuple[int, ...], message: str
) -> None:
    """The error names parameter, group and difference. Nothing at all is loaded."""
    checkpoint = Net(1).state_dict()
    with torch.no_grad():
        checkpoint[name][place] = checkpoint[name][place].round() + 0.5
        for copies in range(1, 4):
            if name != "dense.weight" and "group 0" in message:
                first = list(place)
                first[0] %= {"module.weight": 2, "module.bias": 2, "weight": 1}[name]
                step = {"module.weight": 2, "module.bias": 2, "weight": 1}[name]
                other = (first[0] + (copies - 1) * step, *first[1:])
                if other != place:
                    checkpoint[name][other] = checkpoint[name][place] - 0.5
    if name == "weight":
        checkpoint[name][4:, 0, 0, 0] = checkpoint[name][0, 0, 0, 0]
    if name == "dense.weight" and place[1] == place[0]:
        checkpoint[name][0, 0, 0, 0] = checkpoint[name][place] - 0.5
    before = {key: tensor.clone() for key, tensor in shared.state_dict().items()}
    with pytest.raises(CheckpointError, match=re.escape(message)):
        shared.load_state_dict(checkpoint)
    assert all(torch.equal(tensor, before[key]) for key, tensor in shared.state_dict().items())


def pickled(model: nn.Module) -> nn.Module:
    twin: nn.Module = pickle.loads(pickle.dumps(model))
    return twin


COPIES: tuple[Callable[[nn.Module], nn.Module], ...] = (copy.copy, copy.deepcopy, pickled, share_kernels)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(COPIES, COPIES)))
def test_copies_of_copies_know_what_was_cut(
    first: Callable[[nn.Module], nn.Module], second: Callable[[nn.Module], nn.Module]
) -> None:
    """Any copy loads what the repeated model saved, or it loads nothing. It can be unshared."""
    twin = second(first(share_kernels(Net(0))))
    bad = Net(1).state_dict()
    bad["weight"][3] += 1
    with pytest.raises(CheckpointError, match="nothing was loaded"):
        twin.load_state_dict(bad)
    assert torch.equal(twin(image()), Net(0)(image()))
    twin.load_state_dict(Net(1).state_dict())
    assert torch.equal(twin(image()), Net(1)(image()))
    assert shared_state_dict(twin, Net(1).state_dict())["weight"].shape == (1, 1, 3, 3)
    assert torch.equal(unshare_kernels(twin).state_dict()["weight"], Net(1).state_dict()["weight"])


def test_a_class_derived_from_that_of_a_graph_is_copied() -> None:
    """FSDP derives such a class for each module. (What torch itself copies of one cannot be called.)"""
    shared = share_kernels(Net(0))
    shared.__class__ = type("Derived", (type(shared),), {})
    for made in (copy.copy(shared), copy.deepcopy(shared), pickled(shared)):
        assert cuts_of(made) == cuts_of(shared)


def test_a_copy_forgets_for_itself() -> None:
    """The copy is unshared in place. The model that it was copied from forgets nothing."""
    shared = share_kernels(Net(0))
    forget_cuts(copy.copy(shared), ["weight"])
    assert "weight" in cuts_of(shared)


def test_models_inside_models_know_what_was_cut(caplog: pytest.LogCaptureFixture) -> None:
    """A shared model is shared again inside another one, by either route. It loads, and is unshared."""
    shared = share_kernels(Net(0))
    shared.load_state_dict(Net(1).state_dict())
    stays: list[str] = []
    for outer in (share_kernels(nn.Sequential(shared)), share_kernels(nn.Sequential(shared), (image(),))):
        outer.load_state_dict(nn.Sequential(Net(1)).state_dict())
        assert torch.equal(outer(image()), Net(1)(image()))
        plain = unshare_kernels(outer)
        shapes = {name: tuple(tensor.shape) for name, tensor in plain.state_dict().items()}
        dense = shapes.pop("0.dense.weight")
        assert shapes == {
            f"0.{n}": tuple(t.shape) for n, t in Net(1).state_dict().items() if n != "dense.weight"
        }
        assert torch.equal(plain(image()), Net(1)(image()))
        stays = [m for m in caplog.messages if m.startswith("`0.dense.weight` stays one kernel")]
        assert dense == ((2, 2, 3, 3) if stays else (8, 8, 3, 3))
    assert stays


def test_what_was_loaded_is_said() -> None:
    """Repeats differ inside another model. The modules in front are loaded by then, and the error says so."""
    checkpoint = nn.Sequential(nn.Conv2d(3, 3, 1), Net(1)).state_dict()
    checkpoint["1.weight"][3] += 1
    outer = nn.Sequential(nn.Conv2d(3, 3, 1), share_kernels(Net(0)))
    with pytest.raises(CheckpointError, match="nothing was loaded here, but earlier modules were"):
        outer.load_state_dict(checkpoint)
    with pytest.raises(CheckpointError, match="; nothing was loaded"):
        shared_state_dict(outer, checkpoint)


def test_other_shapes_are_left_to_torch(shared: nn.Module) -> None:
    """A checkpoint of another model fails with torch's own message."""
    checkpoint = {**Net(1).state_dict(), "weight": torch.zeros(5, 1, 3, 3)}
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        shared.load_state_dict(checkpoint)


def test_safetensors(shared: nn.Module, tmp_path: Path) -> None:
    """A saved file has one kernel, in its own memory. Both models load it."""
    safetensors.torch.save_file(shared.state_dict(), tmp_path / "shared.safetensors")
    loaded = safetensors.torch.load_file(tmp_path / "shared.safetensors")
    assert loaded["weight"].shape == (1, 1, 3, 3)
    assert all(0 not in tensor.stride() for tensor in shared.state_dict().values())
    other = share_kernels(Net(1))
    other.load_state_dict(loaded)
    assert torch.equal(other(image()), shared(image()))
    safetensors.torch.save_file(Net(2).state_dict(), tmp_path / "repeated.safetensors")
    shared.load_state_dict(safetensors.torch.load_file(tmp_path / "repeated.safetensors"))
    assert torch.equal(shared(image()), Net(2)(image()))
