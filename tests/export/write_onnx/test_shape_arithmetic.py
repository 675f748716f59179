"""The shapes that lowered modules compute take few nodes, and are right at every size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest
import sympy
import torch
from calls import Call
from torch import Tensor, nn
from torch.export import Dim

from export.runtime.session import open_session, run
from export.write_onnx.exporter import export_library
from export.write_onnx.library import model_of
from export.write_onnx.size_nodes import _folded, _multiple
from fx_passes.capture.routes import capture
from fx_passes.lowerings import build, propose
from fx_passes.records import Proposal
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site

A, B = sympy.symbols("a b", integer=True, nonnegative=True)


def operators(model: ir.Model) -> list[str]:
    """The operators of a model, in order."""
    return [node.op_type for node in model.graph]


def written(*functions: Callable[[Tensor], Tensor]) -> list[ir.Model]:
    """Functions of a tensor of rank 4, of which all sizes but the second are open, as models."""
    sizes = [{0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}] * len(functions)
    modules = [Call(function) for function in functions]
    library = export_library(modules, [torch.rand(2, 3, 8, 6)] * len(functions), sizes)
    return [model_of(library, index) for index in range(len(functions))]


# What a module does, and the operators that are left of it.
FORMS: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "the same axes, and one that is left": (
        lambda x: x.reshape(-1, 1, *x.shape[2:]).abs(),
        ["Reshape", "Abs"],
    ),
    "a reshape behind a reshape": (
        lambda x: x.reshape(-1, *x.shape[2:]).reshape(-1, 1, *x.shape[2:]).abs(),
        ["Reshape", "Abs"],
    ),
    "a reshape to the same shape": (lambda x: x.abs().flatten(0, 1).reshape(x.shape).neg(), ["Abs", "Neg"]),
    "neighbours are one Shape": (
        lambda x: x.abs().reshape(-1, *x.shape[2:]).neg().reshape(-1, 3, *x.shape[2:]),
        ["Abs", "Shape", "Concat", "Reshape", "Neg", "Shape", "Concat", "Reshape"],
    ),
    "a multiple of a size": (
        lambda x: x.permute(0, 2, 1, 3).flatten(1, 2).neg(),
        ["Transpose", "Shape", "Mul", "Shape", "Concat", "Reshape", "Neg"],
    ),
    "a cut": (lambda x: x.abs()[:, :, : x.shape[3]], ["Abs", "Shape", "Slice"]),
    "a cut to a quotient": (
        lambda x: x.abs().narrow(3, 0, (x.shape[3] - 1) // 2 + 1),
        ["Abs", "Shape", "Add", "Div", "Slice"],
    ),
    "a cut that begins later": (
        lambda x: x.abs().narrow(3, 1, x.shape[3] - 2),
        ["Abs", "Shape", "Add", "Slice"],
    ),
}


@pytest.fixture(scope="module")
def models() -> dict[str, ir.Model]:
    return dict(zip(FORMS, written(*(function for function, _ in FORMS.values())), strict=True))


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str, models: dict[str, ir.Model]) -> None:
    """Few nodes are left, and the numbers are right at every size; a batch may be empty."""
    function, expected = FORMS[name]
    assert sorted(operators(models[name])) == sorted(expected)
    session = open_session(ir.to_proto(models[name]).SerializeToString())
    for shape in ((2, 3, 8, 6), (1, 3, 9, 7), (5, 3, 6, 5), (0, 3, 8, 4)):
        x = torch.randn(shape)
        (found,) = run(session, [x.numpy()])
        wanted = function(x).numpy()
        assert found.shape == wanted.shape
        assert (found == wanted).all()


def _blur(**sizes: Any) -> Site:
    """A site with open sizes: a blur of three channels."""
    conv = nn.Conv2d(3, 3, 11, padding=5, groups=3, bias=False)
    line = torch.linspace(1, 2, 11)
    conv.weight.data = torch.outer(line, line).repeat(3, 1, 1, 1)
    dims = {int(name[1:]): size for name, size in sizes.items()}
    program = torch.export.export(conv.eval(), (torch.rand(2, 3, 32, 40),), dynamic_shapes=(dims,))
    (site,), _ = lowerable_sites(capture(program).graph_module)
    return site


def test_a_lowered_blur_has_few_nodes() -> None:
    """Batch, height and width are open. The convolutions and five nodes for sizes are left."""
    site = _blur(d0=Dim("n", max=8), d2=Dim("h", min=12, max=999), d3=Dim("w", min=12, max=999))
    proposal = Proposal("column_polyphase", (("phases", 16),), "finite")
    module = build(proposal, site.resample, site.kernel, site.bias, 1)
    library = export_library([module], [torch.rand(2, 3, 32, 40)], [{0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}])
    found = operators(model_of(library, 0))
    assert found == "Reshape Conv Conv Transpose Shape Mul Concat Reshape Shape Slice".split()


@pytest.mark.parametrize("sizes", [{"d0": 9}, {"d2": 9}, {"d0": 9, "d2": 9, "d3": 9}], ids=str)
def test_every_proposal_is_right_at_every_size(sizes: dict[str, int]) -> None:
    """With the batch open, with one side open, and with all."""
    open_ = {
        name: Dim(name, max=999) if name == "d0" else Dim(name, min=12, max=999) for name in sorted(sizes)
    }
    site = _blur(**open_)
    proposals = propose(site.resample, site.kernel)[0]
    modules = [build(p, site.resample, site.kernel, site.bias, 1) for p in proposals]
    dims = {int(name[1:]): Dim.AUTO for name in sizes}
    library = export_library(modules, [torch.rand(2, 3, 32, 40)] * len(modules), [dims] * len(modules))
    for index, proposal in enumerate(proposals):
        model = model_of(library, index)
        assert not {"Squeeze", "Unsqueeze", "Gather", "Sub"} & set(operators(model)), proposal.name
        session = open_session(ir.to_proto(model).SerializeToString())
        for shape in ((2, 3, 32, 40), (1, 3, 13, 57), (0, 3, 32, 40), (3, 3, 16, 12)):
            fitting = [
                n if i in dims else fixed
                for i, (n, fixed) in enumerate(zip(shape, (2, 3, 32, 40), strict=True))
            ]
            x = torch.randn(fitting)
            weight = site.kernel.expand(3, 1, 11, 11)
            wanted = torch.nn.functional.conv2d(x.double(), weight.double(), padding=5, groups=3)
            (found,) = run(session, [x.numpy()])
            assert found.shape == tuple(wanted.shape)
            assert torch.allclose(torch.from_numpy(found).double(), wanted, rtol=0, atol=1e-3), proposal.name


@pytest.mark.parametrize(
    ("size", "near", "expected"),
    [
        (16 * A + 16, A + 1, (16, 0)),
        (A + 10, A, (1, 10)),
        (2 * A, A + 3, (2, -6)),
        (3 * A * B, A, None),
        (A, 2 * A, None),
        (A - B, B - A, None),
        (sympy.floor(A / 2) * 4 + 1, sympy.floor(A / 2), (4, 1)),
        (A, 5, None),
    ],
)
def test_a_multiple_of_a_size_that_is_known(size: Any, near: Any, expected: tuple[int, int] | None) -> None:
    """A whole positive multiple, and a number."""
    assert _multiple(size, near) == expected


def test_a_number_goes_into_the_quotient() -> None:
    """So nothing below zero is divided: ONNX rounds towards zero."""
    size = sympy.floor((A - 1) / 2) + 1
    folded = _folded(size)
    assert isinstance(folded, sympy.floor)
    assert [folded.subs(A, n) for n in range(9)] == [size.subs(A, n) for n in range(9)]
    assert _folded(A + 1) == A + 1


def test_a_known_batch_with_nothing_left() -> None:
    """Sizes that all stay or are known: the shape is a constant."""
    module = Call(lambda x: x.reshape(3, 1, *x.shape[2:]).abs())
    library = export_library([module], [torch.rand(1, 3, 8, 6)], [{2: Dim.AUTO, 3: Dim.AUTO}])
    assert operators(model_of(library, 0)) == ["Reshape", "Abs"]
