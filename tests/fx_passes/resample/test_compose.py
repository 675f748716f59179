"""Sites in a row whose axes do not meet: one site, beside its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from calls import Call
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

Function = Callable[[Tensor], Tensor]


def _kernel(*taps: int, channels: int = 3) -> Tensor:
    numbers = torch.rand(taps, generator=torch.Generator().manual_seed(sum(taps))) + 0.1
    return (numbers / numbers.sum()).repeat(channels, 1, *[1] * len(taps))


ROW, COLUMN, BIAS = _kernel(1, 7), _kernel(5, 1), torch.tensor([0.5]).repeat(3)
UP_ROW, UP_COLUMN = _kernel(1, 6), _kernel(4, 1)
SIX_COLUMNS, SIX_BIASES = _kernel(5, 1, channels=6), torch.arange(6.0)
DEEP, HIGH, WIDE = _kernel(3, 1, 1), _kernel(1, 5, 1), _kernel(1, 1, 7)


def _in_mode(mode: str) -> Function:
    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(F.pad(x, (3, 3, 0, 0), mode=mode), ROW, groups=3)
        return F.conv2d(F.pad(x, (0, 0, 2, 2), mode=mode), COLUMN, groups=3)

    return blur


def _volume(x: Tensor) -> Tensor:
    x = F.conv3d(x, DEEP, padding=(1, 0, 0), groups=3)
    x = F.conv3d(x, HIGH, padding=(0, 2, 0), groups=3)
    return F.conv3d(x, WIDE, padding=(0, 0, 3), groups=3)


# By name: the shape of the input, and what is one site.
FORMS: dict[str, tuple[tuple[int, ...], Function]] = {
    "zeros": (
        (2, 3, 11, 20),
        lambda x: F.conv2d(F.conv2d(x, ROW, padding=(0, 3), groups=3), COLUMN, padding=(2, 0), groups=3),
    ),
    "no padding": ((2, 3, 11, 20), lambda x: F.conv2d(F.conv2d(x, COLUMN, groups=3), ROW, groups=3)),
    "reflect": ((2, 3, 11, 20), _in_mode("reflect")),
    "replicate": ((2, 3, 11, 20), _in_mode("replicate")),
    "one mode and zeros": (
        (2, 3, 11, 20),
        lambda x: F.conv2d(
            F.conv2d(F.pad(x, (3, 3, 0, 0), mode="reflect"), ROW, groups=3), COLUMN, groups=3
        ),
    ),
    "strides and a bias": (
        (2, 3, 12, 20),
        lambda x: F.conv2d(
            F.conv2d(x, ROW, stride=(1, 2), padding=(0, 3), groups=3),
            COLUMN, BIAS, stride=(3, 1), padding=(2, 0), dilation=(2, 1), groups=3,
        ),
    ),
    "up": (
        (2, 3, 6, 9),
        lambda x: F.conv_transpose2d(
            F.conv_transpose2d(x, UP_ROW, stride=(1, 2), padding=(0, 2), groups=3),
            UP_COLUMN, stride=(2, 1), padding=(1, 0), groups=3,
        ),
    ),
    "up and down": (
        (2, 3, 6, 12),
        lambda x: F.conv_transpose2d(
            F.conv2d(x, ROW, stride=(1, 2), padding=(0, 3), groups=3),
            UP_COLUMN, stride=(2, 1), padding=(1, 0), groups=3,
        ),
    ),
    "scaled": (
        (2, 3, 11, 20),
        lambda x: F.conv2d(F.conv2d(x, ROW, groups=3) * 4.0, COLUMN, groups=3) * 0.5,
    ),
    "other groups": (
        (2, 3, 11, 20),
        lambda x: F.conv2d(
            F.conv2d(x, ROW, groups=3).reshape(1, 6, *x.shape[2:-1], -1), SIX_COLUMNS, SIX_BIASES, groups=6
        ),
    ),
    "planes in the batch": (
        (2, 3, 11, 20),
        lambda x: F.conv2d(
            F.conv2d(x.reshape(-1, 1, *x.shape[2:]), ROW[:1]), COLUMN[:1], padding=(2, 0)
        ).reshape(*x.shape[:3], -1),
    ),
    "a volume": ((1, 3, 6, 8, 18), _volume),
}  # fmt: skip


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


def _rows(x: Tensor) -> Tensor:
    return F.conv2d(x, ROW, groups=3)


def _columns(x: Tensor) -> Tensor:
    return F.conv2d(x, COLUMN, groups=3)


SQUARE, OTHER = _kernel(3, 3), _kernel(5, 1) + 1
FAINT_ROW, FAINT_COLUMN = ROW * 1e-25, COLUMN * 1e-25
PADDED_ROW, PADDED_COLUMN = (3, 3, 0, 0), (0, 0, 2, 2)
# By the reason: two sites that are not one.
APART: dict[str, Callable[[Tensor], object]] = {
    "another reader": lambda x: _columns(y := _rows(x)) + y[:, :, 4:],
    "an output": lambda x: (_columns(y := _rows(x)), y),
    "something between": lambda x: _columns(_rows(x).relu()),
    "a bias of the first": lambda x: _columns(F.conv2d(x, ROW, BIAS, groups=3)),
    "the same axis": lambda x: _rows(_rows(x)),
    "two axes and one": lambda x: _rows(F.conv2d(x, SQUARE, groups=3)),
    "one axis, then two": lambda x: F.conv2d(
        F.conv1d(x.flatten(2), ROW[:, :, 0], padding=3, groups=3).reshape(x.shape), COLUMN, groups=3
    ),
    "two modes": lambda x: _columns(
        F.pad(_rows(F.pad(x, PADDED_ROW, mode="reflect")), PADDED_COLUMN, mode="replicate")
    ),
    "a product without numbers": lambda x: F.conv2d(F.conv2d(x, FAINT_ROW, groups=3), FAINT_COLUMN, groups=3),
    "two readers of a Pad": lambda x: (
        _columns(y := F.pad(_rows(x), PADDED_COLUMN)) + F.conv2d(y, OTHER, groups=3)
    ),
}


@pytest.mark.parametrize("reason", APART)
def test_sites_that_are_not_one(reason: str) -> None:
    """Each stays a site by itself."""
    sites = _sites(Call(APART[reason]).eval(), torch.randn(2, 3, 11, 20))  # type: ignore[arg-type]
    assert len(sites) >= 2
    assert not any(site.parts for site in sites)


def test_the_same_kernel_elsewhere() -> None:
    """A blur of the product is another site than the two: the original takes another time."""
    square = (ROW.double() * COLUMN.double()).float()
    model = Call(lambda x: _columns(_rows(x)) + F.conv2d(x + 1, square, groups=3).relu())
    sites = [site for site in _sites(model, torch.randn(2, 3, 11, 20)) if site.resample.axes[0].taps == 5]
    whole, other = (site for site in sites if site.resample.axes[1].taps == 7)
    assert torch.equal(whole.kernel, other.kernel)
    assert whole.key != other.key


def test_the_same_row_elsewhere() -> None:
    """What is chosen for a part depends on the whole. So a site that is like it has another key."""
    model = Call(lambda x: _columns(_rows(x)) + _rows(x + 1).relu()[:, :, 4:])
    rows = [site for site in _sites(model, torch.randn(2, 3, 11, 20)) if site.ids != ("conv2d_1",)]
    first, whole, other = rows
    assert (first.id, whole.ids, other.id) == ("conv2d", ("conv2d", "conv2d_1"), "conv2d_2")
    assert first.key == whole.parts[0].key != other.key


def test_rows_that_are_siblings() -> None:
    """The parts of a whole are the sites themselves, with their siblings and keys."""
    model = Call(lambda x: torch.stack([_columns(_rows(y)) for y in (x, x.neg(), x * 2)]))
    sites = _sites(model, torch.randn(2, 3, 11, 20))
    by_id = {site.id: site for site in sites}
    wholes = [site for site in sites if site.parts]
    assert [site.siblings for site in sites] == [3] * 9
    assert len({site.key for site in sites}) == 3
    parts = [part for whole in wholes for part in whole.parts]
    assert [(p.key, p.siblings) for p in parts] == [(by_id[p.id].key, 3) for p in parts]


def test_the_rules_choose_the_whole_or_the_parts() -> None:
    """Never both. A blur of two lines is less work as one."""
    row, column = _kernel(1, 15), _kernel(15, 1)
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
    model, x = Call(lambda x: _columns(_rows(x))).eval(), torch.randn(1, 3, 30, 40)
    choices = {
        site.id: Choice(site.key, propose(site.resample, site.kernel)[0][0]) for site in _sites(model, x)
    }
    with pytest.raises(UsageError, match=r"lowers `conv2d\+conv2d_1` as one, and `conv2d` by itself"):
        lower(model, Plan(choices), (x,))
