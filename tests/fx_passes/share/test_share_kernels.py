"""The pass: equal bits, one parameter, gradients that sum, and a model that is left alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.fx.passes.infra.pass_manager import PassManager

from fx_passes import ShareKernels, UsageError, find_shared_kernels, share_kernels, unshare_kernels
from fx_passes.graph.tensors import attribute
from fx_passes.share import rewrite_sites
from fx_passes.share.replace_module import share_module
from fx_passes.train.shared_conv import SHARED_CLASSES, SharedKernelConv2d


def seed_model() -> tuple[nn.Conv2d, nn.Conv2d, Tensor]:
    """The project's seed: three channels convolved with one kernel."""
    torch.manual_seed(0)
    x = torch.rand(1, 3, 3, 3)
    kernel = nn.Conv2d(1, 1, 3)
    conv = nn.Conv2d(3, 3, 3, groups=3)
    conv.weight.data = kernel.weight.data.repeat(3, 1, 1, 1)
    conv.get_parameter("bias").data = kernel.get_parameter("bias").data.repeat(3)
    return conv, kernel, x


def passed(the_pass: PassBase, graph_module: GraphModule) -> PassResult:
    """What a pass returns; the stub of torch allows it to return nothing."""
    result = the_pass(graph_module)
    assert result is not None
    return result


FORMS = {
    "functional": lambda conv, x: conv,
    "module": lambda conv, x: nn.Sequential(conv),
    "aten": lambda conv, x: torch.export.export(conv, (x,)),
    "graph module": lambda conv, x: torch.fx.symbolic_trace(nn.Sequential(conv)),
}


@pytest.mark.parametrize("form", FORMS)
def test_seed_same_bits_and_summed_gradients(form: str) -> None:
    """The output is the same bit for bit; gradients are sums over the groups, not means."""
    conv, _, x = seed_model()
    expected = conv(x)
    assert torch.allclose(expected.flatten(), torch.tensor([-1.0085, -1.0068, -1.0451]), atol=5e-5)
    shared = share_kernels(FORMS[form](conv, x))
    assert torch.equal(shared(x), expected)
    weight, bias = shared.parameters()
    assert (weight.shape, bias.shape) == ((1, 1, 3, 3), (1,))
    expected.mean().backward()
    shared(x).mean().backward()
    for found, name in ((weight, "weight"), (bias, "bias")):
        full = conv.get_parameter(name).grad
        assert full is not None
        torch.testing.assert_close(found.grad, full.sum(0, keepdim=True), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "optimizer",
    [lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.Adam(p, lr=0.01)],
    ids=["SGD with momentum", "Adam"],
)
@pytest.mark.parametrize("form", FORMS)
def test_seed_trains_as_one_kernel_applied_channel_by_channel(
    form: str, optimizer: Callable[..., torch.optim.Optimizer]
) -> None:
    """Ten steps on the shared model are ten steps on the one kernel."""
    conv, kernel, x = seed_model()
    shared = share_kernels(FORMS[form](conv, x))
    target = torch.rand(1, 3, 1, 1)
    ours, theirs = optimizer(shared.parameters()), optimizer(kernel.parameters())
    for _ in range(10):
        for step, output in ((ours, shared(x)), (theirs, torch.cat([kernel(c) for c in x.split(1, 1)], 1))):
            step.zero_grad()
            F.mse_loss(output, target).backward()
            step.step()
    for found, expected in zip(shared.parameters(), kernel.parameters(), strict=True):
        assert not torch.equal(found, torch.zeros_like(found))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


