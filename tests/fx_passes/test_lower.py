"""``lower()``: any model for inference, each shared convolution as a plan says, and the model left alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx import GraphModule
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from fx_passes import SharedKernelConv2d, share_kernels
from fx_passes.capture.routes import capture
from fx_passes.errors import CaptureError, UsageError
from fx_passes.lower import lower
from fx_passes.lowerings import propose
from fx_passes.lowerings.forms.base import Lowered
from fx_passes.plan import Choice, Plan
from fx_passes.records import Proposal
from fx_passes.resample.site import lowerable_sites

pytestmark = pytest.mark.usefixtures("simple_rules")

# Of full rank, in integers: computed in phases, every sum is exact.
KERNEL = torch.tensor([[1.0, 2, -1], [0, 3, 1], [-2, 1, 1]])
OTHER = torch.tensor([[0.0, 1, 0], [2, -3, 1], [1, 1, 2]])


def image(*shape: int) -> Tensor:
    """Small integers; by default so many that the rules do not leave the site alone as too small."""
    return torch.randint(-4, 5, shape or (2, 4, 26, 40)).float()


class Model(nn.Module):
    """A function of an input, and kernels repeated for four channels."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.first = nn.Parameter(KERNEL.repeat(4, 1, 1, 1))
        self.second: Tensor = nn.Buffer(OTHER.repeat(4, 1, 1, 1))
        self.bias: Tensor = nn.Parameter(torch.arange(4.0))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)

    def one(self, x: Tensor, **other: Any) -> Tensor:
        return F.conv2d(x, self.first, groups=4, **other)

    def two(self, x: Tensor, **other: Any) -> Tensor:
        return F.conv2d(x, self.second, groups=4, **other)


def both(m: Model, x: Tensor) -> Tensor:
    return m.two(m.one(x, padding=1, bias=m.bias).relu())


def lowerings(graph_module: GraphModule) -> list[str]:
    """The lowerings that a graph calls."""
    targets = [str(node.target) for node in graph_module.graph.nodes if node.op == "call_module"]
    modules = [graph_module.get_submodule(target) for target in targets]
    return [type(m).__module__.rpartition(".")[2] for m in modules if isinstance(m, Lowered)]


def phases_everywhere(model: Any, inputs: Any, skip: int = -1) -> Plan:
    """Every site but one in phases."""
    sites, _ = lowerable_sites(capture(model, inputs).graph_module)
    choices = {}
    for i, site in enumerate(sites):
        ways = [p for p in propose(site.resample, site.kernel)[0] if p.lowering.endswith("polyphase")]
        choices[site.id] = Choice(site.key, None if i == skip else ways[0])
    return Plan(choices)


def with_sizes(model: nn.Module, *inputs: Tensor) -> GraphModule:
    """A symbolic trace, whose nodes know their shapes as those of an export do."""
    graph_module = torch.fx.symbolic_trace(model)
    for node in graph_module.graph.nodes:
        node.type = None  # annotations that are strings cannot be pickled
    FakeTensorProp(graph_module, FakeTensorMode(allow_non_fake_inputs=True)).propagate(*inputs)
    return graph_module


ROUTES: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "nn.Module": lambda model, x: model,
    "exported program": lambda model, x: torch.export.export(model, (x,)),
    "graph module": lambda model, x: torch.export.export(model, (x,)).module(),
    "graph module with sizes": with_sizes,
}


@pytest.mark.parametrize("route", ROUTES)
def test_every_kind_of_model(route: str) -> None:
    """The rules lower both sites, whatever holds the model; the numbers are the same."""
    model, x = Model(both), image()
    lowered = lower(ROUTES[route](model, x), "static", (x,))
    assert lowerings(lowered) == ["polyphase"] * 2
    assert torch.equal(lowered(x), model(x))
    assert not any("conv" in str(node.target) for node in lowered.graph.nodes)


