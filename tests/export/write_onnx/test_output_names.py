"""The outputs of a file have the names that they are given, whatever is lowered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from lowered_sites import lowered, repeated, same
from onnx_checks import names_in, require_close, require_sound
from torch import Tensor, nn

from export import to_onnx
from export.runtime.files import output_names
from export.runtime.session import open_session, run
from export.write_onnx.exporter import stock_export


class Ends(nn.Module):
    """A model with one site. ``end`` makes the outputs from what the site gives."""

    def __init__(self, end: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.taps = nn.Buffer(repeated(torch.randn(1, 1, 5, 5)))
        self.end = end

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.end(same(x, self.taps))


ENDS: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "the site itself": lambda y: (y,),
    "used often, returned twice": lambda y: (y, y.relu() + y, y),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_outputs_are_named_as_in_the_stock_export(name: str, tmp_path: Path) -> None:
    """A lowered site may be an output, even twice, or come before an output.

    The outputs keep their names, their order and their values.
    """
    x = torch.randn(1, 3, 9, 32)
    model = Ends(ENDS[name]).eval()
    wanted = output_names(stock_export(model, (x,), tmp_path / "stock.onnx"))
    graph_module, _ = lowered(model, (x,), ["polyphase"])
    file = to_onnx(graph_module, (x,), tmp_path / "ours.onnx", output_names=wanted)
    require_sound(onnx.load(file))
    assert output_names(file) == wanted
    for found, expected in zip(run(open_session(file), [x.numpy()]), model(x), strict=True):
        require_close(found, expected)


@pytest.mark.slow
def test_a_value_within_that_has_the_name_of_an_output(tmp_path: Path) -> None:
    """A value in the graph has the name that an output should have.

    The output gets the name. Its value is right.
    """
    x = torch.randn(1, 3, 9, 32)
    model = Ends(lambda y: ((y.relu() + y).sin(),)).eval()
    plain = onnx.load(to_onnx(model, (x,), tmp_path / "plain.onnx"))
    assert "relu" in names_in(plain.graph)
    file = to_onnx(model, (x,), tmp_path / "ours.onnx", output_names=["relu"])
    require_sound(onnx.load(file))
    assert output_names(file) == ["relu"]
    require_close(run(open_session(file), [x.numpy()])[0], model(x)[0])
