"""Every form of convolution is found, and whatever is not shared says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules.conv import _ConvNd

from fx_passes import Finding, find_shared_kernels
from fx_passes.train.shared_conv import SHARED_CLASSES

Conv = TypeVar("Conv", bound=_ConvNd)

SIZES = {1: (16,), 2: (12, 12), 3: (8, 8, 8)}


def repeat_first_group(conv: Conv) -> Conv:
    """Make every group of ``conv`` a copy of its first."""
    rows = conv.weight.shape[0] // conv.groups
    repeats = [conv.groups] + [1] * (conv.weight.ndim - 1)
    conv.weight.data = conv.weight.data[:rows].repeat(repeats)
    if conv.bias is not None:
        conv.bias.data = conv.bias.data[: conv.out_channels // conv.groups].repeat(conv.groups)
    return conv


class Call(nn.Module):
    """A model that is one function of its input and of a parameter or buffer ``k``."""

    k: Tensor

    def __init__(
        self, function: Callable[[Any, Tensor], Tensor], k: Tensor, trainable: bool = False, **more: Tensor
    ) -> None:
        super().__init__()
        self.function = function
        self.k = nn.Parameter(k) if trainable else nn.Buffer(k)
        for name, tensor in more.items():
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Functional(nn.Module):
    """A convolution written as a call of torch.nn.functional, with keyword arguments."""

    def __init__(self, conv: _ConvNd) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        names = ["stride", "padding", "dilation", "groups"] + ["output_padding"] * conv.transposed
        self.arguments = {name: getattr(conv, name) for name in names}
        kind = "conv_transpose" if conv.transposed else "conv"
        self.function = getattr(F, f"{kind}{conv.weight.ndim - 2}d")

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, bias=self.bias, weight=self.weight, **self.arguments)


def only(model: nn.Module | ExportedProgram, *inputs: Tensor, tolerance: float = 0.0) -> Finding:
    """The one finding of a model with one candidate."""
    (finding,) = find_shared_kernels(model, inputs or None, tolerance=tolerance)
    return finding


@pytest.mark.parametrize("cls", SHARED_CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("form", ["module", "functional", "aten", "convolution"])
def test_every_class_in_every_form(cls: type[Any], form: str) -> None:
    """nn modules, functional calls, torch.export's ATen, and aten.convolution after decomposition."""
    arguments = {"stride": 2, "padding": 1, "dilation": 2}
    if "Transpose" in cls.__name__:
        arguments["output_padding"] = 1
    conv = repeat_first_group(cls(4, 8, 3, groups=2, **arguments))
    x = torch.randn(2, 4, *SIZES[conv.weight.ndim - 2])
    models: dict[str, Callable[[], nn.Module | ExportedProgram]] = {
        "module": lambda: nn.Sequential(conv),
        "functional": lambda: Functional(conv),
        "aten": lambda: torch.export.export(conv, (x,)),
        "convolution": lambda: torch.export.export(conv, (x,)).run_decompositions(),
    }
    finding = only(models[form]())
    assert finding.shared, finding.reason
    geometry = finding.site.geometry
    assert finding.op == {"C": "conv", "T": "conv_transpose"}["T" if geometry.transposed else "C"] + (
        f"{geometry.dim}d"
    )
    assert finding.site.form == ("aten" if form == "convolution" else form)
    assert (finding.groups, geometry.in_channels, geometry.out_channels) == (2, 4, 8)
    dims = (1,) * geometry.dim
    assert geometry.kernel == tuple(3 * d for d in dims)
    assert geometry.stride == geometry.dilation == tuple(2 * d for d in dims)
    assert geometry.padding == dims
    assert geometry.output_padding == tuple(d * geometry.transposed for d in dims)
    assert finding.kernel_shape == (conv.weight.shape[0] // 2, *conv.weight.shape[1:])
    assert finding.kernel is not None
    assert finding.kernel.bias_shared
    assert finding.origin == "parameter"


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_string_padding(padding: Any) -> None:
    """conv2d.padding and a module's string padding keep the string."""
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4, padding=padding))
    exported = torch.export.export(conv, (torch.randn(1, 4, 8, 8),))
    models: list[nn.Module | ExportedProgram] = [nn.Sequential(conv), exported]
    for model in models:
        finding = only(model)
        assert finding.shared
        assert finding.site.geometry.padding in (padding, (0, 0))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_of_modules(mode: Any) -> None:
    """A module's padding mode is part of its geometry."""
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode=mode))
    assert only(nn.Sequential(conv)).site.geometry.padding_mode == mode


