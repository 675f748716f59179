"""Which convolutions of a file may share a kernel, what they are called, and why others are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx.helper as oh
import pytest
import torch
from onnx import GraphProto, NodeProto, TensorProto
from onnx_graphs import model_of, small_integers
from torch import Tensor, nn

from export.read_onnx.candidates import Candidate, Convolutions
from export.read_onnx.constants import Constants
from export.read_onnx.model import OnnxModel, read_model
from export.read_onnx.sites import analyse
from export.runtime.session import Array
from export.write_onnx.exporter import stock_export
from fx_passes.records import Finding

X = small_integers(1, 4, 8, 8)
GROUPED = small_integers(4, 1, 3, 3, seed=1)
# One kernel of two rows and two columns, twice on the diagonal.
BLOCKS = np.kron(np.eye(2), np.ones((2, 2)))[:, :, None, None].astype(np.float32) * np.abs(GROUPED[:1])


def conv(output: str = "y", weight: str = "w", *, op: str = "Conv", group: int = 4, **more: Any) -> NodeProto:
    """A convolution of ``x``."""
    return oh.make_node(op, ["x", weight], [output], group=group, **more)


def found_in(model: OnnxModel) -> tuple[list[Candidate], list[Finding]]:
    candidates, refused = Convolutions(Constants(model)).candidates()
    return list(candidates.values()), refused


def looked_at(
    nodes: Sequence[NodeProto], stored: Mapping[str, Array], **more: Any
) -> tuple[list[Candidate], list[Finding]]:
    """What is found in a model of the nodes."""
    return found_in(model_of(nodes, {"x": X}, stored, **more))


def refusal_in(nodes: Sequence[NodeProto], stored: Mapping[str, Array], **more: Any) -> tuple[str, str, str]:
    """Id, code and reason of the one finding; there is no candidate."""
    candidates, (refused,) = looked_at(nodes, stored, **more)
    assert candidates == []
    assert refused.refusal is not None
    assert refused.refusal.site == refused.id
    return refused.id, refused.refusal.code, refused.refusal.reason


def scoped(name: str, *scopes: str) -> NodeProto:
    """A convolution with the notes of torch's exporter, and its own name."""
    node = conv(f"of {name}", name=name)
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(list(scopes)))
    return node


def test_names() -> None:
    """Path and node of torch where the file says them; else the name of the node, or of what it computes."""
    nodes = [
        scoped("node_1", "", "net", "net.blur", "conv2d_3"),
        scoped("node_2", "", "conv2d"),
        scoped("node_3"),
        conv("first", name="/blur/Conv"),
        conv("second"),
    ]
    candidates, _ = looked_at(nodes, {"w": GROUPED})
    assert [one.id for one in candidates] == ["net.blur/conv2d_3", "conv2d", "node_3", "/blur/Conv", "second"]


def test_names_are_unique() -> None:
    """The second of a name has a number, whatever other names there are."""
    nodes = [conv(str(place), name=name) for place, name in enumerate(["a", "a#2", "a", "a"])]
    candidates, _ = looked_at(nodes, {"w": GROUPED})
    assert [one.id for one in candidates] == ["a", "a#2", "a#3", "a#4"]


def test_a_note_that_is_no_list() -> None:
    """Then it is not a name."""
    node = scoped("node")
    node.metadata_props[0].value = "it's [not"
    candidates, _ = looked_at([node], {"w": GROUPED})
    assert [one.id for one in candidates] == ["node"]