def test_modules_with_their_own_padding() -> None:
    """Convolutions that a graph calls as modules, with a padding mode, ``"same"``, or transposed."""
    for conv in (
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", groups=4),
        nn.Conv2d(4, 4, 3, padding="same", padding_mode="replicate", groups=4, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same", groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=(2, 1), padding_mode="circular", groups=4),
        nn.ConvTranspose2d(4, 4, 3, padding=1, stride=2, output_padding=1, groups=4),
    ):
        conv.weight.data = KERNEL.repeat(4, 1, 1, 1)
        if conv.bias is not None:
            conv.bias.data = torch.arange(4.0)
        model, x = nn.Sequential(conv), image()
        for given in (model, with_sizes(model, x)):
            lowered = lower(given, "static", (x,))
            assert len(lowerings(lowered)) == 1
            assert torch.equal(lowered(x), model(x))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_pad_in_front_of_a_padding_mode(mode: Any) -> None:
    """What a convolution reflects is what was padded before, whichever way."""
    conv = nn.Conv2d(4, 4, 3, padding=2, padding_mode=mode, groups=4)
    conv.weight.data, conv.get_parameter("bias").data = KERNEL.repeat(4, 1, 1, 1), torch.arange(4.0)

    class Padded(nn.Module):
        def __init__(self, how: str) -> None:
            super().__init__()
            self.conv, self.how = conv, how

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(F.pad(x, [1, 2, 0, 1], mode=self.how))

    for how in ("constant", "reflect", "replicate"):
        model, x = Padded(how), image()
        lowered = lower(with_sizes(model, x))
        assert lowerings(lowered) == ["polyphase"]
        assert torch.equal(lowered(x), model(x))


def test_equal_sites_are_one_module() -> None:
    """The same kernel, bias and sizes: one module, called twice; a bias of its own makes another."""
    model = Model(lambda m, x: (m.one(x), m.one(2 * x), m.one(x, bias=m.bias), m.one(x[:, :, 1:])))
    x = image()
    lowered = lower(model, phases_everywhere(model, (x,)), (x,))
    targets = [str(node.target) for node in lowered.graph.nodes if node.op == "call_module"]
    assert len(targets) == 4
    assert targets[0] == targets[1]
    assert len(set(targets)) == 3
    assert all(torch.equal(a, b) for a, b in zip(lowered(x), model(x), strict=True))


def test_lowered_is_for_inference() -> None:
    """Kernels are buffers outside the state_dict; what trains or loads them later does not reach them."""
    model, x = Model(both), image()
    expected = model(x)
    lowered = lower(model, "static", (x,))
    assert not any("lowered" in key for key in lowered.state_dict())
    assert all(not p.requires_grad for name, p in lowered.named_buffers())
    assert not lowered(x).requires_grad
    with torch.no_grad():
        model.first.zero_()
    assert torch.equal(lowered(x), expected)


def test_what_the_plan_leaves_is_shared() -> None:
    """One site lowered, the other as ``share_kernels`` has it, trainable as before."""
    model, x = Model(both), image()
    lowered = lower(model, phases_everywhere(model, (x,), skip=0), (x,))
    assert lowerings(lowered) == ["polyphase"]
    assert lowered.get_parameter("first").shape == (1, 1, 3, 3)
    assert lowered.get_parameter("first").requires_grad
    assert torch.equal(lowered(x), model(x))


def test_a_model_with_nothing_to_lower() -> None:
    """An ordinary model comes back as its graph."""
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), image(1, 3, 16, 16)
    lowered = lower(model, "static", (x,))
    assert lowerings(lowered) == []
    assert torch.equal(lowered(x), model(x))


def test_exactness_holds_the_rules_back() -> None:
    """Nothing bitwise is proposed, and so nothing lowered; reordered is between."""
    model, x = Model(both), image()
    assert lowerings(lower(model, "static", (x,), exactness="bitwise")) == []
    assert "polyphase" not in lowerings(lower(model, "static", (x,), exactness="reordered"))
    assert torch.equal(lower(model, "static", (x,), exactness="bitwise")(x), model(x))


