"""What a site cannot take in stays in the graph."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from surroundings import PLAIN, Function, Model, axes, image, left, lower_all, require_equal, stuffed
from torch import Tensor
from torch.export import Dim

from fx_passes.capture.routes import capture


def write_between(m: Model, x: Tensor) -> Tensor:
    y = F.pad(x, (1, 1))
    y.mul_(2)
    return m.conv(y)


def write_after_pad(m: Model, x: Tensor) -> Tensor:
    x = x + 1
    y = F.pad(x, (1, 1))
    x.zero_()
    return m.conv(y) + x.sum()


def write_into_result(m: Model, x: Tensor) -> Tensor:
    y = m.conv(x)
    view = y[..., 1:]
    y.add_(1)
    return view


# By name: what the model does, and the operators that stay in the graph, in their order. None: the graph has
# other names for them than the model.
KEPT: dict[str, tuple[Function, list[str] | None]] = {
    "a pad with another user": (lambda m, x: (m.conv(y := F.pad(x, (1, 1))), y), ["pad"]),
    "a pad of ones": (lambda m, x: m.conv(F.pad(x, (1, 1), value=1.0)), ["pad"]),
    "a pad of halves": (lambda m, x: m.conv(F.pad(x, (1, 1), value=0.5)), ["pad"]),
    "a pad of ones behind zeros": (lambda m, x: m.conv(F.pad(F.pad(x, (1, 1), value=1.0), (1, 1))), ["pad"]),
    "a pad around": (lambda m, x: m.conv(F.pad(x, (1, 1, 1, 1), mode="circular")), ["pad"]),
    "a pad of channels": (lambda m, x: m.conv(F.pad(x[:, 1:], (0, 0, 0, 0, 0, 1))), ["slice", "pad"]),
    "a pad of the batch": (lambda m, x: m.conv(F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))), ["pad"]),
    "a pad behind": (lambda m, x: F.pad(m.conv(x), (1, 1)), ["pad"]),
    "reflected, then zeros": (
        lambda m, x: m.conv(F.pad(F.pad(x, (1, 1, 0, 0), mode="reflect"), (1, 1))),
        ["pad"],
    ),
    "zeros, then reflected": (
        lambda m, x: m.conv(F.pad(F.pad(x, (1, 1)), (2, 2, 0, 0), mode="reflect")),
        ["pad"],
    ),
    "zeros stuffed in, then reflected": (
        lambda m, x: m.conv(F.pad(stuffed(x, 2), (2, 2, 0, 0), mode="reflect")),
        ["unsqueeze", "pad", "flatten"],
    ),
    "two modes": (
        lambda m, x: m.conv(F.pad(F.pad(x, (1, 1, 0, 0), mode="replicate"), (0, 0, 1, 1), mode="reflect")),
        ["pad"],
    ),
    "a flip": (lambda m, x: m.conv(x.flip(-1)), ["flip"]),
    "a flip of a part": (lambda m, x: m.conv(x[..., 2:].flip(-1)[..., 1:]), ["slice", "flip"]),
    "a flip behind": (lambda m, x: m.conv(x).flip(-2), ["flip"]),
    "a roll": (lambda m, x: m.conv(x.roll(1, -1)), ["roll"]),
    "every other in front": (lambda m, x: m.conv(x[..., ::2]), ["slice"]),
    "an expand": (lambda m, x: m.conv(x[:1].expand(3, 4, 8, 10)), ["slice", "expand"]),
    "height and width exchanged": (lambda m, x: m.conv(x.transpose(2, 3)), ["transpose"]),
    "height and width exchanged behind": (lambda m, x: m.conv(x).mT, ["mT"]),
    "channels in another order": (
        lambda m, x: m.conv(x.reshape(2, 2, 2, 8, 10).transpose(1, 2).flatten(1, 2)),
        None,
    ),
    "columns taken twice": (lambda m, x: m.conv(x)[..., torch.tensor([0, 0, 1])], None),
    "windows that overlap": (lambda m, x: m.conv(x).unfold(3, 2, 1).sum(-1), ["unfold", "sum"]),
    "strides that overlap": (
        lambda m, x: m.conv(x.as_strided((2, 4, 8, 9), (320, 80, 10, 1))),
        ["as_strided"],
    ),
    "times a tensor": (lambda m, x: m.conv(x) * torch.tensor(2.0), None),
    "times itself": (lambda m, x: (y := m.conv(x)) * y, ["mul"]),
    "times zero": (lambda m, x: m.conv(x) * 0, ["mul"]),
    "times a number, in front": (lambda m, x: m.conv(x * 2), ["mul"]),
    "plus a number": (lambda m, x: m.conv(x) + 2, ["add"]),
    "two readers of the result": (lambda m, x: (m.conv(x)[..., 1:], m.conv(x)[..., :-1]), []),
    "a result that is read twice": (
        lambda m, x: ((y := m.conv(x))[..., 1:], y[..., :-1]),
        ["slice", "slice"],
    ),
    "a result that is an output": (lambda m, x: ((y := m.conv(x)), y[..., 1:]), ["slice"]),
    "another dtype in front": (
        lambda m, x: m.conv(F.pad((x.double() * 2).float(), (1, 1))),
        ["to", "mul", "to"],
    ),
    "another dtype behind": (lambda m, x: m.conv(x).double()[..., 1:], ["to", "slice"]),
    "a write between pad and convolution": (write_between, ["pad", "mul_"]),
    "a write into what was padded": (write_after_pad, ["add", "pad", "zero_", "sum", "add"]),
    "a write into the result": (write_into_result, ["slice", "add_"]),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    """What cannot be taken in stays in the graph, and the model computes what it did."""
    function, expected = KEPT[name]
    model, x = Model(function), image()
    graph_module = capture(model, (x,)).graph_module
    lower_all(graph_module)
    operators = left(graph_module)
    assert operators if expected is None else operators == expected
    require_equal(model, graph_module, x)


def test_what_is_needed_elsewhere_is_not_computed_again() -> None:
    """A pad with another user stays. The site reads what the pad gives."""
    model, x = Model(KEPT["a pad with another user"][0]), image()
    (site,) = lower_all(capture(model, (x,)).graph_module)
    assert site.source == "pad"
    assert site.resample.axes == axes(PLAIN, PLAIN)


@pytest.mark.parametrize("open_size", [0, 2, 3])
def test_what_an_axis_does_is_absorbed_where_a_size_is_open(open_size: int) -> None:
    """It is the same at every length. The result is right at other sizes."""
    model, x = Model(lambda m, x: m.conv(F.pad(x, (1, 1, 0, 0), mode="reflect"))[..., 1:] * 2), image()
    sizes = {open_size: Dim("size", min=5 if open_size else 1, max=64)}
    program = torch.export.export(model, (x,), dynamic_shapes={"x": sizes})
    graph_module = capture(program).graph_module
    (site,) = lower_all(graph_module)
    assert left(graph_module) == []
    assert site.resample.mode == "reflect"
    assert not site.resample.static
    for size in (6, 8, 33):
        shape = [2, 4, 8, 10]
        shape[open_size] = size
        require_equal(model, graph_module, image(*shape))