class Blurs(nn.Module):
    """Convolutions as modules and as functions; one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(4, 4, 3, groups=4)
        self.up = nn.ConvTranspose1d(4, 4, 3, groups=4)
        self.kernel = nn.Buffer(torch.rand(4, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.nn.functional.conv2d(self.blur(self.blur(x)), self.kernel, groups=4)
        return self.up(y.flatten(2))  # type: ignore[no-any-return]


def test_names_from_torch(tmp_path: Path) -> None:
    """They are those that the captured graph has."""
    path = tmp_path / "model.onnx"
    stock_export(Blurs().eval(), (torch.rand(1, 4, 9, 9),), path)
    candidates, refused = found_in(read_model(path))
    names = ["blur/conv2d", "blur/conv2d_1", "conv2d_2", "up/conv_transpose1d"]
    assert ([one.id for one in candidates], refused) == (names, [])


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_groups(op: str, dim: int) -> None:
    """Every convolution in groups with a constant weight is a candidate, with its numbers and their name."""
    weight = small_integers(4, 1, *(3, 2, 3)[:dim])
    nodes = [oh.make_node("Exp", ["w"], ["e"]), conv(op=op), conv("z", "e", op=op)]
    (stored, computed), refused = looked_at(nodes, {"w": weight})
    assert refused == []
    assert (stored.weight_name, computed.weight_name) == ("w", "w")
    np.testing.assert_array_equal(stored.weight.numpy(), weight)
    assert computed.weight.shape == weight.shape


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(
    ("weight", "ops"),
    [
        (BLOCKS, ("Conv", "ConvTranspose")),
        (small_integers(1, 1, 3, 3), ("Conv", "ConvTranspose")),
        (small_integers(4, 4, 3, 3), ()),
        (GROUPED, ("Conv",)),
        (small_integers(8, 1, 3, 3), ()),
    ],
    ids=["blocks", "one channel", "dense", "few filters", "many filters"],
)
def test_one_group(op: str, weight: Array, ops: tuple[str, ...]) -> None:
    """A dense weight in equal diagonal blocks is a candidate, one of one channel, and one of few filters on a
    channel. Others are not."""
    found = op in ops
    for nodes in (
        [conv(op=op, group=1)],
        [oh.make_node("Identity", ["w"], ["i"]), conv("y", "i", op=op, group=1)],
    ):
        candidates, refused = looked_at(nodes, {"w": weight})
        assert (len(candidates), refused) == (int(found), [])


def test_bfloat16() -> None:
    """A type that numpy does not have."""
    ((candidate,), _) = looked_at([conv()], {"w": GROUPED.astype(ml_dtypes.bfloat16)})
    assert candidate.weight.dtype == torch.bfloat16
    np.testing.assert_array_equal(candidate.weight.float().numpy(), GROUPED)


def test_a_weight_that_the_graph_computes() -> None:
    """Or that the user gives. Of dense ones nothing is said."""
    nodes = [oh.make_node("Mul", ["x", "w"], ["m"]), conv("y", "m", name="site")]
    site, code, reason = refusal_in(nodes, {"w": GROUPED})
    assert (site, code) == ("site", "runtime")
    assert "not constant" in reason
    assert looked_at([nodes[0], conv("y", "m", group=1)], {"w": GROUPED}) == ([], [])
    _, (refused,) = found_in(model_of([conv()], {"x": X, "w": GROUPED}, {"w": GROUPED}))
    assert refused.refusal is not None
    assert refused.refusal.code == "runtime"


def test_a_weight_that_cannot_be_computed() -> None:
    """onnxruntime refuses to make it."""
    nodes = [oh.make_node("Reshape", ["w", "seven"], ["r"]), conv("y", "r")]
    _, code, reason = refusal_in(nodes, {"w": GROUPED, "seven": np.array([7])})
    assert (code, "cannot be computed" in reason) == ("weight", True)


def test_a_quantised_weight() -> None:
    """Its convolution becomes one of integers."""
    nodes = [oh.make_node("DequantizeLinear", ["w", "scale"], ["d"]), conv("y", "d")]
    _, code, reason = refusal_in(nodes, {"w": GROUPED.astype(np.int8), "scale": np.array(0.1, np.float32)})
    assert (code, "quantised" in reason) == ("quantised", True)


@pytest.mark.parametrize(
    ("op", "domain", "code"),
    [
        ("QLinearConv", "", "quantised"),
        ("ConvInteger", "", "quantised"),
        ("FusedConv", "com.microsoft", "fused"),
        ("NhwcFusedConv", "com.microsoft", "fused"),
    ],
)
def test_other_operators(op: str, domain: str, code: str) -> None:
    """Convolutions of integers, and those that a runtime has joined with what follows; in groups only."""
    more: dict[str, Any] = {"domain": domain, "name": "site"}
    site, found, reason = refusal_in([conv(op=op, **more)], {"w": GROUPED}, domains=["com.microsoft"])
    assert (site, found) == ("site", code)
    assert "::".join(filter(None, (domain, op))) in reason
    assert looked_at([conv(op=op, group=1, **more)], {"w": GROUPED}) == ([], [])


def body(*nodes: NodeProto, inputs: Sequence[str] = ()) -> GraphProto:
    made = [
        oh.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*inputs, nodes[-1].output[0])
    ]
    return oh.make_graph(nodes, "body", made[:-1], made[-1:])


def test_convolutions_in_bodies() -> None:
    """Of If and Loop, also one in the other, with the path as a prefix. Dense ones are not listed."""
    inner = oh.make_node("Loop", ["n", "yes"], ["l"], name="loop", body=body(conv("b", name="deep")))
    then, otherwise = body(conv("t", name="in"), inner), body(conv("e", group=1))
    nodes = [oh.make_node("If", ["yes"], ["y"], name="if", then_branch=then, else_branch=otherwise)]
    candidates, refused = looked_at(nodes, {"w": GROUPED, "yes": np.array(True), "n": np.array(2)})
    assert candidates == []
    assert sorted(one.id for one in refused) == ["if/in", "if/loop/deep"]
    assert all(one.refusal and one.refusal.code == "subgraph" for one in refused)
    assert all(one.refusal and "the body of a node" in one.refusal.reason for one in refused)


def test_convolutions_in_functions() -> None:
    """Also where the call gives the number of groups."""
    given = oh.make_node("Conv", ["a", "b"], ["d"])
    given.attribute.add(name="group", ref_attr_name="groups", type=2)
    stated = oh.make_node("Conv", ["a", "b"], ["c"], group=4, name="site")
    imports = [oh.make_opsetid("", 20)]
    own = oh.make_function("own", "Blur", ["a", "b"], ["c", "d"], [stated, given], imports, ["groups"])
    call = oh.make_node("Blur", ["x", "w"], ["y", "z"], domain="own", groups=4)
    candidates, refused = looked_at([call], {"w": GROUPED}, functions=[own], domains=["own"])
    assert candidates == []
    assert [one.id for one in refused] == ["Blur/site", "Blur/d"]
    assert all(one.refusal and "a function of the model" in one.refusal.reason for one in refused)


def test_all_findings_are_of_one_file() -> None:
    """What is refused here is listed with what the search in the graph finds."""
    nodes = [conv(name="site"), conv("z", op="FusedConv", domain="com.microsoft", name="fused")]
    found = analyse(model_of(nodes, {"x": X}, {"w": np.ones_like(GROUPED)}, outputs=("y", "z")))
    assert {one.id: one.shared for one in found.findings} == {"site": True, "fused": False}
