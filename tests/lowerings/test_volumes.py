"""The parts of a volume: their order, their sizes, their exactness, and the padding around them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cases import Case, make
from known import TESTED, VOLUMES
from torch import Tensor, nn

from export.read_onnx.model import read_model
from export.read_onnx.sites import analyse
from export.write_onnx.exporter import stock_export
from fx_passes.capture.inference import capture_for_inference
from fx_passes.costs.site_sizes import sizes_of
from fx_passes.lowerings import propose
from fx_passes.lowerings.forms.volume_parts import Parts, parts_of, sizes_of_parts
from fx_passes.resample.lowerable import lowerable_sites


def parts(case: Case) -> Parts:
    found = parts_of(case.resample(), case.kernel(torch.float32, False))
    assert isinstance(found, Parts)
    return found


@pytest.mark.parametrize("case", TESTED[VOLUMES].examples, ids=str)
def test_the_rules_count_the_parts_that_are_computed(case: Case) -> None:
    """They have the same names in the same order, and as many samples."""
    sizes = sizes_of_parts(sizes_of(case.resample(), own_bias=False, transposed=case.geometry.transposed))
    found = parts(case).inside
    assert list(sizes) == [part.along for part in found]
    for part in found:
        shapes = part.resample.in_shape, part.resample.out_shape
        counted = sizes[part.along].read, sizes[part.along].written
        assert counted == tuple(math.prod(size or 0 for size in shape) for shape in shapes)


@pytest.mark.parametrize(
    ("strides", "transposed", "first"),
    [
        ((1, 1, 1), False, "planes"),
        ((2, 1, 1), False, "lines"),
        ((1, 2, 2), False, "planes"),
        ((2, 2, 2), True, "lines"),
        ((2, 1, 1), True, "planes"),
    ],
)
def test_the_part_that_leaves_less_comes_first(
    strides: tuple[int, ...], transposed: bool, first: str
) -> None:
    """Or the planes, if both leave as much."""
    case = make((3, 3, 3), (8, 8, 8), stride=strides, transposed=transposed, padding=1, rank=1)
    assert parts(case).inside[0].along == first


def test_a_kernel_that_underflowed_is_exact_for_finite_numbers_alone() -> None:
    """Its factors are not 0 where it is: with them, an Inf meets other numbers."""
    case = make((3, 3, 3), (8, 8, 8), rank=1)
    line, plane = torch.tensor([1.0, 1e-30, 1.0]), torch.tensor([1.0, 1e-30, 1.0]).outer(torch.ones(3))
    for faint, exactness in ((False, "reordered"), (True, "finite")):
        kernel = (line if faint else torch.ones(3))[:, None, None] * plane
        assert bool((kernel == 0).any()) == faint
        found = parts_of(case.resample(), kernel[None, None])
        assert isinstance(found, Parts)
        assert found.exactness == exactness


@pytest.mark.parametrize(
    ("depth", "phases"), [(2, {4}), (4, {4}), (5, {4, 8}), (8, {4, 8}), (9, {4, 8, 16}), (None, {4, 8, 16})]
)
def test_no_more_phases_than_the_depth_needs(depth: int | None, phases: set[int]) -> None:
    """A block is less than twice as deep as the output, or the smallest one. With an open size, any may be
    right."""
    case = make((3, 3, 3), (depth or 6, 8, 8), padding=1)
    resample = case.resample()
    shape = (*resample.in_shape[:2], depth, *resample.in_shape[3:])
    resample = replace(resample, in_shape=shape, out_shape=shape)
    found, _ = propose(resample, case.kernel(torch.float32, False))
    ways = [way for way in found if way.lowering == "depth_polyphase"]
    assert {dict(way.params)["phases"] for way in ways} == phases


class Padded(nn.Module):
    """A Pad of a mode, and a window on each channel of a volume."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode, self.kernel = mode, nn.Buffer(torch.ones(1, 1, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1,) * 6, mode=self.mode)
        return F.conv3d(x, self.kernel.expand(2, -1, -1, -1, -1), groups=2)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_padding_in_front_is_taken_in(mode: str, tmp_path: Path) -> None:
    """In torch and from a file."""
    model, x = Padded(mode).eval(), torch.randn(1, 2, 4, 5, 6)
    (site,), _ = lowerable_sites(capture_for_inference(model, (x,)).graph_module)
    file = read_model(stock_export(model, (x,), tmp_path / "in.onnx"))
    (of_file,), _ = analyse(file).sites()
    for found in (site, of_file):
        assert found.outside == ()
        assert found.resample.mode == mode
        assert [axis.pad for axis in found.resample.axes] == [(1, 1)] * 3