class Net(nn.Module):
    """Shared and unshared layers, a buffer, an unused parameter, a layer called twice, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blur = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False, padding_mode="reflect")
        self.blur.weight.data = torch.randn(1, 1, 3, 3).repeat(8, 1, 1, 1)
        self.blur.weight.requires_grad_(False)
        self.mixed = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.mixed.weight.data = torch.randn(1, 1, 3, 3).repeat(8, 1, 1, 1)
        self.up = nn.ConvTranspose2d(8, 16, 4, stride=2, groups=4)
        self.up.weight.data = torch.randn(2, 4, 4, 4).repeat(4, 1, 1, 1)
        self.up.get_parameter("bias").data = torch.randn(4).repeat(4)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.dropout = nn.Dropout()
        self.unused = nn.Parameter(torch.zeros(2))
        self.window = nn.Buffer(torch.randn(1, 1, 3, 3).repeat(16, 1, 1, 1))
        self.hidden = nn.Buffer(torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixed(self.blur(self.blur(self.stem(x))))
        x = self.dropout(self.depthwise(self.up(x)))
        return F.conv2d(x, self.window, groups=16)


def snapshot(model: nn.Module) -> dict:
    """Everything of a model that a pass must leave alone."""
    return {
        "state": {k: (v.data_ptr(), v.clone()) for k, v in model.state_dict().items()},
        "modules": {name: id(module) for name, module in model.named_modules()},
        "training": {name: module.training for name, module in model.named_modules()},
        "code": getattr(model, "code", None),
    }


def require_untouched(model: nn.Module, before: dict) -> None:
    after = snapshot(model)
    for key in ("modules", "training", "code"):
        assert after[key] == before[key]
    for name, (pointer, value) in before["state"].items():
        assert after["state"][name][0] == pointer
        assert torch.equal(after["state"][name][1], value)


ROUTES = {
    "nn.Module": lambda model, x: model,
    "graph module": lambda model, x: torch.fx.symbolic_trace(model),
    "exported program": lambda model, x: torch.export.export(model, (x,)).module(),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("training", [True, False])
def test_keeps_everything_but_the_shape_of_shared_weights(route: str, training: bool) -> None:
    """Names, state_dict keys, requires_grad, training mode stay; the given model is not changed."""
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


def test_pass_is_idempotent_and_honest_about_modified() -> None:
    """A second run changes nothing and says so; so does a run on a model with nothing to share."""
    traced = torch.fx.symbolic_trace(Net())
    first = passed(ShareKernels(), traced)
    assert first.modified
    assert first.graph_module is not traced
    second = passed(ShareKernels(), first.graph_module)
    assert not second.modified
    assert second.graph_module is first.graph_module
    plain = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert not passed(ShareKernels(), plain).modified


def test_composes_in_a_pass_manager() -> None:
    """Two passes in a row, run to a fixed point."""
    result = PassManager([ShareKernels(), ShareKernels()], steps=3)(torch.fx.symbolic_trace(Net()))
    assert result.modified
    assert all(f.shared or f.id == "depthwise" for f in find_shared_kernels(result.graph_module))


def test_node_meta_is_kept_and_new_nodes_have_theirs() -> None:
    """Nodes that stay keep their meta; the expansion has the value and origin of the weight it replaces."""
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


@pytest.mark.parametrize("route", ROUTES)
def test_unshare_is_the_way_back(route: str) -> None:
    """Plain convolutions again, with a state_dict that the original class loads."""
    model = Net().eval()
    x = torch.randn(2, 3, 8, 8)
    given = ROUTES[route](model, x)
    plain = unshare_kernels(share_kernels(given))
    assert torch.equal(plain(x), model(x))
    assert not any(type(m) in SHARED_CLASSES.values() for m in plain.modules())
    # torch.fx.symbolic_trace itself drops the parameter that the graph does not read.
    Net().load_state_dict(plain.state_dict(), strict=route != "graph module")
    for name, tensor in given.state_dict().items():
        assert torch.equal(plain.state_dict()[name], tensor)


def test_tied_weights_stay_tied() -> None:
    """One parameter in two layers is one kernel in two shared layers."""
    first = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    first.weight.data = torch.randn(1, 1, 3, 3).repeat(4, 1, 1, 1)
    second = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    second.weight = first.weight
    model, x = nn.Sequential(first, second), torch.randn(1, 4, 8, 8)
    for given in (model, torch.export.export(model, (x,)).module()):
        shared = share_kernels(given)
        assert len(list(shared.parameters())) == 1
        assert shared.get_parameter("0.weight") is shared.get_parameter("1.weight")
        assert torch.equal(shared(x), model(x))


def test_weight_shared_with_another_use_is_left_alone() -> None:
    """A weight that is also an output of the model must stay whole."""

    class Regularised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1, 1, 3, 3).repeat(4, 1, 1, 1))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return F.conv2d(x, self.weight, groups=4), self.weight.square().sum()

    model = Regularised()
    assert not passed(ShareKernels(), torch.fx.symbolic_trace(model)).modified
    (finding,) = find_shared_kernels(model)
    assert finding.reason == "`weight` is also used by `square`"


def test_two_sites_with_one_weight_in_different_groups_are_refused() -> None:
    """One weight as 4 groups of 1 and as 2 groups of 2: it cannot be cut for both."""

    class TwoWays(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1, 1, 3, 3).repeat(4, 1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight, groups=4) + F.conv2d(x[:, :2], self.weight, groups=2)

    findings = find_shared_kernels(TwoWays())
    assert [f.shared for f in findings] == [False, False]
    assert findings[1].reason is not None
    assert findings[1].reason.endswith("which repeats a kernel in it differently")


def test_repeat_becomes_expand_and_its_source_stays() -> None:
    """``repeat`` of a trainable kernel is replaced by an expansion of the very same parameter."""

    class Repeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            channels = x.shape[1]
            return F.conv2d(x, self.kernel[None, None].repeat(channels, 1, 1, 1), groups=channels)

    model = Repeats()
    x = torch.randn(1, 4, 8, 8)
    shared = share_kernels(model, (x,))
    assert torch.equal(shared(x), model(x))
    assert shared.kernel is model.kernel
    assert not any("repeat" in str(node.target) for node in shared.graph.nodes)


def test_constants_are_folded_into_a_buffer_outside_the_state_dict() -> None:
    """A window computed from constants becomes a buffer of one kernel; its computation is gone."""

    class Window(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            line = torch.exp(-((torch.arange(5.0, device=x.device) - 2) ** 2))
            weight = (torch.outer(line, line) / line.sum() ** 2).expand(3, 1, 5, 5)
            return F.conv2d(x, weight, groups=3)

    model, x = Window(), torch.randn(1, 3, 8, 8)
    shared = share_kernels(torch.export.export(model, (x,)))
    assert torch.equal(shared(x), model(x))
    assert shared.state_dict() == {}
    assert [tuple(b.shape) for b in shared.buffers()] == [(1, 1, 5, 5)]
    assert not any("exp.default" in str(node.target) for node in shared.graph.nodes)
    kept = passed(ShareKernels(fold_constants=False), torch.export.export(model, (x,)).module())
    assert not kept.modified


def test_dense_block_diagonal_keeps_its_bits() -> None:
    """The dense convolution stays dense, with one kernel as its only parameter, NaN spreading included."""
    dense = nn.Conv2d(4, 4, 3)
    dense.weight.data.zero_()
    dense.weight.data[range(4), range(4)] = torch.randn(3, 3)
    x = torch.randn(1, 4, 8, 8)
    x[0, 0, 0, 0] = torch.inf
    for given in (nn.Sequential(dense), torch.export.export(dense, (x,)).module()):
        shared = share_kernels(given)
        assert torch.equal(shared(x).nan_to_num(), dense(x).nan_to_num())
        assert next(shared.parameters()).shape == (1, 1, 3, 3)


def test_tolerance_takes_the_mean() -> None:
    """With a tolerance the kernel is the mean of the groups."""
    conv = nn.Conv2d(2, 2, 1, groups=2, bias=False)
    conv.weight.data = torch.tensor([1.0, 1.5]).reshape(2, 1, 1, 1)
    assert share_kernels(nn.Sequential(conv)).get_parameter("0.weight").numel() == 2
    shared = share_kernels(nn.Sequential(conv), tolerance=0.3)
    assert shared.get_parameter("0.weight").item() == 1.25


def drifted() -> nn.Sequential:
    """Two convolutions whose repeats have been trained apart, one of them with blocks of (2, 1)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ConvTranspose2d(6, 6, 3, groups=6))
    with torch.no_grad():
        for name, rows in (("0.weight", 2), ("1.weight", 1)):
            weight = model.get_parameter(name)
            repeated = weight[:rows].repeat(3 * 2 // rows, 1, 1, 1)[: len(weight)]
            weight.copy_(repeated + 0.01 * torch.randn(weight.shape))
    return model


@pytest.mark.parametrize("force", ["mean", "first"])
def test_force_says_what_it_changes(force: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel that was asked for; the largest change of a weight, and a bound that the output keeps."""
    model = drifted()
    findings = find_shared_kernels(model, force=force)
    with caplog.at_level("WARNING", logger="fx_passes"):
        shared = share_kernels(model, force=force)
    assert len(caplog.messages) == 2
    for index, finding in enumerate(findings):
        full, kernel = (m.get_parameter(f"{index}.weight").detach() for m in (model, shared))
        assert finding.kernel is not None
        slices = full.reshape(-1, *kernel.shape)
        wanted = slices[0] if force == "first" else slices.double().mean(0).float()
        torch.testing.assert_close(kernel, wanted, rtol=0, atol=0)
        assert finding.kernel.max_difference == float((slices - kernel).abs().max())
        assert finding.to_json()["output_change"] == finding.kernel.output_change
        assert f"up to {finding.kernel.max_difference:.3g}, and its output by" in caplog.messages[index]
        change = (slices - kernel).double()
        bound = finding.kernel.output_change
        assert bound == pytest.approx(float(change.abs().sum((2, 3, 4)).max()), rel=1e-6)
    # An input of magnitude 1 with the signs of the largest change reaches the bound; none goes beyond it.
    plain, one_kernel = model[0], shared.get_submodule("0")
    assert isinstance(one_kernel, SharedKernelConv2d)
    change = model.get_parameter("0.weight").detach() - one_kernel.expanded_weight().detach()
    worst = int(change.abs().sum((1, 2, 3)).argmax())
    x = change[worst].sign().expand(3, -1, -1).unsqueeze(0)
    first = findings[0].kernel
    assert first is not None
    moved = (one_kernel(x) - plain(x)).abs().max().item()
    assert moved == pytest.approx(first.output_change, rel=1e-4)
    for _ in range(20):
        x = torch.empty(1, 3, 8, 8).uniform_(-1, 1)
        moved = (one_kernel(x) - plain(x)).abs().max()
        assert moved <= first.output_change * (1 + 1e-5)


def test_force_is_for_the_sites_that_are_named() -> None:
    """Others have to repeat to the bit, as always; a name that no site has is an error."""
    model = drifted()
    shared = share_kernels(model, force="mean", sites=["1"])
    assert shared.get_parameter("0.weight").shape == (6, 1, 3, 3)
    assert shared.get_parameter("1.weight").shape == (1, 1, 3, 3)
    result = passed(ShareKernels(force="first", sites=["0"]), torch.fx.symbolic_trace(model))
    assert result.graph_module.get_parameter("0.weight").shape == (2, 1, 3, 3)
    with pytest.raises(UsageError, match="sites must be a collection of ids, not the text '10'"):
        share_kernels(model, force="mean", sites="10")
    with pytest.raises(UsageError, match="no convolution `2`; its candidates are: 0, 1"):
        share_kernels(model, force="mean", sites=["0", "2"])


def test_half_precision_does_not_overflow() -> None:
    """Finite repeats whose difference no float16 holds."""
    conv = nn.Conv1d(2, 2, 1, groups=2, bias=False, dtype=torch.float16)
    conv.weight.data = torch.tensor([6e4, -6e4], dtype=torch.float16).reshape(2, 1, 1)
    (finding,) = find_shared_kernels(conv, force="first")
    exact = float(torch.tensor(6e4, dtype=torch.float16)) * 2
    assert finding.kernel is not None
    assert finding.kernel.max_difference == finding.kernel.output_change == exact


def test_what_force_cannot_share() -> None:
    """A NaN, and infinities that nothing finite lies between; an unknown way to choose."""
    model = drifted()
    model.get_parameter("0.weight").data[3, 0, 0, 0] = torch.inf
    model.get_parameter("1.weight").data[0, 0, 0, 0] = torch.nan
    first, second = find_shared_kernels(model, force="mean")
    assert first.reason == (
        "group 0 is inf away from the mean of the groups at [1, 0, 0, 0], and nothing finite is between"
    )
    assert str(second.reason).startswith("the weight is NaN at [0, 0, 0, 0]")
    with pytest.raises(ValueError, match="force must be 'mean' or 'first', got 'median'"):
        share_kernels(model, force="median")  # type: ignore[arg-type]  # what is refused


def test_formulation_of_what_is_shared() -> None:
    """By default the bits of the original; otherwise what was asked for, where the site allows it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 6, 3, groups=3))
    with torch.no_grad():
        for name, rows in (("0.weight", 1), ("1.weight", 2)):
            weight = model.get_parameter(name)
            weight.copy_(weight[:rows].repeat(3, 1, 1, 1))
    x = torch.randn(2, 3, 9, 9)
    assert {share_kernels(model).get_submodule(name).formulation for name in "01"} == {"grouped"}
    shared = share_kernels(model, formulation="polyphase")
    assert [shared.get_submodule(name).formulation for name in "01"] == ["polyphase", "grouped"]
    torch.testing.assert_close(shared(x), model(x))
    plain = unshare_kernels(shared)
    assert type(plain.get_submodule("0")) is nn.Conv2d
    assert not hasattr(plain.get_submodule("0"), "formulation")


