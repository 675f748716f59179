"""A Pad or a Slice that stays beside a site says why."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from surroundings import Function, Model, image
from torch.export import Dim

from fx_passes.capture.routes import capture
from fx_passes.resample.lowerable import lowerable_sites

PAD, CUT = "a Pad in front of it stays: ", "a Slice behind it stays: "

# By what is said: what the model does. Height and width are open.
SAID: dict[str, Function] = {
    f"{PAD}something else reads its result, too": lambda m, x: m.conv(y := F.pad(x, (1, 1))) + y[..., 2:, 2:],
    f"{PAD}it does not pad with zeros, or its amounts are computed from values": lambda m, x: m.conv(
        F.pad(x, (1, 1), value=1.0)
    ),
    f"{PAD}its amounts are computed from open sizes": lambda m, x: m.conv(
        F.pad(x, (1, 1 + (x.shape[-1] + 7) // 8 * 8 - x.shape[-1]))
    ),
    f"{CUT}its bounds are computed, and do not follow from the sizes that the convolution has": (
        lambda m, x: m.conv(F.pad(x, (1, 1))).narrow(3, 0, x.shape[-1] // 2)
    ),
    f"{CUT}it leaves nothing of the smallest inputs (in torch, a lower bound of the sizes lets it go)": (
        lambda m, x: m.conv(F.pad(x, (1, 1)))[..., 4:-4]  # of a width of 8
    ),
}


@pytest.mark.parametrize("said", SAID)
def test_what_stays_says_why(said: str) -> None:
    """One sentence for what is nearest."""
    dims = {2: Dim("height", min=8, max=99), 3: Dim("width", min=8, max=99)}
    program = torch.export.export(
        Model(SAID[said]),
        (image(),),
        dynamic_shapes={"x": dims},
        # torch does not see that half of a size is smaller than the size.
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    (site,), _ = lowerable_sites(capture(program).graph_module)
    assert site.outside == (said,)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.conv(F.pad(x, (1, 1)))[..., 1:],
        lambda m, x: m.conv(F.pad(x, (1, 1)))[..., 3:-3],
        lambda m, x: m.conv(x)[..., ::3],
        lambda m, x: m.conv(x.abs()).neg(),
        lambda m, x: m.conv(x),
    ],
)
def test_nothing_is_said_of_what_is_absorbed(function: Function) -> None:
    """Nor where there is no Pad and no Slice."""
    dims = {2: Dim("height", min=8, max=99), 3: Dim("width", min=8, max=99)}
    program = torch.export.export(Model(function), (image(),), dynamic_shapes={"x": dims})
    (site,), _ = lowerable_sites(capture(program).graph_module)
    assert site.outside == ()


def test_a_step_is_absorbed_without_bounds() -> None:
    """Where the convolution gives outputs, one of them at least is kept."""
    program = torch.export.export(
        Model(lambda m, x: m.conv(x)[..., ::2]), (image(),), dynamic_shapes={"x": {3: Dim.DYNAMIC}}
    )
    (site,), _ = lowerable_sites(capture(program).graph_module)
    assert site.outside == ()
    assert site.resample.axes[1].down == 2
