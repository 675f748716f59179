"""A lowered graph answers for the inputs it was captured with, and refuses every other call in one line."""

from __future__ import annotations

import copy
import functools
import re
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim
from torch.export._unlift import _check_input_constraints_pre_hook
from torch.fx import GraphModule

from fx_passes.capture.routes import capture
from fx_passes.graph.input_check import InputCheck
from fx_passes.lower import lower


def image(*shape: int) -> Tensor:
    return torch.rand(shape or (2, 3, 32, 40))


class Blurred(nn.Module):
    """Something to lower, in models that take all kinds of inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Buffer(torch.ones(1, 1, 9, 9).repeat(3, 1, 1, 1))

    def blur(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=4, groups=3)


class OneImage(Blurred):
    def forward(self, x: Tensor) -> Tensor:
        return self.blur(x)


class Options(Blurred):
    """Values of every kind, by position."""

    def forward(self, x: Tensor, k: int, s: float, flag: bool, mode: str, none: Any) -> Tensor:
        y = self.blur(x) * k + s
        y = y + 100 if flag else y
        y = -y if mode == "minus" else y
        return y if none is None else y + none


class Nested(Blurred):
    """A dict of lists, and keywords."""

    def forward(self, x: Tensor, more: dict[str, Any], *, last: Tensor, k: int = 2) -> Tensor:
        a, b = more["pair"]
        return self.blur(x) + a - b * more["scale"] + last * k


def refusal(graph: nn.Module, *args: Any, **kwargs: Any) -> str:
    """What a call is refused with: one line."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is what is looked at
        graph(*args, **kwargs)
    assert "\n" not in str(raised.value)
    return str(raised.value)


OPTIONS = {"k": 2, "s": 0.5, "flag": True, "mode": "plus", "none": None}
NAN, ZERO = {**OPTIONS, "s": float("nan")}, {**OPTIONS, "s": 0.0}
OTHER: list[tuple[dict[str, Any], str, Any]] = [
    (OPTIONS, "k", 3),
    (OPTIONS, "k", 2.0),
    (OPTIONS, "k", True),
    (OPTIONS, "k", None),
    (OPTIONS, "k", torch.tensor(2)),
    (OPTIONS, "s", 0.25),
    (OPTIONS, "s", float("nan")),
    (OPTIONS, "s", float("inf")),
    (OPTIONS, "s", 1),
    (ZERO, "s", -0.0),
    (ZERO, "s", 0),
    (ZERO, "s", False),
    (NAN, "s", 0.5),
    (OPTIONS, "flag", False),
    (OPTIONS, "flag", 1),
    (OPTIONS, "mode", "minus"),
    (OPTIONS, "mode", ["plus"]),
    (OPTIONS, "mode", None),
    (OPTIONS, "none", 1),
    (OPTIONS, "none", image()),
    (OPTIONS, "none", ()),
]


@functools.cache
def options_graph(which: int) -> GraphModule:
    return lower(Options(), "static", (image(), *(OPTIONS, NAN, ZERO)[which].values()))


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize(("values", "name", "other"), OTHER)
def test_another_value_is_refused(values: dict[str, Any], name: str, other: Any, by_name: bool) -> None:
    """Every kind of value, by position and by name; the same values pass."""
    graph, x = options_graph([OPTIONS, NAN, ZERO].index(values)), image()
    changed = {**values, name: other}
    if by_name:
        torch.testing.assert_close(graph(x, **values), Options()(x, **values), equal_nan=True)
        said = refusal(graph, **changed, x=x)
    else:
        torch.testing.assert_close(graph(x, *values.values()), Options()(x, **values), equal_nan=True)
        said = refusal(graph, x, *changed.values())
    assert said.startswith(f"input `{name}`: ")