def test_a_plan_from_a_file() -> None:
    """The rules' own plan, written and read, does the same."""
    model, x = Model(both), image()
    plan = Plan.from_json(phases_everywhere(model, (x,)).to_json())
    assert lower(model, plan, (x,)).code == lower(model, "static", (x,)).code


def test_a_plan_for_another_model() -> None:
    """Another kernel, other sizes, other sites, or what is not proposed: nothing is lowered."""
    model, x = Model(both), image()
    plan = phases_everywhere(model, (x,))
    with pytest.raises(UsageError, match="kernel or shapes of `conv2d` are not those"):
        lower(model, plan, (image(2, 4, 26, 41),))
    with pytest.raises(UsageError, match="1 sites differ, first `conv2d_1`"):
        lower(Model(lambda m, x: m.one(x)), plan, (x,))
    with torch.no_grad():
        model.second[:, 0, 0, 0] = 7
    with pytest.raises(UsageError, match="kernel or shapes of `conv2d_1` are not those"):
        lower(model, plan, (x,))
    sites, _ = lowerable_sites(capture(model, (x,)).graph_module)
    wanted = Plan({site.id: Choice(site.key, Proposal("lift", (), "reordered")) for site in sites})
    with pytest.raises(
        UsageError, match="asks for lift at `conv2d`, where the convolution has more than one"
    ):
        lower(model, wanted, (x,))


def test_what_cannot_be_captured() -> None:
    """The error of the capture comes through."""

    def branches(m: Model, x: Tensor) -> Tensor:
        return m.one(x) if x.sum() > 0 else x

    with pytest.raises(CaptureError, match="could not be captured"):
        lower(Model(branches), "static", (image(),))


class Arguments(nn.Module):
    """Inputs in a dictionary, one with a default, and one that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Buffer(KERNEL.repeat(4, 1, 1, 1))

    def forward(self, images: dict[str, Tensor], shift: Tensor, scale: int = 1) -> Tensor:
        return F.conv2d(images["a"], self.weight, groups=4) * scale + images["b"] + shift


def test_inputs_of_all_kinds() -> None:
    """What is not a tensor, or stands in a dictionary, gets through."""
    model = Arguments()
    inputs = {"b": image(4, 1, 1), "a": image()}, image(4, 1, 1)
    lowered = lower(model, "static", inputs)
    assert lowerings(lowered) == ["polyphase"]
    assert torch.equal(lowered(*inputs), model(*inputs))


def test_inputs_by_name() -> None:
    """Keywords in another order than the arguments, as torch's own exported modules take them."""
    model, images, shift = Arguments(), {"b": image(4, 1, 1), "a": image()}, image(4, 1, 1)
    lowered = lower(model, "static", (images, shift))
    assert torch.equal(lowered(shift=shift, images=images), model(images, shift))


def test_open_sizes_of_a_graph_module() -> None:
    """Example inputs of a graph module that knows its sizes do not close them."""
    model, x = Model(both), image()
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: Dim("batch", max=64)}})
    lowered = lower(program.module(), "static", (x,))
    assert lowerings(lowered) == ["polyphase"] * 2
    x = image(3, 4, 26, 40)
    assert torch.equal(lowered(x), model(x))


@pytest.mark.parametrize("sizes", [{0}, {2}, {3}, {0, 2, 3}], ids=str)
@pytest.mark.parametrize(
    "function", [both, lambda m, x: m.two(F.pad(x, (1, 1, 2, 0), mode="reflect"), stride=2)]
)
def test_open_sizes(function: Callable[..., Tensor], sizes: set[int]) -> None:
    """A program with open sizes is lowered, and right at others than it was exported with."""
    model, x = Model(function), image()
    dims = {size: Dim(f"size_{size}", min=1 if size == 0 else 8, max=512) for size in sizes}
    program = torch.export.export(model, (x,), dynamic_shapes={"x": dims})
    lowered = lower(program)
    assert lowerings(lowered)
    for batch, height, width in ((2, 26, 40), (1, 9, 8), (5, 33, 47), (3, 64, 100)):
        asked = (batch if 0 in sizes else 2, 4, height if 2 in sizes else 26, width if 3 in sizes else 40)
        x = image(*asked)
        assert torch.equal(lowered(x), model(x))