@pytest.mark.parametrize(
    "fault",
    ["stride", "padding", "tap"],
)
def test_bitwise_law_fails_on_a_planted_fault(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the law the tests above rely on."""
    conv, _, _ = seed_model()
    x = torch.rand(1, 3, 9, 9)

    def faulty(graph_module: GraphModule, target: str, *arguments: Any) -> None:
        share_module(graph_module, target, *arguments)
        module: Any = graph_module.get_submodule(target)
        if fault == "stride":
            module.stride = (2, 2)
        elif fault == "padding":
            module.padding = (1, 1)
        else:
            module.weight.data[0, 0, 0, 0] += 1e-6

    monkeypatch.setattr(rewrite_sites, "share_module", faulty)
    assert not torch.equal(share_kernels(nn.Sequential(conv))(x), conv(x))


def test_shared_model_can_be_copied_and_pickled() -> None:
    """deepcopy and pickle give models that compute the same."""
    conv, _, x = seed_model()
    shared = share_kernels(nn.Sequential(conv))
    functional = share_kernels(conv)
    for model in (shared, functional):
        for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(clone(x), model(x))
            assert next(clone.parameters()).shape == (1, 1, 3, 3)


def test_refusals_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What is not shared is said at level INFO, with its reason."""
    with caplog.at_level("INFO", logger="fx_passes.share.share_kernels"):
        share_kernels(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))
    assert "0 is not shared: group 1 differs from group 0 by " in caplog.text


