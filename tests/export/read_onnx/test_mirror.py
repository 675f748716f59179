"""The FX graph of a file: what it shows of convolutions, and the reason for each that it does not show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx.helper as oh
import pytest
from onnx import NodeProto, TensorProto
from onnx_graphs import model_of, small_integers

from export.read_onnx.mirror import VALUE, mirror
from export.read_onnx.sites import Analysis, analyse
from fx_passes.find.find_kernels import SITE_ID

X = small_integers(1, 4, 8, 8)
STORED = {
    "w": np.tile(small_integers(1, 1, 3, 3), (4, 1, 1, 1)),
    "b": np.arange(4, dtype=np.float32),
    "bytes": np.arange(4, dtype=np.int32),
    "scale": np.array(0.5, np.float32),
    "none": np.zeros(0, np.int64),
    "shape": np.array([1, 4, 64]),
}


def conv(*inputs: str, op: str = "Conv", **more: Any) -> NodeProto:
    return oh.make_node(op, inputs or ("x", "w"), ["y"], group=4, name="site", **more)


def analysed(nodes: Sequence[NodeProto], sizes: Sequence[int | str] = X.shape) -> Analysis:
    return analyse(model_of(nodes, {"x": (TensorProto.FLOAT, sizes)}, STORED))


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("sizes", [X.shape, ("n", 4, "h", "w")], ids=["known", "open"])
def test_every_convolution_is_found(op: str, sizes: Sequence[int | str]) -> None:
    """It is shared, and a site, if its padding needs no size; otherwise the reason is given."""
    more = {"output_shape": [16, 16]} if op == "ConvTranspose" else {"auto_pad": "SAME_UPPER"}
    found = analysed([conv(op=op, strides=[2, 2], **more)], sizes)
    (finding,) = found.findings
    assert finding.id == "site"
    if sizes == X.shape:
        assert finding.shared
        assert [site.id for site in found.sites()[0]] == ["site"]
    else:
        assert finding.refusal is not None
        assert (finding.refusal.code, "sizes that are open" in finding.refusal.reason) == ("padding", True)


BIASES = {
    "stored": conv("x", "w", "b"),
    "dequantized": conv("x", "w", "d"),
    "random": conv("x", "w", "r"),
    "impossible": conv("x", "w", "i"),
}
SOURCES = [
    oh.make_node("DequantizeLinear", ["bytes", "scale"], ["d"]),
    oh.make_node("RandomNormal", [], ["r"], shape=[4]),
    oh.make_node("Reshape", ["b", "shape"], ["i"]),
]


@pytest.mark.parametrize("name", BIASES)
def test_biases(name: str) -> None:
    """A bias need not be known to find the kernel. A site needs it."""
    found = analysed([*SOURCES, BIASES[name]])
    (finding,) = found.findings
    assert finding.shared
    sites, refusals = found.sites()
    assert ([site.id for site in sites], list(refusals)) == (
        (["site"], []) if name == "stored" else ([], ["site"])
    )


def test_data_that_comes_from_no_input() -> None:
    """A convolution of random numbers is found like any other."""
    nodes = [oh.make_node("RandomNormal", [], ["r"], shape=list(X.shape)), conv("r", "w")]
    assert [finding.id for finding in analysed(nodes).findings] == ["site"]


def test_a_movement_that_moves_nothing() -> None:
    """A Slice of no axes gives a value all the same."""
    nodes = [
        oh.make_node("Slice", ["x", "none", "none", "none"], ["s"]),
        oh.make_node("Identity", ["s"], ["i"]),
        conv("i", "w"),
    ]
    assert [site.id for site in analysed(nodes).sites()[0]] == ["site"]


def test_names_of_values() -> None:
    """Each value that depends on an input has one node, and constants have none."""
    nodes = [
        oh.make_node("Exp", ["w"], ["e"]),
        oh.make_node("Split", ["x"], ["left", "right"], axis=3, num_outputs=2),
        oh.make_node("Mul", ["scale", "left"], ["m"]),
        conv("m", "e", "b", pads=[1, 0, 0, 1]),
    ]
    seen = mirror(model_of(nodes, {"x": X}, STORED, outputs=("y", "right")))
    shown = [node.meta[VALUE] for node in seen.graph_module.graph.nodes if VALUE in node.meta]
    assert sorted(shown) == ["left", "m", "right", "x", "y"]
    (site,) = [node for node in seen.graph_module.graph.nodes if SITE_ID in node.meta]
    assert (site.meta[SITE_ID], list(seen.convolutions)) == ("site", ["site"])


def test_what_a_file_computes_stays_outside() -> None:
    """A Pad and a Slice whose amounts come from a size. The site says of both why they stay."""
    nodes = [
        oh.make_node("Shape", ["x"], ["all"]),
        oh.make_node("Mul", ["all", "half"], ["amounts"]),
        oh.make_node("Concat", ["amounts", "amounts"], ["pads"], axis=0),
        oh.make_node("Pad", ["x", "pads"], ["padded"]),
        oh.make_node("Conv", ["padded", "w"], ["wide"], group=4, name="site"),
        oh.make_node("Slice", ["wide", "begin", "all"], ["y"]),
    ]
    stored = STORED | {"half": np.array([0, 0, 1, 1]), "begin": np.zeros(4, np.int64)}
    model = model_of(nodes, {"x": (TensorProto.FLOAT, ("n", 4, "h", "w"))}, stored)
    ((site,), _) = analyse(model).sites()
    assert site.outside == (
        "a Pad in front of it stays: its amounts are computed, or have no form in torch",
        "a Slice behind it stays: its bounds are computed, and do not follow from the sizes that the "
        "convolution has",
    )


@pytest.mark.parametrize(
    ("padding", "step", "least", "stays"),
    [(0, 2, 1, False), (1, 2, 1, False), (1, 1, 1, True), (1, 1, 4, True), (1, 1, 5, False), (0, 1, 5, True)],
)
def test_a_slice_behind_a_site(padding: int, step: int, least: int, stays: bool) -> None:
    """Every second output is some output. A crop by two on both sides leaves nothing of four outputs."""
    bounds = [0, np.iinfo(np.int64).max] if step == 2 else [2, -2]
    values = {"from": bounds[:1], "to": bounds[1:], "axis": [3], "step": [step]}
    nodes = [
        conv(pads=[padding] * 4),
        oh.make_node("Slice", ["y", "from", "to", "axis", "step"], ["z"], name="cut"),
    ]
    stored = STORED | {name: np.array(value) for name, value in values.items()}
    model = model_of(nodes, {"x": (TensorProto.FLOAT, ("n", 4, 8, "w"))}, stored, outputs=("z",))
    found = analyse(model, least={"w": least})
    ((site,), _) = found.sites()
    assert (found.values()[site.end], bool(site.outside)) == (("y", True) if stays else ("z", False))


def test_shapes_of_workloads() -> None:
    """A site with open sizes knows the shapes that it reads, each once; one with known sizes needs none."""
    nodes = [oh.make_node("Relu", ["x"], ["r"]), conv("r", "w", pads=[1, 1, 1, 1])]
    workloads = [[np.zeros((1, 4, side, 9), np.float32)] for side in (8, 12, 8)]
    ((site,), _) = analysed(nodes, ("n", 4, "h", "w")).sites(workloads)
    assert site.shapes == ((1, 4, 8, 9), (1, 4, 12, 9))
    ((known,), _) = analysed(nodes).sites([[X]])
    assert known.shapes == ()