def test_open_sizes_of_a_transposed_line() -> None:
    """The same for ``conv_transpose1d``, whose output has a fraction of a block."""

    class Up(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Buffer(torch.tensor([1.0, -2, 3, 1]).repeat(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv_transpose1d(x, self.weight, stride=2, padding=1, groups=4)

    model = Up()
    dims = {0: Dim("batch"), 2: Dim("length", min=2, max=512)}
    lowered = lower(torch.export.export(model, (image(2, 4, 30),), dynamic_shapes={"x": dims}))
    assert lowerings(lowered) == ["transposed_polyphase"]
    for shape in ((2, 4, 30), (1, 4, 2), (3, 4, 77)):
        x = image(*shape)
        assert torch.equal(lowered(x), model(x))


def test_under_compile() -> None:
    """One graph for dynamo, at fixed and at open sizes."""
    model, x = Model(both), image()
    for lowered in (
        lower(model, "static", (x,)),
        lower(torch.export.export(model, (x,), dynamic_shapes={"x": {0: Dim("batch", max=64)}})),
    ):
        torch._dynamo.reset()
        compiled = torch.compile(lowered, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x), model(x))


def test_exported_again() -> None:
    """A lowered model can be exported, and computes the same then."""
    model, x = Model(both), image()
    lowered = lower(model, "static", (x,))
    again = torch.export.export(lowered, (x,)).module()
    assert torch.equal(again(x), model(x))


def test_copies() -> None:
    """deepcopy and pickle give models that compute the same; torch itself pickles no module of an export."""
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


def test_unbatched() -> None:
    """(C, H, W), as torch's convolutions take it, with fixed and with open sizes."""
    model, x = Model(lambda m, x: m.two(F.pad(x, (1, 0)), bias=m.bias)), image(4, 50, 40)
    lowered = lower(model, "static", (x,))
    assert lowerings(lowered) == ["polyphase"]
    assert torch.equal(lowered(x), model(x))
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {1: Dim("height", min=5, max=99)}})
    lowered = lower(program)
    for height in (50, 7):
        x = image(4, height, 40)
        assert torch.equal(lowered(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    """Integers this small are exact in any of them."""
    model, x = Model(lambda m, x: m.two(x.clamp(-1, 1))).to(dtype), image().to(dtype)
    lowered = lower(model, "static", (x,))
    assert lowerings(lowered) == ["polyphase"]
    assert lowered(x).dtype == dtype
    assert torch.equal(lowered(x), model(x))


# Why a shared convolution is no site.


def reason(graph_module: GraphModule) -> str:
    """The one reason why the one shared convolution cannot be lowered."""
    sites, reasons = lowerable_sites(graph_module)
    assert sites == []
    (why,) = (refusal.reason for refusal in reasons.values())
    return why


class Given(nn.Module):
    """A kernel, or a bias, that is an input."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.bias = bias
        self.weight = nn.Buffer(KERNEL.repeat(4, 1, 1, 1))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        if self.bias:
            return F.conv2d(x, self.weight, other, groups=4)
        return F.conv2d(x, other.expand(4, 1, 3, 3), groups=4)


def test_kernel_or_bias_at_run_time() -> None:
    """What is an input has no values; the site is shared, and named with what it depends on."""
    x = image()
    kernel = capture(Given(bias=False), (x, KERNEL)).graph_module
    assert reason(kernel) == (
        "the values of its kernel are not known: it depends on the input `other`, not only on its shape"
    )
    bias = capture(Given(bias=True), (x, torch.ones(4))).graph_module
    assert reason(bias) == "its bias is no constant: it depends on the input `other`, not only on its shape"
    lowered = lower(Given(bias=False), "static", (x, KERNEL))
    assert torch.equal(lowered(x, OTHER), Given(bias=False)(x, OTHER))


def test_no_shapes() -> None:
    """Without example inputs nothing is known about sizes, and nothing is lowered."""
    assert reason(capture(nn.Sequential(depthwise())).graph_module) == (
        "the shape of its input is not known; give example inputs"
    )
    lowered = lower(nn.Sequential(depthwise()))
    assert lowered.get_parameter("0.weight").shape == (1, 1, 3, 3)


def depthwise() -> nn.Conv2d:
    conv = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    conv.weight.data = KERNEL.repeat(4, 1, 1, 1)
    return conv


def test_what_stays_for_a_reason_of_the_caller() -> None:
    """Its reason is the site's; without one, a batch norm behind a convolution stops nothing."""
    model, x = nn.Sequential(depthwise(), nn.BatchNorm2d(4)).eval(), image()
    graph_module = capture(model, (x,)).graph_module
    assert len(lowerable_sites(graph_module)[0]) == 1
    sites, reasons = lowerable_sites(graph_module, stays=lambda conv: f"`{conv.name}` stays")
    assert sites == []
    assert [(r.code, r.reason) for r in reasons.values()] == [("stays", "`conv2d` stays")]
    assert torch.allclose(lower(model, "static", (x,))(x), model(x), atol=1e-5)


def test_no_values() -> None:
    """A kernel on the meta device."""

    class Meta(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.ones(1, 1, 3, 3, device="meta"))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.kernel.expand(4, -1, -1, -1), groups=4)

    graph_module = capture(Meta(), (torch.ones(1, 4, 8, 8, device="meta"),)).graph_module
    assert (
        reason(graph_module)
        == "the values of its kernel are not known: `kernel` is on the meta device and has no values"
    )


def test_two_dtypes() -> None:
    """A kernel that is kept in another type than it is used in is what it is used as."""
    model, x = Model(lambda m, x: F.conv2d(x, m.second.double().to(x), groups=4)), image()
    model.second = model.second.double()
    lowered = lower(model, "static", (x,))
    assert lowerings(lowered) == ["polyphase"]
    assert torch.equal(lowered(x), model(x))


def test_complex_numbers() -> None:
    """The lowerings are written for real numbers."""
    model, x = Model(lambda m, x: m.two(x)), image().to(torch.complex64)
    model.second = model.second.to(torch.complex64)
    assert reason(capture(model, (x,)).graph_module) == (
        "input and kernel do not both have the type torch.complex64"
    )
    assert torch.equal(lower(model, "static", (x,))(x), model(x))


def test_a_kernel_that_cannot_be_computed() -> None:
    """The error of torch is named; nothing runs the kernel before the model does."""

    def singular(m: Model, x: Tensor) -> Tensor:
        return F.conv2d(x, torch.linalg.inv(m.second[0, 0] * 0).expand(4, 1, 3, 3), groups=4)

    graph_module = capture(Model(singular), (image(),)).graph_module
    assert reason(graph_module).startswith(
        "the values of its kernel are not known: computing it failed: linalg.inv: "
    )
    assert lowerings(lower(Model(singular), "static", (image(),))) == []


# What does not hold yet.


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.two(m.one(x)[..., 1:-1]),
        lambda m, x: m.two(m.one(x).reshape(8, 24, 38).reshape(2, 4, 24, 38)),
        lambda m, x: m.two(F.pad(m.one(x), (1, 1))),
    ],
    ids=["crop", "reshape", "pad"],
)
def test_movements_between_two_sites(function: Callable[..., Tensor]) -> None:
    """Whoever absorbs what stands between two sites, the other one does not need it any more."""
    model, x = Model(function), image()
    lowered = lower(model, phases_everywhere(model, (x,)), (x,))
    assert torch.equal(lowered(x), model(x))