def casts_after(m: Function, x: Tensor) -> Tensor:
    return F.conv2d(x, m.p.repeat(4, 1, 1, 1).bfloat16().float(), groups=4)


def casts_to_input(m: Function, x: Tensor) -> Tensor:
    return F.conv2d(x, m.p.expand(4, -1, -1, -1).to(x), groups=4)


def detaches(m: Function, x: Tensor) -> Tensor:
    return F.conv2d(x, m.p.repeat(4, 1, 1, 1).detach(), groups=4)


def writes_one_group(m: Function, x: Tensor) -> Tensor:
    weight = m.p.repeat(4, 1, 1, 1)
    weight[0].mul_(2)
    return F.conv2d(x, weight, groups=4)


def writes_by_module(m: Function, x: Tensor) -> Tensor:
    weight = m.p.repeat(4, 1, 1, 1)
    m.act(weight)
    return F.conv2d(x, weight, groups=4)


def writes_diagonal(m: Function, x: Tensor) -> Tensor:
    weight = m.p.repeat(4, 1, 1, 1)
    weight.diagonal(0, 0, 2).zero_()
    return F.conv2d(x, weight, groups=4)


def adds_by_index(m: Function, x: Tensor) -> Tensor:
    lines = m.p[:, :, :, 0].flatten()
    pair = lines[[2, 0]].view(2, 1, 1, 1)
    pair = pair.index_put((torch.tensor([1]),), lines[1].view(1, 1, 1, 1), accumulate=True)
    return F.conv2d(x[:, :2], pair, groups=2)


