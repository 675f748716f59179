"""With open sizes, a lowering does at sizes of zero and one, and at sizes that are too small, what the
original does there: the same result, or an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from calls import Call
from torch import Tensor
from torch.export import Dim

from export.runtime.session import open_session, run
from export.write_onnx.exporter import export_library, stock_export
from export.write_onnx.library import model_of
from fx_passes.capture.routes import capture
from fx_passes.errors import ExportError
from fx_passes.lowerings import build, propose
from fx_passes.resample.lowerable import lowerable_sites


def _numbers(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


RANK_1 = torch.outer(_numbers(5), _numbers(5)).repeat(3, 1, 1, 1)
ANY_RANK = _numbers(1, 1, 5, 5).repeat(3, 1, 1, 1)
EVEN = torch.outer(_numbers(4), _numbers(4)).repeat(3, 1, 1, 1)
LINE = _numbers(1, 1, 12).repeat(3, 1, 1)

# By name: the rank of the input, and what is computed.
FORMS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "padded": (4, lambda x: F.conv2d(x, RANK_1, padding=2, groups=3)),
    "padded, of any rank": (4, lambda x: F.conv2d(x, ANY_RANK, padding=2, groups=3)),
    "not padded": (4, lambda x: F.conv2d(x, RANK_1, groups=3)),
    "reflected": (
        4,
        lambda x: F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), RANK_1, stride=2, groups=3),
    ),
    "replicated": (4, lambda x: F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), RANK_1, groups=3)),
    "padded widely": (4, lambda x: F.conv2d(x, RANK_1, padding=5, stride=2, groups=3)),
    "transposed": (4, lambda x: F.conv_transpose2d(x, EVEN, stride=2, padding=1, groups=3)),
    "a line": (3, lambda x: F.conv1d(x, LINE, padding=5, groups=3)),
    "a line, padded widely": (3, lambda x: F.conv1d(x, LINE, padding=12, groups=3)),
    "a line, padded widely in front": (3, lambda x: F.conv1d(F.pad(x, (14, 3)), LINE, stride=2, groups=3)),
    "a line, padded widely, up": (
        3,
        lambda x: F.conv_transpose1d(F.pad(x, (5, 5)), LINE, stride=2, groups=3),
    ),
    "a line, up": (
        3,
        lambda x: F.conv_transpose1d(F.pad(x, (5, 5), mode="replicate"), LINE, stride=2, groups=3)[
            ..., 15:-15
        ],
    ),
    "a line, down": (
        3,
        lambda x: F.conv1d(F.pad(x, (5, 6), mode="replicate"), LINE, stride=2, groups=3),
    ),
}
SIDES = (0, 1, 2, 3, 6)


def _or_error(compute: Callable[..., Any], *arguments: Any) -> Tensor | None:
    """What is computed; None if there is an error."""
    try:
        found = compute(*arguments)
    except (RuntimeError, ExportError):
        return None
    return found if isinstance(found, Tensor) else torch.from_numpy(found[0])


def _require_same(found: Tensor | None, expected: Tensor | None, where: Sequence[Any]) -> None:
    assert (found is None) == (expected is None), where
    if found is not None and expected is not None:
        assert found.shape == expected.shape, where
        assert torch.allclose(found, expected, rtol=0, atol=1e-4), where


@pytest.mark.parametrize("name", FORMS)
def test_as_the_original_does(name: str, tmp_path: Path) -> None:
    """Every proposal, in torch and in onnxruntime: an empty batch, and small sides."""
    rank, function = FORMS[name]
    example = torch.rand(2, 3, *[40] * (rank - 2))
    model, dims = Call(function).eval(), {dim: Dim.DYNAMIC for dim in range(rank) if dim != 1}
    program = torch.export.export(model, (example,), dynamic_shapes=(dims,))
    (site,), _ = lowerable_sites(capture(program).graph_module)
    proposals = propose(site.resample, site.kernel)[0]
    assert len(proposals) > 2
    modules = [build(p, site.resample, site.kernel, site.bias, 1) for p in proposals]
    sizes = [dict.fromkeys(dims, Dim.AUTO)] * len(modules)
    library = export_library(modules, [example] * len(modules), sizes)
    ours = [
        open_session(ir.to_proto(model_of(library, index)).SerializeToString())
        for index in range(len(modules))
    ]
    stock = open_session(stock_export(model, (example,), tmp_path / "stock.onnx", dynamic_shapes=(dims,)))
    computed = 0
    for shape in [(0, 3, *example.shape[2:]), *((2, 3, *s) for s in product(SIDES, repeat=rank - 2))]:
        x = torch.randn(shape)
        by_torch = _or_error(model, x)
        by_stock = _or_error(run, stock, [x.numpy()])
        computed += by_torch is not None
        for proposal, module, session in zip(proposals, modules, ours, strict=True):
            where = proposal.name, shape
            found = _or_error(module, x)
            # torch refuses empty images. Ours may give what the plain file gives, or what has no elements.
            expected = by_stock if by_torch is None and found is not None else by_torch
            if expected is not None or found is None or found.numel():
                _require_same(found, expected, where)
            _require_same(_or_error(run, session, [x.numpy()]), by_stock, where)
    assert computed > 1
