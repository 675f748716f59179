"""Nodes of a message are replaced, and everything else keeps its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from blur_files import write
from onnx import ModelProto, NodeProto, TensorProto
from onnx.numpy_helper import from_array
from rich_onnx import LOWERED, ONCE, require_kept, rich_model

from export.read_onnx.model import OnnxModel, read_model
from export.read_onnx.sites import Analysis, analyse
from export.runtime.session import open_session, run
from export.write_onnx.kernels_once import repeated_in, store_once
from export.write_onnx.lowered_sites import lower_sites
from export.write_onnx.parts import Part
from export.write_onnx.surgery import Replacement, replace_parts
from fx_passes.choose.static_rules import static_plan

node = oh.make_node
# Doubles its input, and adds one.
PART = Part(
    (
        node("Mul", ["in", "two"], ["product"], name="times"),
        node("Add", ["product", "one"], ["out"], name="plus"),
    ),
    {name: from_array(np.array(number, np.float32), name) for name, number in (("one", 1.0), ("two", 2.0))},
    "in",
    "out",
)


def copy(model: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(model)
    return made


@pytest.mark.parametrize("runs", [True, False])
def test_everything_else_keeps_its_bytes(runs: bool) -> None:
    """One part takes the place of the site; what is in the message beside it could not be richer."""
    before = rich_model(runs=runs)
    after = copy(before)
    (written,) = replace_parts(after, [Replacement("blur", PART, ("a",), ("c",))])
    require_kept(before, after, LOWERED)
    assert (written.source, written.end) == ("a", "c")
    assert written.nodes == {"fx_passes/blur/times", "fx_passes/blur/plus"}


@pytest.mark.parametrize("runs", [True, False])
def test_a_kernel_that_is_stored_once_changes_nothing_else(runs: bool) -> None:
    """The convolution, its weight and its bias are all that changes."""
    before = rich_model(runs=runs)
    found = analyse(OnnxModel(Path("rich.onnx"), before, 20))
    after = copy(before)
    assert store_once(after, repeated_in(found), always=False) == ("blur",)
    require_kept(before, after, ONCE)


@pytest.mark.slow
@pytest.mark.parametrize("runs", [True, False])
def test_a_site_that_the_rules_lower(runs: bool, tmp_path: Path) -> None:
    """The same with the nodes of a real lowering. A kernel that is lowered is not stored once as well."""
    before = rich_model(runs=runs)
    model = read_model(write(tmp_path / "rich.onnx", before))
    found: Analysis = analyse(model)
    sites, _ = found.sites()
    lowered = lower_sites(model, sites, found.values(), static_plan(sites))
    after, places = lowered.applied()
    assert store_once(after, repeated_in(found, {"blur"}), always=True) == ()
    require_kept(before, after, LOWERED)
    assert [(place.source, place.end) for place in places] == [("a", "c")]
    unchanged, _ = lowered.applied(without=lowered.keys)
    assert unchanged.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)


def small(*nodes: NodeProto, outputs: str = "y", ir: int = 8, stored: Sequence[str] = ()) -> ModelProto:
    """A model of nodes that keep the shape of ``x``."""
    graph = oh.make_graph(
        nodes,
        "test",
        [oh.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [oh.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in outputs],
        [from_array(np.full((2, 3), 5, np.float32), name) for name in stored],
    )
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=ir)


def op(name: str, source: str, output: str) -> NodeProto:
    return node(name, [source], [output], name=f"to {output}")


def replaced(model: ModelProto, *replacements: tuple[str, str]) -> ModelProto:
    """The model with ``PART`` for each (source, end). The result is checked; its names are unique."""
    after = copy(model)
    made = [Replacement(f"site {end}", PART, (source,), (end,)) for source, end in replacements]
    replace_parts(after, made)
    require_unique(after)
    return after


def require_unique(model: ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    values = [value.name for value in (*model.graph.input, *model.graph.initializer)]
    values += [name for one in model.graph.node for name in one.output]
    names = [one.name for one in model.graph.node]
    assert len(set(values)) == len(values)
    assert len(set(names)) == len(names)


def computed(model: ModelProto, x: float) -> list[float]:
    """The first number of each output."""
    session = open_session(model.SerializeToString(), optimized=False)
    return [float(array[0, 0]) for array in run(session, [np.full((2, 3), x, np.float32)])]


def order(model: ModelProto) -> list[str]:
    return [f"{one.op_type} {one.output[0]}" for one in model.graph.node]


def test_new_nodes_stand_where_the_old_one_stood() -> None:
    """The order of all others is that of the file, though it may not be the one that a sort would give."""
    model = small(op("Neg", "x", "a"), op("Abs", "x", "b"), op("Relu", "a", "c"), op("Neg", "b", "d"),
                  node("Add", ["c", "d"], ["y"]))  # fmt: skip
    after = replaced(model, ("a", "c"))
    product = "fx_passes/site c/product"
    assert order(after) == ["Neg a", "Abs b", f"Mul {product}", "Add c", "Neg d", "Add y"]
    assert computed(after, 3.0) == [-5.0 - 3.0]


def test_a_site_at_the_ends_of_the_graph() -> None:
    """It reads an input and computes an output; neither gets another name."""
    after = replaced(small(op("Neg", "x", "a"), op("Neg", "a", "y")), ("x", "y"))
    assert order(after) == ["Mul fx_passes/site y/product", "Add y"]
    assert computed(after, 3.0) == [7.0]


def test_equal_sites_have_their_constants_together() -> None:
    """One part that is used twice is stored once."""
    after = replaced(small(op("Neg", "x", "a"), op("Neg", "a", "y")), ("x", "a"), ("a", "y"))
    stored = [tensor.name for tensor in after.graph.initializer]
    assert stored == ["fx_passes/site a/one", "fx_passes/site a/two"]
    assert computed(after, 3.0) == [15.0]


def test_no_replacement_changes_nothing() -> None:
    """Not even what nobody needs."""
    model = small(op("Neg", "x", "dead"), op("Neg", "x", "y"), stored=["unused"])
    assert replaced(model).SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize(
    "taken", [f"fx_passes/site y/{name}" for name in ("one", "product", "times", "plus")]
)
@pytest.mark.parametrize("where", ["node", "initializer", "body"])
def test_existing_names_are_not_taken(taken: str, where: str) -> None:
    """A name of a node, a value or a value in a body that is there already stays with its owner."""
    model = small(op("Neg", "x", "y"))
    if where == "node":
        model.graph.node.append(node("Abs", ["x"], [taken], name=taken))
    if where == "initializer":
        model.graph.initializer.append(from_array(np.full((2, 3), 100, np.float32), taken))
    if where == "body":
        made = oh.make_tensor_value_info(taken, TensorProto.FLOAT, [2, 3])
        body = oh.make_graph([node("Abs", ["x"], [taken], name=taken)], "body", [], [made])
        model.graph.initializer.append(from_array(np.array(True), "yes"))
        model.graph.node.insert(0, node("If", ["yes"], ["w"], then_branch=body, else_branch=body))
    after = replaced(model, ("x", "y"))
    assert computed(after, 3.0) == [7.0]
    others = [one for one in model.graph.node if one.output[0] != "y"]
    assert [one for one in after.graph.node if one in others] == others


def test_constants_in_the_third_version_of_the_format() -> None:
    """There an initializer has to be an input. So they are nodes, in front of all others."""
    after = replaced(small(op("Abs", "x", "a"), op("Neg", "a", "y"), ir=3), ("a", "y"))
    assert [one.op_type for one in after.graph.node] == ["Constant", "Constant", "Abs", "Mul", "Add"]
    assert not after.graph.initializer
    assert computed(after, -3.0) == [7.0]


def test_several_values_at_once() -> None:
    """Their sources are joined along the batch, and the result is parted. What they need comes before."""
    model = small(
        op("Neg", "x", "a"), op("Relu", "a", "b"), op("Abs", "x", "c"), op("Exp", "c", "d"),
        node("Sub", ["b", "d"], ["y"]), outputs="yd",
    )  # fmt: skip
    after = copy(model)
    replacement = Replacement("both", PART, ("a", "c"), ("b", "d"))
    (written,) = replace_parts(after, [replacement])
    require_unique(after)
    assert order(after)[:4] == ["Neg a", "Abs c", f"Concat {written.source}", "Mul fx_passes/both/product"]
    assert computed(after, 3.0) == [(1 - 2 * 3) - (1 + 2 * 3), 1 + 2 * 3]
    assert len(written.nodes) == 2
    assert after.graph.output == model.graph.output