def test_make_fx_graph() -> None:
    """A graph of aten.convolution from make_fx, its weight a lifted constant."""
    weight = torch.randn(1, 1, 3, 3).repeat(4, 1, 1, 1)
    graph_module = make_fx(lambda x: F.conv2d(x, weight, groups=4))(torch.randn(1, 4, 8, 8))
    assert only(graph_module).shared


K = torch.randn(1, 1, 3, 3)
CONSTRUCTIONS = {
    "expand": lambda m, x: F.conv2d(x, m.k.expand(4, -1, -1, -1), groups=4),
    "repeat": lambda m, x: F.conv2d(x, m.k.repeat(4, 1, 1, 1), groups=4),
    "repeat by input size": lambda m, x: F.conv2d(x, m.k.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1]),
    "cat": lambda m, x: F.conv2d(x, torch.cat([m.k] * 4), groups=4),
    "repeat_interleave": lambda m, x: F.conv2d(x, m.k.repeat_interleave(4, 0), groups=4),
    "flip and transpose": lambda m, x: F.conv2d(x, m.k.flip(2).transpose(2, 3).repeat(4, 1, 1, 1), groups=4),
    "repeat then flip": lambda m, x: F.conv2d(x, m.k.repeat(4, 1, 1, 1).flip(-1), groups=4),
    "reshape": lambda m, x: F.conv2d(x, m.k.view(3, 3).expand(4, 1, 3, 3).reshape(4, 1, 3, 3), groups=4),
    "computed kernel": lambda m, x: F.conv2d(x, (m.k * m.k / m.k.sum()).expand(4, 1, 3, 3), groups=4),
    "stack": lambda m, x: F.conv2d(x, torch.stack([m.k[0]] * 4), groups=4),
    "to": lambda m, x: F.conv2d(x, m.k.to(x.dtype).repeat(4, 1, 1, 1), groups=4),
    "zeros and index_put": lambda m, x: F.conv2d(x, diagonal(x, m.k)),
}


def diagonal(x: Tensor, k: Tensor) -> Tensor:
    weight = x.new_zeros([4, 4, 3, 3])
    indices = torch.arange(4)
    weight[indices, indices] = k[0].expand(4, -1, -1)
    return weight


@pytest.mark.parametrize("trainable", [True, False], ids=["parameter", "buffer"])
@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_repeats_by_construction(name: str, trainable: bool) -> None:
    """Shared whatever the values are, trainable or not."""
    finding = only(Call(CONSTRUCTIONS[name], K.clone(), trainable), torch.randn(1, 4, 8, 8))
    assert finding.shared, finding.reason
    assert finding.groups == 4
    assert finding.kernel_shape == (1, 1, 3, 3)
    assert finding.kernel is not None
    assert finding.kernel.proof == "construction"


def test_repeat_of_an_input() -> None:
    """A kernel that arrives at run time is shared by its expand, values unknown."""

    class RunTime(nn.Module):
        def forward(self, x: Tensor, k: Tensor) -> Tensor:
            return F.conv2d(x, k.expand(4, -1, -1, -1), groups=4)

    finding = only(RunTime(), torch.randn(1, 4, 8, 8), K)
    assert finding.shared
    assert finding.origin == "computed"


