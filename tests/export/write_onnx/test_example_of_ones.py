"""Lowered sites of a file with open sizes, made from an example in which these sizes are 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.export import Dim

from export.read_onnx.model import read_model
from export.read_onnx.sites import analyse
from export.runtime.session import open_session, run
from export.write_onnx.exporter import stock_export
from export.write_onnx.lowered_sites import lower_sites
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan


def test_open_sizes_of_one_stay_open(tmp_path: Path) -> None:
    """By every proposal for a bank with a bias of each channel: at another batch and height, and at those of
    the example."""
    conv = nn.Conv2d(4, 8, (3, 4), (3, 1), dilation=(2, 1), groups=4)
    conv.weight.data = torch.randn(2, 1, 3, 4).repeat(4, 1, 1, 1)
    model = nn.Sequential(nn.ZeroPad2d((2, 0, 2, 2)), conv).eval()
    given = torch.randn(2, 4, 5, 9)
    sizes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    file = stock_export(model, (given,), tmp_path / "original.onnx", dynamic_shapes=sizes)
    original = read_model(file)
    found = analyse(original)
    (site,), _ = found.sites([[np.zeros((1, 4, 1, 9), "float32")]])
    proposals, _ = propose(site.resample, site.kernel)
    assert len(proposals) >= 5
    for proposal in proposals:
        plan = Plan({site.id: Choice(site.key, proposal)})
        written, _ = lower_sites(original, [site], found.values(), plan).applied()
        onnx.save(written, tmp_path / "lowered.onnx")
        for shape in ((1, 4, 1, 9), (3, 4, 1, 8), (2, 4, 5, 17)):
            x = np.random.default_rng(0).standard_normal(shape).astype("float32")
            [expected], [one] = (
                run(open_session(tmp_path / name), [x]) for name in (file.name, "lowered.onnx")
            )
            assert one.shape == expected.shape, proposal.name
            np.testing.assert_allclose(one, expected, rtol=0, atol=1e-5)
