"""Several independent sites computed at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cases import Case, make
from known import SIBLINGS, TESTED
from nets import Net, plan_for
from oracle import of
from torch import Tensor, nn
from torch.export import Dim

from export import to_onnx
from export.runtime.session import open_session, run
from fx_passes.capture.routes import capture
from fx_passes.errors import UsageError
from fx_passes.lower import lower
from fx_passes.lowerings import MODULES, propose, propose_one
from fx_passes.lowerings.forms.refusals import refuse
from fx_passes.plan import Choice, Plan
from fx_passes.resample.lowerable import lowerable_sites


@pytest.mark.parametrize("case", TESTED[SIBLINGS].examples, ids=str)
def test_merged_siblings_are_as_exact_as_what_computes_them(case: Case) -> None:
    """Law 6: of each way to compute siblings together, its own exactness."""
    kernel, together = case.kernel(torch.float32, False), case.resample().times(case.siblings)
    proposals = of(SIBLINGS, case.resample(), kernel, case.siblings)
    assert proposals
    for proposal in proposals:
        assert replace(proposal, merged=False) in of(proposal.lowering, together, kernel)


def test_a_site_alone_has_no_siblings() -> None:
    """Law 6: nothing is merged with itself."""
    case = make((3, 3), (8, 8))
    reason = "no other site has its kernel, geometry and shapes, and is independent of it"
    for name in MODULES:
        found = propose_one(name, case.resample(), case.kernel(torch.float32, False), siblings=1)
        assert found == refuse("no-siblings", reason)


class Crossed(nn.Module):
    """Two filters in one order, and in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Buffer(torch.tensor([1.0, 2, 3]).repeat(4, 1, 1))
        self.second = nn.Buffer(torch.tensor([3.0, -1, 1]).repeat(4, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        def one(y: Tensor) -> Tensor:
            return F.conv1d(y, self.first, padding=1, groups=4)

        def two(y: Tensor) -> Tensor:
            return F.conv1d(y, self.second, padding=1, groups=4)

        return one(two(x).relu()), two(one(x + 1).relu())


def merging(model: nn.Module, inputs: tuple[Tensor, ...]) -> Plan:
    """Siblings are put together wherever it is proposed."""
    sites, _ = lowerable_sites(capture(model, inputs).graph_module)
    choices = {}
    for site in sites:
        ways = of(SIBLINGS, site.resample, site.kernel, site.siblings)
        choices[site.id] = Choice(site.key, ways[0] if ways else None)
    return Plan(choices)


def test_siblings_that_need_other_siblings() -> None:
    """Each pair is independent; together they are not: one pair is put together, whichever."""
    model, x = Crossed(), torch.randn(2, 4, 30)
    plan = merging(model, (x,))
    assert [choice.proposal is None for choice in plan.choices.values()].count(True) == 2
    torch.testing.assert_close(lower(model, plan, (x,))(x), model(x), rtol=1e-5, atol=1e-5)


class Twice(nn.Module):
    """A filter on two values of each input, whose sizes need not be alike."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Buffer(torch.tensor([1.0, 2, 3]).repeat(4, 1, 1))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return tuple(F.conv1d(z, self.weight, padding=1, groups=4) for z in (x, y, x.neg(), y.exp()))


@pytest.mark.parametrize("batch", ["open", "fixed"])
def test_siblings_with_open_sizes(batch: str, tmp_path: Path) -> None:
    """Only sites of equal sizes are put together, and the graph fits all sizes: of each group its own."""
    sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC} if batch == "open" else {2: Dim.DYNAMIC}
    model, inputs, shapes = Twice(), (torch.randn(2, 4, 30), torch.randn(2, 4, 50)), (sizes, dict(sizes))
    sites, _ = lowerable_sites(capture(model, inputs, dynamic_shapes=shapes).graph_module)
    assert [site.siblings for site in sites] == [2] * 4
    assert [site.key == sites[0].key for site in sites] == [True, False, True, False]
    ways = of(SIBLINGS, sites[0].resample, sites[0].kernel, 2)
    assert {dict(way.params)["phases"] for way in ways if way.lowering == "polyphase"} >= {8, 16}
    for number, way in enumerate(ways):
        plan = Plan({site.id: Choice(site.key, way) for site in sites})
        lowered = lower(model, plan, inputs, dynamic_shapes=shapes)
        assert len([node for node in lowered.graph.nodes if node.op == "call_module"]) == 2
        file = to_onnx(lowered, inputs, tmp_path / f"{number}.onnx", dynamic_shapes=shapes)
        session = open_session(file)
        for n, m, of_x, of_y in ((2, 2, 30, 50), (1, 3, 7, 1), (3, 1, 2, 64), (0, 2, 9, 8)):
            n, m = (n, m) if batch == "open" else (2, 2)
            x, y = torch.randn(n, 4, of_x), torch.randn(m, 4, of_y)
            expected = model(x, y)
            torch.testing.assert_close(lowered(x, y), expected, rtol=0, atol=1e-4)
            found = run(session, [x.numpy(), y.numpy()])
            torch.testing.assert_close(tuple(map(torch.from_numpy, found)), expected, rtol=0, atol=1e-4)


class Moved(nn.Module):
    """A filter on two values, whose channels are partly in the batch of the convolution."""

    def __init__(self, *, back: bool) -> None:
        super().__init__()
        self.back = back
        self.weight = nn.Buffer(torch.tensor([1.0, 2, 3]).repeat(3, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        def one(y: Tensor) -> Tensor:
            found = F.conv1d(y.reshape(-1, 3, y.shape[2]), self.weight, padding=1, groups=3)
            return found.reshape(-1, 6, y.shape[2]) if self.back else found

        return one(x), one(x.neg())


OPENED: dict[str, tuple[dict[int, Dim], ...] | None] = {
    "all": ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC},),
    "length": ({2: Dim.DYNAMIC},),
    "none": None,
}


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("back", [True, False])
def test_the_batch_of_siblings(back: bool, opened: str) -> None:
    """Another batch behind the convolution is not split as that in front of it."""
    model, x, sizes = Moved(back=back), torch.randn(2, 6, 30), OPENED[opened]
    sites, _ = lowerable_sites(capture(model, (x,), dynamic_shapes=sizes).graph_module)
    choices = {}
    for site in sites:
        proposals, _ = propose(site.resample, site.kernel, siblings=site.siblings)
        choices[site.id] = Choice(site.key, proposals[-1])
    lowered = lower(model, Plan(choices), (x,), dynamic_shapes=sizes)
    assert [node for node in lowered.graph.nodes if node.op == "call_module"]
    shapes = {"all": ((3, 6, 8), (1, 6, 1)), "length": ((2, 6, 7), (2, 6, 64)), "none": ()}[opened]
    for given in (x, *(torch.randn(shape) for shape in shapes)):
        torch.testing.assert_close(lowered(given), model(given), rtol=0, atol=1e-4)


def test_siblings_of_which_one_is_left() -> None:
    """All siblings are put together, or none; a plan that says otherwise is refused."""
    case = TESTED[SIBLINGS].examples[0]
    x, model = case.input(torch.float32, False), Net(case)
    with pytest.raises(UsageError, match="the plan merges siblings of `conv2d_1`, but not `conv2d_1` itself"):
        lower(model, plan_for(model, (x,), SIBLINGS, most=1), (x,))


def test_siblings_without_a_batch() -> None:
    """Planes whose height is in the place of a batch, and as large before as after."""

    class Planes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Buffer(torch.arange(9.0).reshape(1, 1, 3, 3))

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            return tuple(F.conv2d(z[None, None], self.weight, padding=1)[0, 0] for z in (x, y))

    model, inputs = Planes(), (torch.ones(8, 9), torch.ones(8, 9))
    plan = merging(model, inputs)
    assert [choice.proposal for choice in plan.choices.values()] == [None, None]
    torch.testing.assert_close(lower(model, plan, inputs)(*inputs), model(*inputs))