def test_the_rest_lowered_later() -> None:
    """A site lowered by one plan, the other by the rules."""
    model, x = Model(lambda m, x: (m.one(x), m.two(x))), image()
    first = lower(model, phases_everywhere(model, (x,), skip=1), (x,))
    second = lower(first)
    assert lowerings(second) == ["polyphase"] * 2
    assert all(torch.equal(a, b) for a, b in zip(second(x), model(x), strict=True))


def test_a_module_of_the_same_name() -> None:
    """The model has a ``lowered_0`` of its own."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lowered_0 = nn.Conv2d(4, 4, 1)
            self.conv = depthwise()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.lowered_0(x))

    model, x = Named(), image()
    torch.testing.assert_close(lower(model, "static", (x,))(x), model(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_kernel_that_is_rounded(part: str) -> None:
    """A conversion there and back between the parameter and the convolution."""

    def rounded(m: Model, x: Tensor) -> Tensor:
        if part == "weight":
            return F.conv2d(x, m.second.half().float(), groups=4)
        return F.conv2d(x, m.second, m.bias.half().float(), groups=4)

    model, x = Model(rounded), image()
    with torch.no_grad():
        model.second /= 3
        model.bias /= 3
    lowered = lower(model, "static", (x,))
    assert lowerings(lowered) == ["polyphase"]
    torch.testing.assert_close(lowered(x), model(x), rtol=1e-6, atol=1e-5)


def test_example_inputs_of_a_graph_module() -> None:
    """Shapes come from the example inputs, for a symbolic trace as well."""
    model, x = nn.Sequential(depthwise()), image()
    assert lowerings(lower(torch.fx.symbolic_trace(model), "static", (x,))) == ["polyphase"]


@pytest.mark.parametrize("how", ["deepcopy", "with sizes"])
def test_another_size_of_as_many_elements(how: str) -> None:
    """Height and width exchanged: an error, or what the model computes, but not a scrambled image."""
    model, x, other = Model(lambda m, x: m.one(x, padding=1)), image(2, 4, 26, 40), image(2, 4, 40, 26)
    lowered = (
        lower(with_sizes(model, x)) if how == "with sizes" else copy.deepcopy(lower(model, "static", (x,)))
    )
    assert lowerings(lowered) == ["polyphase"]
    try:
        found = lowered(other)
    except (RuntimeError, ValueError):
        return
    assert found.shape == model(other).shape
    assert torch.equal(found, model(other))


def test_shared_again_is_shared() -> None:
    """``share_kernels`` of a lowered model leaves it as it is."""
    model, x = Model(both), image()
    lowered = lower(model, "static", (x,))
    assert share_kernels(lowered).code == lowered.code


def test_a_buffer_that_is_filled_anew_for_each_frame() -> None:
    """What an input is written into changes between two convolutions that read it."""

    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Buffer(torch.rand(1, 1, 5, 5).repeat(3, 1, 1, 1))

        def forward(self, frames: Tensor) -> Tensor:
            n, count, c, h, w = frames.shape
            padded = frames.new_zeros(n, c, h + 4, w + 4)
            found = []
            for index in range(count):
                padded[:, :, 2:-2, 2:-2] = frames[:, index]
                found.append(F.conv2d(padded, self.kernel, groups=c))
            return torch.stack(found, 1)

    model, frames = Frames(), torch.rand(1, 3, 3, 40, 40)
    torch.testing.assert_close(lower(model, "static", (frames,))(frames), model(frames))


@pytest.mark.parametrize("kind", ["subclass", "hook"])
def test_a_shared_module_that_does_more_is_left_alone(kind: str) -> None:
    """Its forward is not the convolution alone."""

    class Doubled(SharedKernelConv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    made = Doubled if kind == "subclass" else SharedKernelConv2d
    conv = made(3, 3, 9, groups=3, padding=4, bias=False)
    if kind == "hook":
        conv.register_forward_hook(lambda module, args, output: output * 2)
    shared, x = share_kernels(nn.Sequential(conv)), torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(lower(shared, "static", (x,))(x), nn.Sequential(conv)(x))