class Function(nn.Module):
    def __init__(self, function: Callable[[Function, Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.act = function, nn.ReLU(inplace=True)
        self.p = nn.Parameter(torch.tensor([[[[1.0, 0, -1], [5, 0, -5], [6, 0, -6]]]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


HARD = [
    casts_after,
    casts_to_input,
    detaches,
    writes_one_group,
    writes_by_module,
    writes_diagonal,
    adds_by_index,
]


@pytest.mark.parametrize("traced", [True, False], ids=["symbolic_trace", "torch.export"])
@pytest.mark.parametrize("function", HARD)
def test_between_the_repeat_and_the_convolution(
    function: Callable[[Function, Tensor], Tensor], traced: bool
) -> None:
    """Casts, detaches and writes after the repeat keep their effect: same bits, same gradients."""
    model, x = Function(function), torch.randn(1, 4, 8, 8)
    shared = share_kernels(model, None if traced else (x,))
    expected, found = model(x), shared(x)
    assert torch.equal(expected, found)
    assert expected.requires_grad == found.requires_grad
    if function is casts_to_input and traced:
        assert torch.equal(shared(x.double()), model(x.double()))


def test_folded_kernels_are_only_those_that_nobody_can_load() -> None:
    """A kernel computed from the state_dict is computed from it after a load, too."""

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Buffer(torch.rand(1, 1, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, (self.k / self.k.sum()).repeat(4, 1, 1, 1), groups=4)

    model, x = Normalised(), torch.randn(1, 4, 8, 8)
    shared = share_kernels(model, (x,))
    for each in (model, shared):
        each.load_state_dict({"k": torch.ones(1, 1, 3, 3)})
    assert torch.equal(shared(x), model(x))


def test_hooks_on_parameters_keep_them_whole() -> None:
    """A gradient hook was made for every repeat: weight or bias, in either form, stays as it is."""
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
    """What a user hung on a layer or its weight is still there."""
    conv, _, _ = seed_model()
    noted: Any = conv
    noted.note, noted.weight.tag = "mine", "yours"
    shared: Any = share_kernels(nn.Sequential(conv)).get_submodule("0")
    assert (shared.note, shared.weight.tag) == ("mine", "yours")
    assert not hasattr(conv, "block_diagonal")


def test_shared_model_can_be_traced_again() -> None:
    """Torch's own tracer walks through the shared modules."""
    conv, _, x = seed_model()
    shared = share_kernels(nn.Sequential(conv))
    assert torch.equal(torch.fx.symbolic_trace(shared)(x), shared(x))


def test_one_module_under_two_names_stays_one() -> None:
    """An alias that the graph does not read is replaced, too."""
    conv, _, x = seed_model()

    class Aliased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv
            self.layers = nn.ModuleList([conv])

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.to(self.conv.weight.dtype))

    shared = share_kernels(Aliased())
    assert torch.equal(shared(x), conv(x))
    assert shared.get_parameter("layers.0.weight") is shared.get_parameter("conv.weight")


def test_a_kernel_that_is_read_elsewhere_stays_one_kernel() -> None:
    """Unsharing may not change what else the model does with the kernel."""

    class Regularised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = SharedKernelConv2d(4, 4, 3, groups=4)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * self.conv.weight.sum()

    model, x = Regularised(), torch.randn(1, 4, 8, 8)
    assert torch.equal(unshare_kernels(model)(x), model(x))


def test_a_computed_weight_that_may_change_is_not_shared_for_training() -> None:
    """It repeats by its values alone, and those of a checkpoint, or of a step, may not."""

    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.rand(1, 1, 3, 3).repeat(4, 1, 1, 1), requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.k * 0.5, groups=4)

    model, other, x = Halved(), Halved(), torch.rand(1, 4, 8, 8)
    other.k.data = torch.rand(4, 1, 3, 3)
    shared = share_kernels(model)
    shared.load_state_dict(other.state_dict())
    torch.testing.assert_close(shared(x), other(x))
    shared.requires_grad_(True)(x).sum().backward()
    assert bool((shared.get_parameter("k").grad.abs().sum((1, 2, 3)) > 0).all())  # type: ignore[union-attr]


def test_what_tracing_fixes_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """The mode that code asks for, and hooks of what is inlined; a module's own dropout follows train()."""

    class Net(nn.Module):
        def __init__(self, functional: bool) -> None:
            super().__init__()
            self.functional = functional
            self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5))

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner(x)
            return F.dropout(x, 0.5, training=self.training) if self.functional else x

    share_kernels(Net(False))
    assert not caplog.records
    share_kernels(Net(True))
    assert "`dropout` computes what the model computes in training mode" in caplog.text
    caplog.clear()
    share_kernels(Net(True).eval())
    assert "in evaluation mode, also after train()" in caplog.text
    caplog.clear()
    model = Net(False)
    model.inner.register_forward_hook(lambda module, args, output: None)
    share_kernels(model)
    assert "the hooks of `inner` do not run" in caplog.text


def test_a_formulation_that_does_not_exist() -> None:
    """Not silently another one."""
    for share in (
        lambda: share_kernels(nn.ReLU(), formulation="polyfase"),  # type: ignore[arg-type]  # what is refused
        lambda: ShareKernels(formulation="fast"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="formulation must be one of"):
            share()


def test_unshare_leaves_what_it_cannot_take_apart(caplog: pytest.LogCaptureFixture) -> None:
    """A kernel tied across numbers of groups, and one that a hook computes; said, and still right."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = SharedKernelConv2d(8, 8, 3, groups=8, bias=False)
            self.b = SharedKernelConv2d(4, 4, 3, groups=4, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)[:, :4])

    model, x = Tied(), torch.rand(1, 8, 8, 8)
    torch.testing.assert_close(unshare_kernels(model)(x), model(x))
    assert "`a` stays one kernel" in caplog.text
    assert "`b` stays one kernel" in caplog.text
    caplog.clear()
    normed = nn.Sequential(nn.utils.weight_norm(SharedKernelConv2d(8, 8, 3, groups=8)))
    torch.testing.assert_close(unshare_kernels(normed)(x), normed(x))
    assert "`0` stays one kernel" in caplog.text
    parametrised = nn.Sequential(nn.utils.parametrizations.weight_norm(SharedKernelConv2d(8, 8, 3, groups=8)))
    torch.testing.assert_close(share_kernels(parametrised)(x), parametrised(x))
