"""``--tune-at``: the sizes that it takes, and what it says of those that it does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import sympy
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.export import Dim

from export import optimize, pipeline
from export.cli.tune_at import parse_tune_at
from export.job.source import Source
from export.read_onnx.model import OnnxModel
from export.tune.tune_at import Batch, shapes_to_tune_at
from export.write_onnx.exporter import to_onnx
from fx_passes.capture.asked_sizes import OpenSizes
from fx_passes.capture.open_sizes import open_sizes
from fx_passes.errors import UsageError

EXAMPLE = ((1, 3, 24, 28), (1, 24))


def file_of(*shapes: Any) -> OnnxModel:
    """A file with inputs ``x`` and ``y`` of these shapes. None: the file states no shape."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip("xy", shapes, strict=False)
    ]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "g", values, [])
    return OnnxModel(Path("model.onnx"), helper.make_model(graph), 20)


FILE = file_of(["n", 3, "h", "w"], ["n", "h"])


class Both(nn.Module):
    """Takes an even number of rows, and seven columns or more."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return nn.functional.avg_pool2d(x, (1, 7)).unflatten(2, (-1, 2)), y * 2


def sizes_of(rows: Any = None, columns: Any = None) -> OpenSizes:
    rows, columns = rows or Dim("h", min=4, max=512), columns or Dim("w", max=640)
    inputs = tuple(torch.rand(shape) for shape in EXAMPLE)
    sizes = open_sizes(Both(), inputs, ({0: Dim("n"), 2: rows, 3: columns}, {0: Dim("m"), 1: rows}))
    assert sizes is not None
    return sizes


def test_forms() -> None:
    """All inputs in their order, or some by name; with a dtype as ``--input`` has it."""
    assert parse_tune_at("1x3x48x64") == [[1, 3, 48, 64]]
    assert parse_tune_at("1x3x48x64,1x48:int64") == [[1, 3, 48, 64], [1, 48]]
    assert parse_tune_at("y=1x48,x=1x3x48x64") == {"x": [1, 3, 48, 64], "y": [1, 48]}


@pytest.mark.parametrize(
    "text", ["", "1x", "axb", "1x2,", "x=", "x=1x2,1x2", "x=1,x=2", "1x3:float99", "1 x 3"]
)
def test_no_forms(text: str) -> None:
    """A text of another form is refused."""
    with pytest.raises(UsageError, match="--tune-at"):
        parse_tune_at(text)


@pytest.mark.parametrize(
    ("wanted", "shapes"),
    [
        ([(1, 3, 48, 64), (1, 48)], ((1, 3, 48, 64), (1, 48))),
        ({"y": [1, 48], "x": [1, 3, 48, 28]}, ((1, 3, 48, 28), (1, 48))),
        ({"x": (1, 3, 24, 99)}, ((1, 3, 24, 99), (1, 24))),
        ({}, EXAMPLE),
    ],
)
@pytest.mark.parametrize("sizes", [None, "model"])
def test_taken(wanted: Any, shapes: Any, sizes: Any) -> None:
    """Inputs that are not named keep the sizes of the example. It is the same for a file and for a model."""
    known = sizes_of() if sizes else None
    assert shapes_to_tune_at([wanted], FILE, EXAMPLE, known) == (shapes,)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ([(1, 3, 48, 64)], r"^--tune-at: got shapes of 1 inputs, the model has 2 \(x, y\)"),
        ({"z": (1, 3)}, "no input 'z'; it has x, y"),
        ({"x": (3, 48, 64)}, r"input `x` has 4 dimensions \(1x3x24x28\), got 3"),
        ({"x": (1, 4, 24, 64)}, "size 1 of `x` must be 3, as it is not open; got 4"),
        ({"x": (1, 3, 48, 64)}, r"size 1 \(`h`\) of `y` must be 48, as size 2 \(`h`\) of `x` is 48; got 24"),
        (Batch(0), r"^--batch-sizes: size 0 .*of `x` must be at least 1, got 0"),
        ({"x": (1, 3, 24, 0)}, r"size 3 \(`w`\) of `x` must be at least 1, got 0"),
    ],
)
def test_refused_of_a_file(wanted: Any, said: str) -> None:
    """The input and the dimension are named."""
    with pytest.raises(UsageError, match=said):
        shapes_to_tune_at([{}, wanted], FILE, EXAMPLE, None)


@pytest.mark.parametrize(
    ("height", "width", "said"),
    [
        (514, 64, r"size 2 \(`h`\) of `x` must be 4 to 512, got 514"),
        (2, 64, r"size 2 \(`h`\) of `x` must be 4 to 512, got 2"),
        (48, 641, r"size 3 \(`w`\) of `x` must be 7 to 640, got 641"),
        (48, 6, r"size 3 \(`w`\) of `x` must be 7 to 640, got 6"),
        (49, 64, r"the model does not take 49 for size 2 \(`h`\) of `x`"),
    ],
)
def test_bounds(height: int, width: int, said: str) -> None:
    """Those of the caller and those of the model hold, and so do the conditions of the model."""
    with pytest.raises(UsageError, match=said):
        shapes_to_tune_at([((1, 3, height, width), (1, height))], FILE, EXAMPLE, sizes_of())


def test_sizes_that_are_expressions() -> None:
    """A multiple is asked for as such; bounds are those of the size itself."""
    file, sizes = file_of(["n", 3, "2*half", "w"], ["n", "2*half"]), sizes_of(2 * Dim("half", min=2, max=20))
    asked = [{"x": (1, 3, rows, 28), "y": (1, rows)} for rows in (30, 40)]
    assert [shapes[1][1] for shapes in shapes_to_tune_at(asked, file, EXAMPLE, sizes)] == [30, 40]
    for rows, said in ((31, r"cannot be 31: it is of the form 2\*n"), (42, "must be 4 to 40, got 42")):
        with pytest.raises(UsageError, match=rf"size 2 \(`2\*half`\) of `x` {said}"):
            shapes_to_tune_at([{"x": (1, 3, rows, 28), "y": (1, rows)}], file, EXAMPLE, sizes)


def test_a_size_that_is_the_sum_of_two() -> None:
    """It is compared with both, wherever they are."""
    a, b = sympy.symbols("a b")
    file, sizes = file_of(["a + b", "a", "b"]), OpenSizes(None, ((a + b, a, b),), {a: (1, 9), b: (1, None)})
    assert shapes_to_tune_at([[(5, 2, 3)]], file, ((3, 1, 2),), sizes) == (((5, 2, 3),),)
    said = r"size 0 .* must be 5, as size 1 \(`a`\) of `x` is 2 and size 2 \(`b`\) of `x` is 3; got 6"
    with pytest.raises(UsageError, match=said):
        shapes_to_tune_at([[(6, 2, 3)]], file, ((3, 1, 2),), sizes)


def test_open_sizes_without_a_name() -> None:
    """Sizes that a file leaves out or states as negative are open, each by itself."""
    file = file_of(["", 3, -1, -1], None)
    wanted = ((2, 3, 5, 6), (7, 8))
    assert shapes_to_tune_at([wanted, wanted], file, EXAMPLE, None) == (wanted,)


def test_nothing_is_open() -> None:
    """Also where the sizes of the example are given. Of a torch model it is said before any work."""
    assert shapes_to_tune_at([], file_of([1, 3], [1]), EXAMPLE, None) == ()
    with pytest.raises(UsageError, match="no size is open"):
        shapes_to_tune_at([{}], file_of([1, 3, 24, 28], [1, 24]), EXAMPLE, None)
    stages: list[str] = []
    with pytest.raises(UsageError, match="no size is open"):
        optimize(nn.ReLU(), (torch.rand(2),), "never.onnx", tune_at=[[(3,)]], progress=stages.append)
    assert stages == []


def test_batches() -> None:
    """Dimension 0 of each input that has it open; the other sizes are those of the example."""
    asked: list[Any] = [Batch(4), {"x": (1, 3, 24, 99)}]
    found = shapes_to_tune_at(asked, FILE, EXAMPLE, None)
    assert found == (((4, 3, 24, 28), (4, 24)), ((1, 3, 24, 99), (1, 24)))
    one = file_of(["n", 3, 24, 28], [1, 24])
    assert shapes_to_tune_at([Batch(4)], one, EXAMPLE, None) == (((4, 3, 24, 28), (1, 24)),)


@pytest.mark.parametrize("shapes", [([1, 3, 24, 28], [1, 24]), ([1, 3, "h", "w"], [1, "h"])])
def test_batches_of_a_model_whose_batch_is_fixed(shapes: Any) -> None:
    """One line says what to add, also where other sizes are open. Of a torch model, before any work."""
    said = "--batch-sizes: no input has an open batch.* add --dynamic batch"
    with pytest.raises(UsageError, match=said):
        shapes_to_tune_at([Batch(4)], file_of(*shapes), EXAMPLE, None)
    stages: list[str] = []
    with pytest.raises(UsageError, match=said):
        optimize(nn.ReLU(), (torch.rand(2),), "never.onnx", batch_sizes=[3], progress=stages.append)
    assert stages == []


class _Told(Exception):
    """The inputs that the stages get."""


@pytest.mark.parametrize("wanted", [[[(4, 3, 9, 9)]], [{"input": (4, 3, 9, 9)}, Batch(2)]])
@pytest.mark.parametrize("given", ["module", "program", "file"])
def test_the_stages_get_the_shapes(
    given: str, wanted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a module, an exported program and a file. Those of the example are there once."""

    def told(source: Source, *_: Any) -> None:
        raise _Told(*(tuple(array.shape for array in inputs) for inputs in source.workloads))

    monkeypatch.setattr(pipeline, "rewrite", told)
    conv = nn.Conv2d(3, 3, 3, groups=3)
    conv.weight.data = torch.rand(1, 1, 3, 3).repeat(3, 1, 1, 1)
    x, shapes = (
        torch.rand(2, 3, 8, 8),
        ({0: Dim("n"), 2: Dim("h", min=4, max=99), 3: Dim("w", min=4, max=99)},),
    )
    model: Any = conv.eval()
    more: Mapping[str, Any] = {}
    if given == "module":
        more = {"dynamic_shapes": shapes}
    elif given == "program":
        model = torch.export.export(model, (x,), dynamic_shapes=shapes)
    else:
        model = to_onnx(model, (x,), tmp_path / "in.onnx", dynamic_shapes=shapes)
        assert onnx.load(model).graph.input[0].name == "input"
    with pytest.raises(_Told) as error:
        optimize(model, (x,), tmp_path / "o.onnx", tune_at=wanted, **more)
    assert error.value.args == (((2, 3, 8, 8),), ((4, 3, 9, 9),))
