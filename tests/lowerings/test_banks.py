"""Banks: several filters on one channel, alone and one behind the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from fx_passes import Choice, Plan, lower
from fx_passes.capture.inference import capture_for_inference
from fx_passes.choose.static_rules import work_of_parts
from fx_passes.lowerings import propose
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site

PAIR = torch.tensor([[1.0, 3.0, 3.0, 1.0], [1.0, -3.0, 3.0, -1.0]])
SOBEL = torch.tensor([[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]])


class Wavelet(nn.Module):
    """Low and high pass along the width, and both again along the height: a step of a wavelet transform."""

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__()
        self.row = nn.Conv2d(channels, 2 * channels, (1, 4), (1, 2), (0, 1), groups=channels, bias=False)
        self.column = nn.Conv2d(
            2 * channels, 4 * channels, (4, 1), (2, 1), (1, 0), groups=2 * channels, bias=bias
        )
        self.row.weight.data = PAIR.reshape(2, 1, 1, 4).repeat(channels, 1, 1, 1)
        self.column.weight.data = PAIR.reshape(2, 1, 4, 1).repeat(2 * channels, 1, 1, 1)
        if bias:
            assert self.column.bias is not None
            self.column.bias.data = torch.tensor([1.0, -2.0]).repeat(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.column(self.row(x))
        return found


def whole_of(model: nn.Module, x: Tensor) -> tuple[Site, list[Site]]:
    """The site of both convolutions, and all sites."""
    sites, _ = lowerable_sites(capture_for_inference(model, (x,)).graph_module)
    (whole,) = (site for site in sites if site.parts)
    return whole, sites


@pytest.mark.parametrize("bias", [False, True])
def test_a_wavelet_is_one_bank(bias: bool) -> None:
    """Two banks in a row are one of four outputs, with two different rows. Integers show it bit for bit."""
    x, model = torch.randint(-4, 5, (2, 3, 16, 22)).float(), Wavelet(3, bias=bias).eval()
    whole, sites = whole_of(model, x)
    assert (whole.resample.groups, whole.resample.rows, tuple(whole.kernel.shape)) == (3, 4, (4, 1, 4, 4))
    expected = model(x)
    ways = [p for p in propose(whole.resample, whole.kernel)[0] if "bank" in p.lowering]
    assert {dict(way.params).get("rows") for way in ways} == {None, 2}
    for way in ways:
        choices = {site.id: Choice(site.key, way if site is whole else None) for site in sites}
        assert torch.equal(lower(model, Plan(choices), (x,))(x), expected), way.name


def test_a_wavelet_with_open_sizes() -> None:
    """It is one bank as well, at every size."""
    sizes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    x, model = torch.randint(-4, 5, (2, 3, 16, 22)).float(), Wavelet(3, bias=True).eval()
    graph_module = capture_for_inference(model, (x,), dynamic_shapes=sizes).graph_module
    sites, _ = lowerable_sites(graph_module)
    (whole,) = (site for site in sites if site.parts)
    ways = [p for p in propose(whole.resample, whole.kernel)[0] if "bank" in p.lowering]
    assert {way.lowering for way in ways} == {"bank_polyphase", "separable_bank", "split_bank"}
    for way in ways:
        plan = Plan({site.id: Choice(site.key, way if site is whole else None) for site in sites})
        lowered = lower(model, plan, (x,), dynamic_shapes=sizes)
        for shape in ((2, 3, 16, 22), (1, 3, 5, 64), (3, 3, 33, 7)):
            given = torch.randint(-4, 5, shape).float()
            assert torch.equal(lowered(given), model(given)), (way.name, shape)


def test_what_follows_may_see_other_groups() -> None:
    """A second bank whose groups are not the outputs of the first is no part of it."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.row = nn.Conv2d(2, 4, (1, 4), groups=2, bias=False)
            self.column = nn.Conv2d(2, 4, (4, 1), groups=2, bias=False)
            self.row.weight.data = PAIR.reshape(2, 1, 1, 4).repeat(2, 1, 1, 1)
            self.column.weight.data = PAIR.reshape(2, 1, 4, 1).repeat(2, 1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.row(x)
            found: Tensor = self.column(y.reshape(-1, 2, *y.shape[2:]))
            return found

    sites, _ = lowerable_sites(capture_for_inference(Mixed(), (torch.randn(1, 2, 9, 9),)).graph_module)
    assert [site.resample.rows for site in sites] == [2, 2]


@pytest.mark.parametrize(("outputs", "found"), [(3, 1), (8, 0)])
def test_few_filters_on_one_volume_are_a_site(outputs: int, found: int) -> None:
    """As on an image. They need not be products."""
    model, x = nn.Conv3d(1, outputs, 3), torch.randn(1, 1, 9, 9, 9)
    sites, _ = lowerable_sites(capture_for_inference(model, (x,)).graph_module)
    assert len(sites) == found
    for site in sites:
        ways, _ = propose(site.resample, site.kernel)
        assert {way.lowering for way in ways} == {"depth_polyphase"}
        for way in ways:
            lowered = lower(model, Plan({site.id: Choice(site.key, way)}), (x,))
            torch.testing.assert_close(lowered(x), model(x))


@pytest.mark.parametrize(("outputs", "found"), [(1, 1), (2, 1), (7, 1), (8, 0)])
def test_few_filters_on_one_channel_are_a_site(outputs: int, found: int) -> None:
    """A gray image and its gradients are a bank. With eight outputs, a dense convolution is as fast."""
    model = nn.Conv2d(1, outputs, 3)
    sites, _ = lowerable_sites(capture_for_inference(model, (torch.randn(1, 1, 9, 9),)).graph_module)
    assert len(sites) == found
    transposed = nn.ConvTranspose2d(1, max(outputs, 2), 3)
    assert (
        lowerable_sites(capture_for_inference(transposed, (torch.randn(1, 1, 9, 9),)).graph_module)[0] == []
    )


def test_gradients_have_two_rows() -> None:
    """Sobel's two kernels are products of different rows and columns. Integers show it bit for bit."""
    model = nn.Conv2d(1, 2, 3, bias=False)
    model.weight.data = SOBEL.unsqueeze(1)
    x = torch.randint(-9, 10, (3, 1, 20, 30)).float()
    (site,), _ = lowerable_sites(capture_for_inference(model, (x,)).graph_module)
    ways = [p for p in propose(site.resample, site.kernel)[0] if p.lowering == "separable_bank"]
    assert [dict(way.params)["rows"] for way in ways] == [2, 2]
    for way in ways:
        found = lower(model, Plan({site.id: Choice(site.key, way)}), (x,))(x)
        assert torch.equal(found, model(x))


def test_the_rules_count_all_channels_between_two_banks() -> None:
    """The work of two banks in a row is that of each on its own input; the second reads more channels."""
    whole, _ = whole_of(Wavelet(16, bias=False).eval(), torch.randn(4, 16, 32, 32))
    together = work_of_parts(whole.parts, (), whole.resample.in_shape, 8)
    alone = [work_of_parts((part,), (), part.resample.in_shape, 8) for part in whole.parts]
    assert together == pytest.approx(sum(alone))
