"""Law 7: what each lowering becomes in an ONNX file, and that it stays right where sizes are open."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cases import Becomes
from known import TESTED
from nets import Net, called_modules
from oracle import of
from torch.export import Dim

from export import to_onnx
from fx_passes import Choice, Plan, lower
from fx_passes.capture.routes import capture
from fx_passes.lowerings import MODULES
from fx_passes.records import Proposal
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site

RESHAPES = {"Reshape", "Squeeze", "Unsqueeze"}


def becomes(name: str) -> Becomes:
    found = TESTED[name].onnx
    assert found is not None, f"tests/lowerings/{name}.py does not say what the lowering becomes in ONNX"
    return found


def usual(proposals: list[Proposal]) -> Proposal:
    """The one in 16 phases, their rows split, where it has such parameters."""
    wanted = {"phases": 16, "interleave": "split"}
    return next(p for p in proposals if all(wanted.get(key, value) == value for key, value in p.params))


def site_of(net: Net, x: torch.Tensor, open_sizes: object = None) -> Site:
    (site,), _ = lowerable_sites(capture(net, (x,), dynamic_shapes=open_sizes).graph_module)
    return site


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_what_each_lowering_becomes(name: str, tmp_path: Path) -> None:
    """Operators and stored numbers are counted, so that an exporter that undoes a lowering is caught."""
    expected = becomes(name)
    x, net = expected.case.input(torch.float32, False), Net(expected.case).eval()
    site = site_of(net, x)
    proposal = usual(of(name, site.resample, site.kernel))
    graph_module = lower(net, Plan({site.id: Choice(site.key, proposal)}), (x,))
    graph = onnx.load(to_onnx(graph_module, (x,), tmp_path / "one.onnx")).graph
    operators = Counter(node.op_type for node in graph.node if node.op_type not in RESHAPES)
    assert operators == expected.operators
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    floats = [sizes[t.name] for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert sum(floats) == expected.stored
    assert sum(sizes.values()) - sum(floats) < 80  # shapes, places and the like


@pytest.mark.parametrize("name", MODULES)
def test_open_sizes(name: str) -> None:
    """Law 2 at sizes that the lowering was not made for, if it is proposed where all of them are open."""
    case = becomes(name).case
    x, net = case.input(torch.float32, False), Net(case).eval()
    open_sizes = ({dim: Dim.AUTO for dim in range(x.ndim) if dim != 1},)
    site = site_of(net, x, open_sizes)
    proposals = of(name, site.resample, site.kernel)
    assert proposals or TESTED[name].open_size, "it is refused, and its file does not say so"
    for proposal in proposals[:1]:
        plan = Plan({site.id: Choice(site.key, proposal)})
        lowered = lower(net, plan, (x,), dynamic_shapes=open_sizes)
        assert called_modules(lowered) == [name]
        for batch, change in ((1, -2), (3, 0), (2, 1), (4, 9)):
            other = torch.randn(batch, x.shape[1], *(size + change for size in x.shape[2:]))
            expected = net(other)
            allowed = 1e-5 * float(expected.abs().max())
            torch.testing.assert_close(lowered(other), expected, rtol=0, atol=allowed)