def test_constant_arithmetic_is_folded_and_compared() -> None:
    """Arithmetic after the repeat proves nothing by construction; its constant value does."""

    def gaussian(m: nn.Module, x: Tensor) -> Tensor:
        line = torch.exp(-(torch.arange(3.0) ** 2))
        weight = torch.outer(line, line).repeat(4, 1, 1, 1) * x.new_ones(4, 1, 3, 3)
        return F.conv2d(x, weight / weight.sum(), groups=4)

    finding = only(Call(gaussian, K), torch.randn(1, 4, 8, 8))
    assert finding.shared, finding.reason
    assert finding.kernel is not None
    assert finding.kernel.proof == "values"


def test_dense_block_diagonal_parameter() -> None:
    """A dense convolution of equal diagonal blocks is a site of that many groups."""
    conv = nn.Conv2d(4, 4, 3)
    conv.weight.data.zero_()
    conv.weight.data[range(4), range(4)] = K[0, 0]
    finding = only(nn.Sequential(conv))
    assert finding.shared
    assert finding.kernel is not None
    assert finding.kernel.block_diagonal
    assert finding.groups == 4


def test_one_channel_is_reported_as_one_kernel_already() -> None:
    """1 -> 1 channels: shared, with a note that there is nothing to expand."""
    finding = only(nn.Sequential(nn.Conv2d(1, 1, 3)))
    assert finding.shared
    assert finding.reason == "one input and one output channel: already one kernel"


def test_ordinary_dense_convolutions_are_not_listed() -> None:
    """Dense weights are no candidates, in any form, computed ones included."""
    assert find_shared_kernels(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())) == []
    computed = Call(lambda m, x: F.conv2d(x, m.k * x.mean()), torch.randn(4, 4, 3, 3))
    assert find_shared_kernels(computed, (torch.randn(1, 4, 8, 8),)) == []


@pytest.mark.parametrize("model", [nn.Identity(), nn.Sequential(), nn.Linear(2, 2)])
def test_models_without_convolutions(model: nn.Module) -> None:
    """Nothing to find is no error."""
    assert find_shared_kernels(model) == []


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3, groups=2))


def with_nan() -> nn.Module:
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4))
    conv.weight.data[:, 0, 1, 1] = torch.nan
    return nn.Sequential(conv)


def hooked() -> nn.Module:
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4))
    conv.register_forward_hook(lambda module, args, output: output * 2)
    return nn.Sequential(conv)


class Subclass(nn.Conv2d):
    pass


class Tied(nn.Module):
    """A weight that something else uses as well."""

    def __init__(self) -> None:
        super().__init__()
        self.a = repeat_first_group(nn.Conv2d(4, 4, 1, groups=4, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) * self.a.weight[0]


def patched() -> nn.Module:
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4))
    conv._conv_forward = lambda input, weight, bias: input  # type: ignore[method-assign]
    return nn.Sequential(conv)


def inconsistent() -> nn.Module:
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4))
    conv.out_channels = 8
    return nn.Sequential(conv)


def channels_last() -> nn.Module:
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4))
    # The stub of `Module.to` lacks the one argument that is by keyword alone.
    return nn.Sequential(conv).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def mutated(m: Call, x: Tensor) -> Tensor:
    y = F.conv2d(x, m.k, groups=4)
    m.k.mul_(0.5)
    return y


