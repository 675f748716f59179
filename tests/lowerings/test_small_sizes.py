"""Law 2 at the smallest open sizes: no item, no length, one sample, and less than the kernel needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from cases import Case
from known import TESTED
from nets import Net
from oracle import of
from torch import Tensor
from torch.export import Dim
from torch.fx import GraphModule

from export import to_onnx
from export.runtime.session import open_session, run
from fx_passes import Choice, Plan, lower
from fx_passes.capture.routes import capture
from fx_passes.errors import FxPassesError
from fx_passes.lowerings import MODULES
from fx_passes.resample.lowerable import lowerable_sites

OPEN = [name for name, tested in TESTED.items() if name in MODULES and tested.open_size is None]
# torch raises the first. A lowered graph raises the second where a size is below what the capture allows.
# onnxruntime raises the third.
ERRORS = (RuntimeError, ValueError, FxPassesError)
Run = Callable[[Tensor], Tensor]


def cases_of(name: str) -> Iterator[tuple[Net, GraphModule, Tensor, tuple[dict[int, Dim], ...]]]:
    """Each example of a lowering: the model, what it is lowered to, an input, and its open sizes."""
    for case in TESTED[name].examples:
        net, x = Net(case).eval(), case.input(torch.float32, False)
        sizes = ({dim: Dim.AUTO for dim in range(x.ndim) if dim != 1},)
        sites, _ = lowerable_sites(capture(net, (x,), dynamic_shapes=sizes).graph_module)
        for site in sites:
            for proposal in of(name, site.resample, site.kernel)[:1]:
                plan = Plan({site.id: Choice(site.key, proposal)})
                yield net, lower(net, plan, (x,), dynamic_shapes=sizes), x, sizes


def small(case: Case, x: Tensor) -> Iterator[Tensor]:
    """Inputs of small sizes, along all axes and along the last one."""
    yield x[:0]
    for length in range(max(case.geometry.kernel) + 4):
        yield torch.randn(1, x.shape[1], *[length] * case.dim)
        yield torch.randn(*x.shape[:-1], length)


def attempt(function: Run, x: Tensor) -> Tensor | None:
    """What a function gives. None: it raises an error of ``ERRORS``."""
    try:
        return function(x)
    except ERRORS:
        return None


def require_alike(expected: Tensor | None, found: Tensor | None) -> None:
    """Both are alike, or both raise. Where no element is expected, ``found`` may raise."""
    if expected is None:
        assert found is None
    elif found is not None:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    else:
        assert expected.numel() == 0


@pytest.mark.parametrize("name", OPEN)
def test_small_sizes(name: str) -> None:
    """The lowered graph gives what the model gives, or both raise an error.

    torch.export asserts that an item of a volume has more than one element, and that its lines have. The
    lowered graph may raise where what was captured of the model does.
    """
    computed = 0
    for net, lowered, x, sizes in cases_of(name):
        captured = capture(net, (x,), dynamic_shapes=sizes).graph_module
        for given in small(net.case, x):
            expected, found = attempt(net, given), attempt(lowered, given)
            if found is not None or attempt(captured, given) is not None:
                require_alike(expected, found)
                computed += expected is not None
    assert computed


@pytest.mark.slow
@pytest.mark.parametrize("name", OPEN)
def test_small_sizes_of_a_file(name: str, tmp_path: Path) -> None:
    """In onnxruntime, the lowered file gives what the plain one gives. Where that raises, it may do as it
    likes."""
    for number, (net, lowered, x, sizes) in enumerate(cases_of(name)):
        runs = []
        for kind, module in (("plain", net), ("lowered", lowered)):
            file = to_onnx(module, (x,), tmp_path / f"{number}_{kind}.onnx", dynamic_shapes=sizes)
            session = open_session(file)
            runs.append(lambda x, session=session: torch.from_numpy(run(session, [x.numpy()])[0]))
        for given in small(net.case, x):
            expected = attempt(runs[0], given)
            if expected is not None:
                require_alike(expected, attempt(runs[1], given))