def test_names_come_in_any_order() -> None:
    """As arguments of Python do: some by position, the others by name."""
    graph, x = options_graph(0), image()
    expected = graph(x, *OPTIONS.values())
    assert torch.equal(graph(**dict(reversed(OPTIONS.items())), x=x), expected)
    assert torch.equal(graph(x, 2, mode="plus", none=None, flag=True, s=0.5), expected)


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((image(), 2), {}, "input `s` is missing"),
        ((), {}, "input `x` is missing"),
        ((image(), 2, 0.5, True, "plus", None, 7), {}, "takes 6 inputs"),
        ((image(), 2, 0.5, True, "plus", None), {"k": 2}, "input `k` is given twice"),
        ((image(), 2, 0.5, True, "plus"), {"nothing": None}, "input `nothing` is no input of the graph"),
        ((image(),), {**OPTIONS, "extra": 1}, "input `extra` is no input of the graph"),
    ],
)
def test_the_number_of_inputs(args: Any, kwargs: Any, says: str) -> None:
    """Too few, too many, twice, and names that are none."""
    assert says in refusal(options_graph(0), *args, **kwargs)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (image(2, 3, 33, 40), r"input `x`: .*shape \(2, 3, 32, 40\), got \(2, 3, 33, 40\)"),
        (image(1, 3, 32, 40), r"got \(1, 3, 32, 40\)"),
        (image(3, 32, 40), r"got \(3, 32, 40\)"),
        (image(2, 3, 32, 40, 1), r"got \(2, 3, 32, 40, 1\)"),
        (image().double(), "input `x`: .*float32, got torch.float64"),
        (image().half(), "float32, got torch.float16"),
        (image().to(torch.int32), "float32, got torch.int32"),
        (image().to("meta"), "input `x`: .*on cpu, got meta"),
        (image().tolist(), r"input `x`: expected a tensor, got \[+.* \(list\)"),
        (None, "expected a tensor, got None"),
        (1.5, "expected a tensor, got 1.5"),
    ],
)
def test_another_tensor_is_refused(wrong: Any, says: str) -> None:
    """Shapes, types, devices, and what is no tensor; by position and by name."""
    graph = lower(OneImage(), "static", (image(),))
    assert re.search(says, refusal(graph, wrong))
    assert re.search(says, refusal(graph, x=wrong))


def test_a_graph_that_was_converted_takes_what_it_became() -> None:
    """In float64, for inputs of float64; others are still refused."""
    graph, x = lower(OneImage(), "static", (image(),)).double(), image().double()
    torch.testing.assert_close(graph(x), OneImage().double()(x))
    assert "float16" in refusal(graph, x.half())


def nested(**changes: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    more = {"pair": [image(), image()], "scale": 3.0}
    return (image(), {**more, **changes}), {"last": image(), "k": 2}


@pytest.fixture(scope="module")
def nested_graph() -> GraphModule:
    args, kwargs = nested()
    return lower(torch.export.export(Nested(), args, kwargs))


def test_nested_inputs_that_fit(nested_graph: GraphModule) -> None:
    """In any order of the keywords."""
    args, kwargs = nested()
    expected = Nested()(*args, **kwargs)
    torch.testing.assert_close(nested_graph(*args, **kwargs), expected, rtol=1e-4, atol=1e-4)
    turned = dict(reversed(kwargs.items()))
    torch.testing.assert_close(nested_graph(*args, **turned), expected, rtol=1e-4, atol=1e-4)
    named = {"more": args[1], **kwargs, "x": args[0]}
    torch.testing.assert_close(nested_graph(**named), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pair": [image()]}, "input `more`: expected the structure"),
        ({"pair": (image(), image())}, "input `more`: expected the structure"),
        ({"pair": [image(), image(), image()]}, "input `more`: expected the structure"),
        ({"another": 1}, "input `more`: expected the structure"),
        ({"pair": [image(), image(1, 3, 32, 40)]}, r"input `more\['pair'\]\[1\]`: .* got \(1, 3, 32, 40\)"),
        ({"pair": [image().double(), image()]}, r"input `more\['pair'\]\[0\]`: .*float64"),
        ({"scale": 4.0}, r"input `more\['scale'\]`: .*captured for 3.0, got 4.0"),
        ({"scale": image()}, r"input `more\['scale'\]`: .*captured for 3.0, got a tensor"),
    ],
)
def test_nested_inputs_that_do_not_fit(nested_graph: GraphModule, changes: dict[str, Any], says: str) -> None:
    """The structure, and each leaf by its path."""
    args, kwargs = nested(**changes)
    assert re.search(says, refusal(nested_graph, *args, **kwargs))


