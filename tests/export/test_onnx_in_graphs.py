"""``optimize`` of ONNX files whose graphs, names, formats or opsets are special."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from blur_files import (
    BLUR,
    IMAGE,
    X,
    blur,
    image,
    lowered,
    message,
    node,
    require_same_outputs,
    static,
    write,
)
from onnx import NodeProto, ValueInfoProto
from onnx.numpy_helper import from_array

from export import optimize
from export.read_onnx.model import read_model
from export.read_onnx.sites import analyse
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan

OPSETS = (11, 12, 13, 14, 15, 17)
CONSTANTS = {"pads": np.array([0, 0, 5, 5] * 2), "half": np.array(0.5, np.float32), "yes": np.array(True)}


def site() -> list[NodeProto]:
    """A blur with two values within: what is padded before, and what is scaled behind."""
    return [
        node("Pad", ["x", "pads"], ["padded"], name="pad"),
        node("Conv", ["padded", "k"], ["c"], name="conv", group=3),
        node("Mul", ["c", "half"], ["y"], name="scale"),
    ]


def values(graph: onnx.GraphProto) -> list[str]:
    """The names of all values that a graph stores or computes. No name comes twice."""
    found = [tensor.name for tensor in graph.initializer] + [name for n in graph.node for name in n.output]
    assert len(set(found)) == len(found)
    return found


@pytest.mark.slow
def test_values_that_nobody_else_reads(tmp_path: Path) -> None:
    """They go with the site, and so do the weight and the parameters."""
    path, out = write(tmp_path / "in.onnx", message(site(), CONSTANTS)), tmp_path / "out.onnx"
    assert lowered(static(path, out)) == 1
    kept = {name for name in values(onnx.load(out).graph) if not name.startswith("fx_passes/")}
    assert kept == {"y", "yes"}  # nobody read `yes` before
    require_same_outputs(path, out)


def reader(kind: str, value: str) -> list[NodeProto]:
    """Nodes that compute ``r`` of a value: directly, or in the body of an If."""
    if kind == "node":
        return [node("Neg", [value], ["r"], name="reader")]
    bodies = [oh.make_graph([node("Neg", [value], [n])], n, [], [ValueInfoProto(name=n)]) for n in ("t", "e")]
    return [node("If", ["yes"], ["r"], name="reader", then_branch=bodies[0], else_branch=bodies[1])]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["output", "node", "body", "dead"])
@pytest.mark.parametrize("value", ["padded", "c"])
def test_a_value_within_the_site_that_is_needed(value: str, kind: str, tmp_path: Path) -> None:
    """By the user, by a node, by a body, or by a node whose result nobody needs. It stays, and the node that
    computed it as well; the rest of the site is lowered."""
    shape = (1, 3, 74, 74) if value == "padded" else IMAGE
    extra = [image(value if kind == "output" else "r", shape)] if kind != "dead" else []
    nodes = [*site(), *(reader("node" if kind == "dead" else kind, value) if kind != "output" else [])]
    path = write(tmp_path / "in.onnx", message(nodes, CONSTANTS, outputs=[image("y"), *extra]))
    out = tmp_path / "out.onnx"
    assert lowered(static(path, out)) == 1
    graph = onnx.load(out).graph
    assert value in values(graph)
    kept = ("pad" if value == "padded" else "scale", "reader")
    assert [n for n in graph.node if n.name in kept] == [n for n in nodes if n.name in kept]
    require_same_outputs(path, out)


@pytest.mark.slow
def test_a_weight_of_two_convolutions(tmp_path: Path) -> None:
    """One of them has no groups, and is not lowered. Its weight stays."""
    nodes = [
        blur(output="y"),
        node("ConvTranspose", ["y", "k"], ["z"], name="dense", pads=[5] * 4),
    ]
    grey = image("z", (1, 1, *IMAGE[2:]))
    path = write(tmp_path / "in.onnx", message(nodes, outputs=[image("y"), grey]))
    out = tmp_path / "out.onnx"
    assert lowered(static(path, out)) == 1
    graph = onnx.load(out).graph
    assert list(graph.node)[-1:] == nodes[1:]
    assert graph.initializer[0] == from_array(BLUR, "k")
    require_same_outputs(path, out)


@pytest.mark.parametrize(("ir", "opset"), [(3, 11), (8, 17)])
def test_a_weight_that_a_user_may_give(ir: int, opset: int, tmp_path: Path) -> None:
    """An initializer that is an input as well, as all are in the third version of the format, is a default.
    The convolution may get another weight, so the file is copied."""
    given = [image("x"), image("k", BLUR.shape)]
    path = write(tmp_path / "in.onnx", message([blur()], inputs=given, ir=ir, opset=opset))
    report = static(path, tmp_path / "out.onnx", X)
    assert [finding.refusal.code for finding in report.findings if finding.refusal] == ["runtime"]
    assert (tmp_path / "out.onnx").read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_the_third_version_of_the_format(tmp_path: Path) -> None:
    """There a constant weight is a node. New constants are nodes, too: an initializer would be an input."""
    model = message([node("Constant", [], ["w"], value=from_array(BLUR)), blur(kernel="w")], ir=3, opset=11)
    del model.graph.initializer[:]
    path, out = write(tmp_path / "in.onnx", model), tmp_path / "out.onnx"
    assert lowered(static(path, out)) == 1
    written = onnx.load(out)
    assert (written.ir_version, len(written.graph.initializer)) == (3, 0)
    assert written.graph.input == model.graph.input
    require_same_outputs(path, out)


@pytest.mark.slow
def test_the_output_of_optimize(tmp_path: Path) -> None:
    """It can be optimized again: by the same rules, or to store kernels once. It stays equivalent."""
    path, once, again = (tmp_path / f"{name}.onnx" for name in ("in", "once", "again"))
    write(path, message([blur(output="a"), node("Relu", ["a"], ["b"]), blur("b")]))
    assert lowered(static(path, once)) == 2
    for how in ("static", "expand"):
        optimize(once, None, again, lowering=how, seconds=0)
        values(onnx.load(again).graph)
        require_same_outputs(path, again)


@pytest.mark.slow
def test_names_that_are_taken(tmp_path: Path) -> None:
    """A file that has every name already that a new value or node would get."""
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    static(write(path, message([blur()])), out)
    first = onnx.load(out).graph
    taken = [name for name in values(first) if name.startswith("fx_passes/")]
    others = [node("Neg", ["x"], [name], name=name) for name in {*taken, *(n.name for n in first.node)}]
    write(path, message([*others, blur()]))
    assert lowered(static(path, out)) == 1
    graph = onnx.load(out).graph
    assert list(graph.node)[: len(others)] == others
    assert len(values(graph)) == len(others) + len(taken) + 1
    assert len({n.name for n in graph.node}) == len(graph.node)
    require_same_outputs(path, out)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, "batch"])
@pytest.mark.parametrize("opset", OPSETS)
def test_older_opsets(opset: int, batch: int | str, tmp_path: Path) -> None:
    """The file keeps its opset, with a fixed batch and with an open one; the result is valid there."""
    shape = (batch, *IMAGE[1:])
    model = message([blur()], inputs=[image("x", shape)], outputs=[image("y", shape)], opset=opset, ir=6)
    path, out = write(tmp_path / "in.onnx", model), tmp_path / "out.onnx"
    assert lowered(static(path, out, X)) == 1
    written = onnx.load(out)
    assert written.opset_import == model.opset_import
    assert written.ir_version == 6
    require_same_outputs(path, out)
    if batch != 1:
        require_same_outputs(path, out, np.concatenate([X, X[:, ::-1], X + 1]))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [IMAGE, ("n", 3, "h", "w")], ids=["fixed", "open"])
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_siblings_that_are_computed_together(opset: int, shape: Sequence[int | str], tmp_path: Path) -> None:
    """Equal sites of several values become one call. The second reads what is computed behind the first."""
    nodes = [
        blur("x", "a"),
        node("Neg", ["x"], ["n"]),
        node("Abs", ["a"], ["b"]),
        blur("n", "c"),
        node("Add", ["b", "c"], ["y"]),
    ]
    model = message(nodes, inputs=[image("x", shape)], outputs=[image("y", shape)], opset=opset)
    path, out = write(tmp_path / "in.onnx", model), tmp_path / "out.onnx"
    choices = {}
    for found in analyse(read_model(path)).sites()[0]:
        proposals, _ = propose(found.resample, found.kernel, "finite", found.siblings)
        choices[found.id] = Choice(found.key, next(p for p in proposals if p.merged))
    assert len(choices) == 2
    report = optimize(path, (X,), out, plan=Plan(choices), seconds=0)
    assert lowered(report) == 2
    graph = onnx.load(out).graph
    # The second source comes before the call now, what reads the first result behind it.
    assert [n.output[0] for n in graph.node if n.output[0] in tuple("nby")] == ["n", "b", "y"]
    require_same_outputs(path, out)
    if "n" in shape:
        for sizes in ((3, 3, 17, 40), (1, 3, 5, 1), (0, 3, 20, 20)):
            require_same_outputs(path, out, np.random.default_rng(0).random(sizes, np.float32))
