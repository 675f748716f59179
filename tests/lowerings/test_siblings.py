"""Several independent sites computed at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cases import Case, make
from known import SIBLINGS, TESTED
from nets import Net, plan_for
from oracle import of
from torch import Tensor, nn

from fx_passes.capture.routes import capture
from fx_passes.errors import UsageError
from fx_passes.lower import lower
from fx_passes.lowerings import MODULES, propose_one
from fx_passes.lowerings.forms.refusals import refuse
from fx_passes.plan import Choice, Plan
from fx_passes.resample.site import lowerable_sites


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
