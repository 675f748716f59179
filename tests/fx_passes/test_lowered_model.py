"""What a lowered model can be used for."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.export import Dim
from traced import with_sizes
from two_sites import Model, both, image, lowerings

from fx_passes import share_kernels
from fx_passes.lower import lower

pytestmark = pytest.mark.usefixtures("simple_rules")


def test_lowered_is_for_inference() -> None:
    """The kernels are buffers outside the state_dict. A later change of the model does not reach them."""
    model, x = Model(both), image()
    expected = model(x)
    lowered = lower(model, "static", (x,))
    assert not any("lowered" in key for key in lowered.state_dict())
    assert all(not p.requires_grad for name, p in lowered.named_buffers())
    assert not lowered(x).requires_grad
    with torch.no_grad():
        model.first.zero_()
    assert torch.equal(lowered(x), expected)


def test_under_compile() -> None:
    """dynamo makes one graph of a lowered model, at fixed and at open sizes."""
    model, x = Model(both), image()
    for lowered in (
        lower(model, "static", (x,)),
        lower(torch.export.export(model, (x,), dynamic_shapes={"x": {0: Dim("batch", max=64)}})),
    ):
        torch._dynamo.reset()
        compiled = torch.compile(lowered, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x), model(x))


def test_exported_again() -> None:
    """A lowered model can be exported, and then computes the same."""
    model, x = Model(both), image()
    lowered = lower(model, "static", (x,))
    again = torch.export.export(lowered, (x,)).module()
    assert torch.equal(again(x), model(x))


def test_copies() -> None:
    """deepcopy and pickle give models that compute the same. torch cannot pickle the graph module of an
    export, so a trace and one lowered module are pickled."""
    model, x = Model(both), image()
    lowered = lower(model, "static", (x,))
    assert torch.equal(copy.deepcopy(lowered)(x), model(x))
    traced = lower(with_sizes(model, x), "static")
    assert lowerings(traced) == ["polyphase"] * 2
    for clone in (copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
        assert torch.equal(clone(x), model(x))
    module = lowered.get_submodule(next(str(n.target) for n in lowered.graph.nodes if n.op == "call_module"))
    clone = pickle.loads(pickle.dumps(module))
    assert clone.state_dict() == {}
    assert torch.equal(clone(x), module(x))


def test_shared_again_is_shared() -> None:
    """``share_kernels`` leaves a lowered model as it is."""
    model, x = Model(both), image()
    lowered = lower(model, "static", (x,))
    assert share_kernels(lowered).code == lowered.code