def test_a_dict_of_another_class_or_order(nested_graph: GraphModule) -> None:
    """Refused, or read by its keys: never by the order of its values."""
    args, kwargs = nested()
    other = OrderedDict(args[1])
    assert "structure" in refusal(nested_graph, args[0], other, **kwargs)
    turned = dict(reversed(args[1].items()))
    try:
        y = nested_graph(args[0], turned, **kwargs)
    except ValueError:
        return
    torch.testing.assert_close(y, Nested()(*args, **kwargs), rtol=1e-4, atol=1e-4)


def test_keywords_that_do_not_fit(nested_graph: GraphModule) -> None:
    """Their values, their types and their names."""
    args, kwargs = nested()
    assert "input `k`: " in refusal(nested_graph, *args, **{**kwargs, "k": 3})
    assert "input `last`: " in refusal(nested_graph, *args, **{**kwargs, "last": image(1, 3, 32, 40)})
    assert "input `k` is missing" in refusal(nested_graph, *args, last=kwargs["last"])


class Two(Blurred):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.blur(x) + y


@functools.cache
def open_graph() -> GraphModule:
    batch, height = Dim("batch", min=3, max=8), Dim("height", max=64)
    sizes = {"x": {0: batch, 2: height}, "y": {0: batch, 2: height}}
    return lower(torch.export.export(Two(), (image(4, 3, 32, 40), image(4, 3, 32, 40)), dynamic_shapes=sizes))


def test_open_sizes_within_their_range() -> None:
    """Whatever they are, as long as they are the same where torch.export found them the same."""
    for batch, height in ((3, 32), (8, 64), (5, 9)):
        x, y = image(batch, 3, height, 40), image(batch, 3, height, 40)
        torch.testing.assert_close(open_graph()(x, y), Two()(x, y), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ((2, 3, 32, 40), (2, 3, 32, 40), "dimension 0 of input `x` is 2; .* 3 to 8"),
        ((9, 3, 32, 40), (9, 3, 32, 40), "dimension 0 of input `x` is 9; .* 3 to 8"),
        ((4, 3, 65, 40), (4, 3, 65, 40), "dimension 2 of input `x` is 65; .* 0 to 64"),
        (
            (4, 3, 32, 40),
            (5, 3, 32, 40),
            "dimension 0 of input `y` is 5, .* of input `x`, which is 4",
        ),
        ((4, 3, 32, 40), (4, 3, 33, 40), "dimension 2 of input `y` is 33"),
        ((4, 3, 32, 41), (4, 3, 32, 40), r"input `x`: .*shape \(any, 3, any, 40\)"),
        ((4, 4, 32, 40), (4, 3, 32, 40), r"input `x`: .*\(any, 3, any, 40\)"),
        ((4, 3, 32), (4, 3, 32, 40), "input `x`: "),
    ],
)
def test_open_sizes_out_of_their_range(x: tuple[int, ...], y: tuple[int, ...], says: str) -> None:
    """Too small, too large, different where they have to be the same; sizes that are not open stay exact."""
    assert re.search(says, refusal(open_graph(), image(*x), image(*y)))
    assert re.search(says, refusal(open_graph(), y=image(*y), x=image(*x)))


def test_sizes_that_are_computed_are_checked_by_torch() -> None:
    """A size that is another one plus 1, and a number that is open."""

    class Longer(Blurred):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.blur(x) + y[:, :, 1:]

    height = Dim("height", min=8, max=99)
    sizes = {"x": {2: height}, "y": {2: height + 1}}
    program = torch.export.export(Longer(), (image(), image(2, 3, 33, 40)), dynamic_shapes=sizes)
    graph = lower(program)
    assert graph(image(), image(2, 3, 33, 40)).shape == image().shape
    with pytest.raises(RuntimeError):
        graph(image(), image(2, 3, 34, 40))
    assert "float64" in refusal(graph, image().double(), image(2, 3, 33, 40))


