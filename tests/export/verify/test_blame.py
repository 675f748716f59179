"""Which site is blamed for a difference: the first that differs, and none where none does."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from export.verify.blame import blame_site
from fx_passes.capture.routes import capture
from fx_passes.find.find_kernels import judge_graph
from fx_passes.lower import lower

pytestmark = pytest.mark.usefixtures("simple_rules")

X = torch.rand(1, 3, 48, 64)


class Blurs(nn.Module):
    """Two blurs, the second of which takes in what is around it: a Pad in front and a Slice behind."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Buffer(torch.rand(1, 1, 3, 3).repeat(3, 1, 1, 1))
        self.second = nn.Buffer(torch.rand(1, 1, 5, 5).repeat(3, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.first, padding=1, groups=3).sin()
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self.second, groups=3)[..., ::2] + 1


@pytest.fixture(scope="module")
def graphs() -> tuple[GraphModule, GraphModule]:
    """The original and the lowered one."""
    torch.manual_seed(0)
    model = Blurs().eval()
    original, lowered = capture(model, (X,)).graph_module, lower(model, "static", (X,))
    assert len([node for node in lowered.graph.nodes if node.op == "call_module"]) == 2
    return original, lowered


def blame(graphs: tuple[GraphModule, GraphModule], x: Tensor = X, bitwise: bool = False) -> str | None:
    original, other = graphs
    return blame_site(original, other, [v.finding for v in judge_graph(original)], (x,), bitwise=bitwise)


def faulty(graphs: tuple[GraphModule, GraphModule], name: str, by: float) -> tuple[GraphModule, GraphModule]:
    """The same graphs, but that one lowering is wrong."""
    wrong = copy.deepcopy(graphs[1])
    weight = wrong.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    weight.mul_(1 + by)
    return graphs[0], wrong


def test_other_rounding_is_no_difference(graphs: tuple[GraphModule, GraphModule]) -> None:
    """Where bits are not asked for, neither site is blamed for its rounding."""
    assert blame(graphs) is None
    assert blame((graphs[0], graphs[0]), bitwise=True) is None


@pytest.mark.parametrize(("name", "site"), [("lowered_0", "conv2d"), ("lowered_1", "conv2d_1")])
def test_the_site_that_is_wrong_is_blamed(
    name: str, site: str, graphs: tuple[GraphModule, GraphModule]
) -> None:
    """With what it took in, not the one that is fed with what it made wrong."""
    assert blame(faulty(graphs, name, 1e-3)) == site


def test_a_fault_beyond_float32_rounding_is_seen(graphs: tuple[GraphModule, GraphModule]) -> None:
    """In float64, what the equivalence check finds in float32 can be told from rounding."""
    assert blame(faulty(graphs, "lowered_1", 5e-6)) == "conv2d_1"


@pytest.mark.parametrize("bitwise", [True, False])
def test_nan_in_both_is_no_difference(bitwise: bool, graphs: tuple[GraphModule, GraphModule]) -> None:
    """A site that gives NaN where the original does is not to blame."""
    x = X.clone()
    x[0, 0, 5, 5] = torch.nan
    assert blame((graphs[0], graphs[0]), x, bitwise) is None


def test_a_nan_that_was_none_is_blamed(graphs: tuple[GraphModule, GraphModule]) -> None:
    """A lowering for finite inputs carries a NaN further: that is a difference."""
    x = X.clone()
    x[0, 0, 5, 5] = torch.nan
    assert blame(graphs, x) == "conv2d"
