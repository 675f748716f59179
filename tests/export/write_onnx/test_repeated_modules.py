"""One module that is called several times: its constants are stored once, and its sites can go back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch
from lowered_sites import lowered, repeated, same
from onnx_checks import RESHAPES, numbers, require_close, require_sound
from torch import Tensor, nn

from export import to_onnx
from export.runtime.session import open_session, run
from fx_passes.capture.routes import capture
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site


class Chain(nn.Module):
    """The same blur three times, then another blur."""

    def __init__(self) -> None:
        super().__init__()
        self.often = nn.Buffer(repeated(torch.randn(1, 1, 5, 5) / 5))
        self.once = nn.Buffer(repeated(torch.randn(1, 1, 3, 3) / 3))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = same(x, self.often).sin()
        return same(x, self.once)


@dataclass(frozen=True)
class Chained:
    """The model, its captured graph, its lowered graph, its sites and its file."""

    model: Chain
    x: Tensor
    original: torch.fx.GraphModule
    graph_module: torch.fx.GraphModule
    sites: list[Site]
    file: Path


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Chained:
    torch.manual_seed(0)
    x, model = torch.randn(1, 3, 9, 32), Chain().eval()
    program = torch.export.export(model, (x,))
    graph_module, _ = lowered(program, (x,), ["polyphase"] * 4)
    file = to_onnx(graph_module, (x,), tmp_path_factory.mktemp("chain") / "chain.onnx")
    original = capture(program, (x,)).graph_module
    return Chained(model, x, original, graph_module, lowerable_sites(original)[0], file)


def test_a_module_that_is_called_often_is_stored_once(chained: Chained) -> None:
    """One module is called three times, and another one once.

    The file has the constants of two modules and the operators of four calls.
    """
    assert len({site.key for site in chained.sites}) == 2
    stored = onnx.load(chained.file)
    require_sound(stored)
    operators = Counter(node.op_type for node in stored.graph.node if node.op_type not in RESHAPES)
    assert operators == {"Conv": 4, "Transpose": 4, "Sin": 3}
    assert numbers(stored.graph.initializer) == 16 * 5 * 20 + 16 * 3 * 18
    require_close(run(open_session(chained.file), [chained.x.numpy()])[0], chained.model(chained.x))