def test_what_was_assumed_of_two_sizes_is_checked() -> None:
    """A branch on two open sizes: the graph has one way only, and refuses what would go the other way."""

    class Branch(Blurred):
        def forward(self, x: Tensor) -> Tensor:
            return self.blur(x) if x.shape[2] > x.shape[3] else -self.blur(x)

    sizes = {"x": {2: Dim.AUTO, 3: Dim.AUTO}}
    program = torch.export.export(Branch(), (image(2, 3, 40, 32),), dynamic_shapes=sizes)
    graph = lower(program)
    for shape in ((2, 3, 40, 32), (2, 3, 64, 20)):
        x = image(*shape)
        torch.testing.assert_close(graph(x), Branch()(x), rtol=1e-4, atol=1e-3)
    with pytest.raises(AssertionError, match="Guard failed"):
        graph(image(2, 3, 32, 40))


CASES: list[tuple[nn.Module, tuple[Any, ...], tuple[Any, ...]]] = [
    (OneImage(), (image(),), (image(1, 3, 32, 40),)),
    (OneImage(), (image(),), (image(), image())),
    (Options(), (image(), *OPTIONS.values()), (image(), *{**OPTIONS, "k": 3}.values())),
    (Options(), (image(), *OPTIONS.values()), (image(), *{**OPTIONS, "mode": "minus"}.values())),
]


@pytest.mark.parametrize(("model", "right", "wrong"), CASES)
def test_what_torch_refuses_is_refused(model: nn.Module, right: Any, wrong: Any) -> None:
    """Ours is at least as strong as what it takes the place of."""
    theirs = torch.export.export(model, right).module()
    with pytest.raises((ValueError, RuntimeError, AssertionError)):
        theirs(*wrong)
    refusal(lower(model, "static", right), *wrong)


# Hooks.


def doubled(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0] * 2,)


@pytest.mark.parametrize("module_name", ["my_export_hooks", "torch.export._unlift", "torch.export"])
@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_hooks_of_the_user_stay(module_name: str, traced: bool, first: bool) -> None:
    """Wherever they come from, before torch's check or behind it; what they return is what is computed."""
    x = image()
    graph = torch.fx.symbolic_trace(OneImage()) if traced else capture(OneImage(), (x,)).graph_module
    hook: Any = lambda module, args: (args[0] * 2,)  # noqa: E731 - torch's own hook is a lambda, too
    hook.__module__ = module_name
    graph.register_forward_pre_hook(hook, prepend=first)
    graph.register_forward_hook(lambda module, args, output: output + 1)
    graph.register_forward_pre_hook(functools.partial(doubled))
    lowered = lower(graph, "static", (x,))
    torch.testing.assert_close(lowered(x), graph(x), rtol=1e-4, atol=1e-3)
    hooks = lowered._forward_pre_hooks.values()
    assert hook in hooks
    assert any(isinstance(h, InputCheck) for h in hooks) is not traced
    assert _check_input_constraints_pre_hook not in hooks
    # The graph that was given is as it was.
    assert (_check_input_constraints_pre_hook in graph._forward_pre_hooks.values()) is not traced


def test_a_check_that_the_user_switched_off_stays_off() -> None:
    """torch's own switch: ``validate_inputs``."""
    graph = capture(OneImage(), (image(),)).graph_module
    graph.validate_inputs = False  # type: ignore[assignment]  # torch reads it, its types do not say so
    assert not any(isinstance(h, InputCheck) for h in lower(graph)._forward_pre_hooks.values())


def test_copies_check_as_well() -> None:
    """A deep copy refuses what its original refuses."""
    graph = copy.deepcopy(lower(OneImage(), "static", (image(),)))
    if graph._forward_pre_hooks:
        assert "got (1, 3, 32, 40)" in refusal(graph, image(1, 3, 32, 40))
    with pytest.raises(ValueError, match="shape"):
        graph(image(1, 3, 32, 40))
