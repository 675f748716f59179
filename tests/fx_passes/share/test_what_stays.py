"""What sharing leaves as it was: names, tensors, modes, metadata and attributes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from models_to_share import ROUTES, Net, passed, seed_model
from torch import Tensor, nn

from fx_passes import ShareKernels, share_kernels
from fx_passes.graph.tensors import attribute
from fx_passes.train.shared_conv import SharedKernelConv2d


def snapshot(model: nn.Module) -> dict:
    """Everything of a model that a pass must leave alone."""
    return {
        "state": {k: (v.data_ptr(), v.clone()) for k, v in model.state_dict().items()},
        "modules": {name: id(module) for name, module in model.named_modules()},
        "training": {name: module.training for name, module in model.named_modules()},
        "code": getattr(model, "code", None),
    }


def require_untouched(model: nn.Module, before: dict) -> None:
    """The model is as ``before``, the snapshot of it."""
    after = snapshot(model)
    for key in ("modules", "training", "code"):
        assert after[key] == before[key]
    for name, (pointer, value) in before["state"].items():
        assert after["state"][name][0] == pointer
        assert torch.equal(after["state"][name][1], value)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("training", [True, False])
def test_keeps_everything_but_the_shape_of_shared_weights(route: str, training: bool) -> None:
    """Names, state_dict keys, requires_grad and training mode stay. The given model does not change."""
    model = Net().train(training)
    model.dropout.p = 0.0
    x = torch.randn(2, 3, 8, 8)
    given = ROUTES[route](model, x)
    before = snapshot(given)
    expected = given(x)
    shared = share_kernels(given)
    require_untouched(given, before)
    assert torch.equal(shared(x), expected)
    assert list(shared.state_dict()) == list(given.state_dict())
    cut = {
        "blur.weight": (1, 1, 3, 3),
        "mixed.weight": (1, 1, 3, 3),
        "up.weight": (2, 4, 4, 4),
        "up.bias": (4,),
        "window": (1, 1, 3, 3),
    }
    for name, tensor in given.state_dict(keep_vars=True).items():
        ours = shared.state_dict(keep_vars=True)[name]
        assert tuple(ours.shape) == cut.get(name, tuple(tensor.shape)), name
        assert ours.requires_grad == tensor.requires_grad
        assert (ours.dtype, type(ours)) == (tensor.dtype, type(tensor))
        assert (ours is tensor) == (name not in cut)
    if route != "exported program":
        assert all(m.training == training for m in shared.modules())
        assert isinstance(shared.get_submodule("blur"), SharedKernelConv2d)
        assert isinstance(shared.get_submodule("dropout"), nn.Dropout)


def test_node_meta_is_kept_and_new_nodes_have_theirs() -> None:
    """Nodes that stay keep their meta. An expansion has the value of the weight that it replaces."""
    x = torch.randn(2, 3, 8, 8)
    program = torch.export.export(Net().eval(), (x,))
    graph_module = program.module()
    shared = passed(ShareKernels(), graph_module).graph_module
    before = {node.name: node for node in graph_module.graph.nodes}
    for node in shared.graph.nodes:
        if node.name in before and node.op != "get_attr":
            assert node.meta.keys() == before[node.name].meta.keys()
    expanded = [n for n in shared.graph.nodes if n.name not in before and "val" in n.meta]
    assert len(expanded) == 6
    full = {"weight": (8, 1, 3, 3), "up": (8, 4, 4, 4), "bias": (16,), "window": (16, 1, 3, 3)}
    assert {tuple(node.meta["val"].shape) for node in expanded} == set(full.values())
    for node in shared.graph.nodes:
        if node.op == "get_attr" and "val" in node.meta:
            kept = attribute(shared, node.target)
            assert isinstance(kept, Tensor)
            assert node.meta["val"].shape == kept.shape


def test_hooks_on_parameters_keep_them_whole() -> None:
    """A gradient hook was made for all repeats. A weight or bias with one stays whole."""
    for name in ("weight", "bias"):
        conv, _, x = seed_model()
        conv.get_parameter(name).register_hook(lambda gradient: gradient * 0)
        for model in (conv, nn.Sequential(conv)):
            shared = share_kernels(model)
            shared(x).sum().backward()
            parameter = next(p for key, p in shared.named_parameters() if key.endswith(name))
            assert parameter.shape == conv.get_parameter(name).shape
            assert parameter.grad is not None
            assert not parameter.grad.any()


def test_attributes_of_modules_and_parameters_survive() -> None:
    """Attributes that a user set on a layer or its weight are still there."""
    conv, _, _ = seed_model()
    noted: Any = conv
    noted.note, noted.weight.tag = "mine", "yours"
    shared: Any = share_kernels(nn.Sequential(conv)).get_submodule("0")
    assert (shared.note, shared.weight.tag) == ("mine", "yours")
    assert not hasattr(conv, "block_diagonal")


def test_shared_model_can_be_copied_and_pickled() -> None:
    """deepcopy and pickle give models that compute the same."""
    conv, _, x = seed_model()
    shared = share_kernels(nn.Sequential(conv))
    functional = share_kernels(conv)
    for model in (shared, functional):
        for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(clone(x), model(x))
            assert next(clone.parameters()).shape == (1, 1, 3, 3)


def test_shared_model_can_be_traced_again() -> None:
    """Torch's own tracer walks through the shared modules."""
    conv, _, x = seed_model()
    shared = share_kernels(nn.Sequential(conv))
    assert torch.equal(torch.fx.symbolic_trace(shared)(x), shared(x))
