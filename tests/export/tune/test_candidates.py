"""The candidates of a site are ways to compute the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from calls import Call
from torch import Tensor
from torch.export import Dim

from export.runtime.session import open_session, run
from export.tune.candidates import make_candidates
from export.write_onnx.library import model_of
from fx_passes.capture.routes import capture
from fx_passes.resample.lowerable import lowerable_sites

WINDOW = torch.outer(*[torch.arange(1.0, 6)] * 2).repeat(3, 1, 1, 1) / 100


def means(x: Tensor) -> Tensor:
    return torch.stack([F.conv2d(y, WINDOW, padding=2, groups=3) for y in (x, x * x, x.neg())])


@pytest.mark.parametrize("sizes", [None, ({0: Dim.DYNAMIC, 3: Dim.DYNAMIC},)], ids=["fixed", "open"])
def test_siblings_are_timed_together(sizes: tuple[dict[int, Dim], ...] | None) -> None:
    """Each candidate reads the input of one site, and computes all siblings: one by one, or at once."""
    x = torch.rand(2, 3, 20, 40)
    graph_module = capture(Call(means), (x,), dynamic_shapes=sizes).graph_module
    (candidates,), library = make_candidates(graph_module, lowerable_sites(graph_module)[0], "finite")
    assert library is not None
    assert candidates.shape == tuple(x.shape)
    assert {proposal.merged for proposal in candidates.proposals} == {True, False}
    found = []
    for index in range(len(candidates.names)):
        session = open_session(ir.to_proto(model_of(library, index)).SerializeToString())
        found.append(run(session, [x.numpy()])[0])
    one, two, three = np.split(found[0], 3)  # of multiples of the input: equal ones would be computed once
    np.testing.assert_allclose([two / 3, three / 4], [one / 2] * 2, rtol=1e-5)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5, atol=1e-5)