FULL = K.repeat(4, 1, 1, 1)
REFUSALS: dict[str, tuple[nn.Module, str]] = {
    "differs": (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), "group 1 differs from group 0 by "),
    "nan": (with_nan(), "the weight is NaN at [0, 0, 1, 1] (4 in all)"),
    "hooks": (hooked(), "this `Conv2d` or its parameters have hooks, which are for the full weight"),
    "subclass": (
        torch.fx.GraphModule(
            nn.Sequential(Subclass(4, 4, 3, groups=4)),
            torch.fx.symbolic_trace(nn.Sequential(nn.ReLU())).graph,
        ),
        "`Subclass` is a subclass of a convolution and may compute anything",
    ),
    "computed-weight": (
        nn.Sequential(nn.utils.weight_norm(nn.Conv2d(4, 4, 3, groups=4))),
        "the weight of this `Conv2d` is computed by a hook",
    ),
    "trainable": (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3, groups=4))),
        "computed from the trainable parameter `0.parametrizations.weight.original",
    ),
    "meta": (
        nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, device="meta")),
        "`0.weight` is on the meta device and has no values",
    ),
    "tied": (Tied(), "`a.weight` is also used by `getitem`"),
    "patched": (patched(), "this `Conv2d` has its own forward, which may compute anything"),
    "inconsistent": (inconsistent(), "the weight [4, 1, 3, 3] does not fit the channels"),
    "layout": (channels_last(), "`0.weight` is stored channels_last, and the output takes over that order"),
    "runtime": (
        Call(lambda m, x: F.conv2d(x, m.k * x.mean(), groups=4), FULL),
        "it depends on the input `x`, not only on its shape",
    ),
    "random": (
        Call(lambda m, x: F.conv2d(x, m.k * torch.rand(4, 1, 1, 1), groups=4), FULL),
        "draws random numbers",
    ),
    "mutated": (Call(mutated, FULL), "`k` is written to by `mul_` while the model runs"),
}
NEEDS_INPUT = ("trainable", "runtime", "random", "mutated")


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_refusals_say_what_where_and_how_much(code: str) -> None:
    """Each refusal code, with its message."""
    model, reason = REFUSALS[code]
    finding = only(model, *([torch.randn(1, 4, 8, 8)] if code in NEEDS_INPUT else []))
    assert not finding.shared
    assert finding.refusal is not None
    assert finding.refusal.code == code
    assert finding.refusal.site == finding.id
    assert reason in str(finding.reason)


def test_lazy_module_is_refused() -> None:
    """A weight that is not there yet cannot be compared."""
    finding = only(lazy())
    assert finding.refusal is not None
    assert finding.refusal.code == "lazy"


def test_leaf_modules_are_looked_into() -> None:
    """A convolution inside a module that the graph calls as a whole is listed, with that reason."""

    class Leaf(torch.fx.Tracer):
        def is_leaf_module(self, m: nn.Module, name: str) -> bool:
            return name == "0"

    model = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3)))
    finding = only(torch.fx.GraphModule(model, Leaf().trace(model)))
    assert finding.id == "0.0"
    assert finding.reason == "inside `0` (Sequential), which the graph calls as a whole"


@pytest.mark.slow
def test_bodies_of_control_flow_are_looked_into() -> None:
    """A convolution in groups in the branch of a cond is listed, with that reason."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4, padding=1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda x: self.conv(x), lambda x: self.conv(x).neg(), (x,))

    findings = find_shared_kernels(Branches(), (torch.randn(1, 4, 8, 8),))
    assert [f.id for f in findings] == ["true_graph_0/conv2d", "false_graph_0/conv2d"]
    assert {f.refusal.code for f in findings if f.refusal} == {"subgraph"}


def test_tolerance_shares_what_is_nearly_equal() -> None:
    """Within the tolerance a site is shared, and says by how much the weights change."""
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4))
    conv.weight.data[1] += 1e-4
    model = nn.Sequential(conv)
    assert not only(model).shared
    finding = only(model, tolerance=1e-3)
    assert finding.kernel is not None
    assert finding.kernel.max_difference == pytest.approx(7.5e-5, rel=1e-2)


def test_ids_are_unique() -> None:
    """A module called twice gives two findings with two ids."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blur = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4, padding=1))

        def forward(self, x: Tensor) -> Tensor:
            return self.blur(self.blur(x))

    assert [f.id for f in find_shared_kernels(Twice())] == ["blur", "blur#2"]


def test_negative_tolerance_is_refused() -> None:
    """A tolerance below zero is an error, not a quiet zero."""
    with pytest.raises(ValueError, match="tolerance must be 0 or more"):
        find_shared_kernels(nn.Conv2d(2, 2, 1, groups=2), tolerance=-1.0)
