"""Sites in a row whose axes do not meet, or meet without padding: one site, beside its parts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from calls import Call
from in_a_row import APART, COLUMN, FORMS, ROW, columns, kernel, rows
from torch import Tensor, nn
from torch.export import Dim

from fx_passes.capture.routes import capture
from fx_passes.choose.static_rules import static_plan
from fx_passes.errors import UsageError
from fx_passes.lower import lower
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site


def _sites(model: nn.Module, x: Tensor, sizes: Sequence[dict[int, Dim]] | None = None) -> list[Site]:
    return lowerable_sites(capture(model, (x,), dynamic_shapes=sizes).graph_module)[0]


def _plan_of_whole(sites: Sequence[Site], number: int) -> Plan:
    """The whole by its proposal of that number, if it has so many."""
    choices = {}
    for site in sites:
        ways = propose(site.resample, site.kernel)[0] if site.parts else []
        choices[site.id] = Choice(site.key, ways[number] if number < len(ways) else None)
    return Plan(choices)


# With open sizes, these are two sites: the planes are not where they were.
FIXED = ("other groups", "planes in the batch")


@pytest.mark.parametrize(
    ("name", "opened"),
    [(name, False) for name in FORMS] + [(name, True) for name in FORMS if name not in FIXED],
)
def test_it_computes_what_its_parts_do(name: str, opened: bool) -> None:
    """By every proposal, at every size."""
    shape, function = FORMS[name]
    model, x = Call(function).eval(), torch.randn(shape)
    sizes = ({dim: Dim.AUTO for dim in range(x.ndim) if dim != 1},) if opened else None
    sites = _sites(model, x, sizes)
    wholes = [site for site in sites if site.parts]
    assert [site.ids for site in wholes] == [tuple(site.id for site in sites if not site.parts)]
    proposals, _ = propose(wholes[0].resample, wholes[0].kernel)
    assert proposals or x.ndim > 4
    assert all(proposal.exactness != "bitwise" for proposal in proposals)
    for number in range(len(proposals)):
        lowered = lower(model, _plan_of_whole(sites, number), (x,), dynamic_shapes=sizes)
        assert [node.op for node in lowered.graph.nodes].count("call_module") == 1
        others = [torch.randn(3, 3, *(size + 5 for size in shape[2:]))] if opened else []
        for given in (x, *others):
            torch.testing.assert_close(lowered(given), model(given), rtol=0, atol=1e-5)


@pytest.mark.parametrize("reason", APART)
def test_sites_that_are_not_one(reason: str) -> None:
    """Each stays a site by itself."""
    sites = _sites(Call(APART[reason]).eval(), torch.randn(2, 3, 11, 20))  # type: ignore[arg-type]
    assert len(sites) >= 2
    assert not any(site.parts for site in sites)


def test_the_same_kernel_elsewhere() -> None:
    """A blur of the product is another site than the two: the original takes another time."""
    square = (ROW.double() * COLUMN.double()).float()
    model = Call(lambda x: columns(rows(x)) + F.conv2d(x + 1, square, groups=3).relu())
    sites = [site for site in _sites(model, torch.randn(2, 3, 11, 20)) if site.resample.axes[0].taps == 5]
    whole, other = (site for site in sites if site.resample.axes[1].taps == 7)
    assert torch.equal(whole.kernel, other.kernel)
    assert whole.key != other.key


def test_the_same_row_elsewhere() -> None:
    """What is chosen for a part depends on the whole. So a site that is like it has another key."""
    model = Call(lambda x: columns(rows(x)) + rows(x + 1).relu()[:, :, 4:])
    found = [site for site in _sites(model, torch.randn(2, 3, 11, 20)) if site.ids != ("conv2d_1",)]
    first, whole, other = found
    assert (first.id, whole.ids, other.id) == ("conv2d", ("conv2d", "conv2d_1"), "conv2d_2")
    assert first.key == whole.parts[0].key != other.key


def test_rows_that_are_siblings() -> None:
    """The parts of a whole are the sites themselves, with their siblings and keys."""
    model = Call(lambda x: torch.stack([columns(rows(y)) for y in (x, x.neg(), x * 2)]))
    sites = _sites(model, torch.randn(2, 3, 11, 20))
    by_id = {site.id: site for site in sites}
    wholes = [site for site in sites if site.parts]
    assert [site.siblings for site in sites] == [3] * 9
    assert len({site.key for site in sites}) == 3
    parts = [part for whole in wholes for part in whole.parts]
    assert [(p.key, p.siblings) for p in parts] == [(by_id[p.id].key, 3) for p in parts]


def test_the_rules_choose_the_whole_or_the_parts() -> None:
    """Never both. A blur of two lines is less work as one."""
    row, column = kernel(1, 15), kernel(15, 1)
    model = Call(
        lambda x: F.conv2d(F.conv2d(x, row, padding=(0, 7), groups=3), column, padding=(7, 0), groups=3)
    ).eval()
    x = torch.randn(1, 3, 240, 320)
    sites = _sites(model, x)
    plan = static_plan(sites)
    assert [plan.choices[site.id].proposal is not None for site in sites] == [False, False, True]
    torch.testing.assert_close(lower(model, plan, (x,))(x), model(x), rtol=0, atol=1e-5)


def test_a_plan_for_the_whole_and_a_part() -> None:
    """It is refused: the part would be computed twice."""
    model, x = Call(lambda x: columns(rows(x))).eval(), torch.randn(1, 3, 30, 40)
    choices = {
        site.id: Choice(site.key, propose(site.resample, site.kernel)[0][0]) for site in _sites(model, x)
    }
    with pytest.raises(UsageError, match=r"lowers `conv2d\+conv2d_1` as one, and `conv2d` by itself"):
        lower(model, Plan(choices), (x,))
