"""Conv and ConvTranspose of ONNX in the terms of torch: the same numbers as onnxruntime has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx.helper as oh
import pytest
import torch
from onnx import NodeProto
from onnx_graphs import computed, model_of, small_integers

from export.read_onnx.convolution import Convolution, convolution_of
from export.runtime.session import Array

# By axis; a model in fewer dimensions has the first ones.
TAPS, SHORT = (3, 2, 4), (1, 2, 1)
STRIDES, DILATIONS = (2, 3, 1), (2, 1, 3)
SIZES = ((9, 8, 11), (8, 10, 12))
AUTO = ("SAME_UPPER", "SAME_LOWER")
CHANNELS = 4


def conv_variants() -> Iterator[dict[str, Any]]:
    """Attributes by axis. onnxruntime refuses dilations with SAME_UPPER and SAME_LOWER, pads beside auto_pad,
    and negative pads."""
    steps: tuple[dict[str, Any], ...] = ({}, {"strides": STRIDES}, {"dilations": DILATIONS})
    for step in (*steps, {"strides": STRIDES, "dilations": DILATIONS}):
        yield step
        yield {**step, "auto_pad": "VALID"}
        yield {**step, "before": (1, 2, 1), "behind": (1, 2, 1)}
        yield {**step, "before": (1, 0, 2), "behind": (0, 1, 1)}
        yield {**step, "before": (0, 3, 0), "behind": (2, 0, 0)}
    for auto_pad in AUTO:
        yield {"auto_pad": auto_pad}
        yield {"auto_pad": auto_pad, "strides": STRIDES}
        yield {"auto_pad": auto_pad, "strides": (2, 3, 2), "taps": (1, 1, 1)}
    yield {"group": 1, "strides": STRIDES, "before": (1, 0, 2), "behind": (0, 1, 1)}
    yield {"group": CHANNELS, "strides": STRIDES, "before": (1, 0, 2), "behind": (0, 1, 1)}


def transposed_variants() -> Iterator[dict[str, Any]]:
    """Attributes by axis; ``beyond``: by how much the stated output is larger than input times stride.

    onnxruntime refuses an output_padding that is not smaller than the stride, an output_shape of a whole
    stride or more beyond the last number, pads beside auto_pad, and negative pads.
    """
    dilated = {"strides": STRIDES, "dilations": DILATIONS}
    for step in ({}, {"strides": STRIDES}, {"dilations": DILATIONS}, dilated):
        yield step
        yield {**step, "auto_pad": "VALID"}
        yield {**step, "before": (1, 2, 1), "behind": (1, 2, 1)}
        yield {**step, "before": (1, 0, 2), "behind": (0, 1, 1)}
        yield {**step, "before": (0, 3, 0), "behind": (2, 0, 0)}
        for auto_pad in AUTO:
            yield {**step, "auto_pad": auto_pad}
            yield {**step, "auto_pad": auto_pad, "taps": SHORT}
    more = {"output_padding": (1, 2, 0)}
    for step in ({"strides": STRIDES}, dilated):
        for pad in (
            {},
            {"before": (1, 2, 1), "behind": (1, 2, 1)},
            {"before": (2, 1, 1), "behind": (0, 1, 0)},
        ):
            yield {**step, **more, **pad}
        yield from ({**step, **more, "auto_pad": auto_pad} for auto_pad in AUTO)
        for auto_pad in ("NOTSET", "VALID", *AUTO):
            for beyond in ((0, 0, 0), (1, -1, 0), (-1, -2, 1), (-3, -4, -3)):
                yield {**step, "auto_pad": auto_pad, "beyond": beyond}
            yield {**step, **more, "auto_pad": auto_pad, "beyond": (-1, 0, 0)}
    # Larger than all that the taps reach: what follows is the bias.
    yield {"strides": (3, 3, 3), "taps": SHORT, "beyond": (0, 0, 0)}
    yield {"group": 1, "strides": STRIDES, "before": (2, 1, 1), "behind": (0, 1, 0)}
    yield {"group": CHANNELS, "strides": STRIDES, "before": (2, 1, 1), "behind": (0, 1, 0)}


CASES = [
    *(("Conv", dim, variant) for dim in (1, 2, 3) for variant in conv_variants()),
    *(("ConvTranspose", dim, variant) for dim in (1, 2, 3) for variant in transposed_variants()),
]


def named(case: Any) -> str:
    """The name of a test: ``Conv 2d strides=2,3 auto_pad=VALID``."""
    if not isinstance(case, dict):
        return str(case)
    said = (f"{key}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for key, v in case.items())
    return " ".join(said) or "plain"


def node_and_arrays(
    op: str, dim: int, variant: dict[str, Any], sizes: tuple[int, ...]
) -> tuple[NodeProto, dict[str, Array]]:
    """A node of a variant, with an input, a weight and a bias."""
    given: dict[str, Any] = {k: list(v[:dim]) if isinstance(v, tuple) else v for k, v in variant.items()}
    taps, group = given.pop("taps", TAPS[:dim]), given.setdefault("group", 2)
    if "before" in given:
        given["pads"] = given.pop("before") + given.pop("behind")
    if "beyond" in given:
        counts = zip(sizes, given["strides"], given.pop("beyond"), strict=False)
        given["output_shape"] = [size * stride + more for size, stride, more in counts]
    rows = 2 * group
    shape = (rows, CHANNELS // group) if op == "Conv" else (CHANNELS, rows // group)
    arrays = {
        "x": small_integers(2, CHANNELS, *sizes[:dim]),
        "w": small_integers(*shape, *taps, seed=1),
        "b": small_integers(rows, seed=2),
    }
    return oh.make_node(op, list(arrays), ["y"], **given), arrays


def in_torch(form: Convolution, arrays: dict[str, Array]) -> Array:
    """What the form computes."""
    x, weight, bias = (torch.from_numpy(array) for array in arrays.values())
    result = form.op(torch.nn.functional.pad(x, form.front), weight, bias, *form.arguments)
    for axis, start, end in form.back:
        result = result.narrow(axis, start, end - start)
    return np.asarray(result.numpy())


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("op", "dim", "variant"), CASES, ids=named)
def test_the_numbers_of_onnxruntime(
    op: str, dim: int, variant: dict[str, Any], sizes: tuple[int, ...]
) -> None:
    """Every attribute means in torch what it means in onnxruntime. Sums of small integers are exact."""
    node, arrays = node_and_arrays(op, dim, variant, sizes)
    x, weight, bias = arrays.values()
    (expected,) = computed(model_of([node], {"x": x}, {"w": weight, "b": bias}), x)
    form = convolution_of(node, weight.shape, x.shape)
    assert form is not None
    np.testing.assert_array_equal(in_torch(form, arrays), expected)


@pytest.mark.parametrize(("op", "dim", "variant"), CASES, ids=named)
def test_open_sizes(op: str, dim: int, variant: dict[str, Any]) -> None:
    """A form that needs no size is the one of every size."""
    node, arrays = node_and_arrays(op, dim, variant, SIZES[0])
    x, weight, _ = arrays.values()
    form = convolution_of(node, weight.shape, x.shape)
    for given in (None, (2, CHANNELS, "height", None, "depth")[: dim + 2]):
        assert convolution_of(node, weight.shape, given) in (form, None)


@pytest.mark.parametrize(
    ("op", "variant", "found"),
    [
        ("Conv", {"strides": STRIDES, "before": (1, 0, 2), "behind": (0, 1, 1)}, True),
        ("Conv", {"auto_pad": "SAME_UPPER"}, True),
        ("Conv", {"auto_pad": "SAME_UPPER", "strides": STRIDES}, False),
        ("ConvTranspose", {"strides": STRIDES, "output_padding": (1, 2, 0)}, True),
        ("ConvTranspose", {"strides": (3, 3, 3), "before": (2, 1, 0), "behind": (0, 1, 0)}, True),
        ("ConvTranspose", {"strides": STRIDES, "before": (0, 1, 0), "behind": (2, 1, 0)}, False),
        ("ConvTranspose", {"strides": (2, 2, 2), "auto_pad": "SAME_LOWER", "taps": (4, 4, 4)}, True),
        ("ConvTranspose", {"strides": STRIDES, "beyond": (0, 0, 0)}, False),
    ],
    ids=named,
)
def test_what_needs_the_sizes(op: str, variant: dict[str, Any], found: bool) -> None:
    """Padding up to a stated size needs the size of the input; amounts that are stated do not."""
    node, arrays = node_and_arrays(op, 2, variant, SIZES[0])
    assert (convolution_of(node, arrays["w"].shape, None) is not None) == found


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_the_odd_one_has_a_side(op: str) -> None:
    """Negative control: SAME_UPPER and SAME_LOWER give other numbers, so the test above tells them apart."""
    found = []
    for auto_pad in AUTO:
        node, arrays = node_and_arrays(op, 1, {"auto_pad": auto_pad, "taps": (4,)}, SIZES[0])
        form = convolution_of(node, arrays["w"].shape, arrays["x"].shape)
        assert form is not None
        found.append(in_torch(form, arrays))
    upper, lower = found
    assert upper.shape == lower.shape
    assert not np.array_equal(upper, lower)


@pytest.mark.parametrize("auto_pad", AUTO)
def test_numbers_that_same_would_skip(auto_pad: str) -> None:
    """If three numbers or more are not needed, runtimes disagree on which: there is no form."""
    node, arrays = node_and_arrays("Conv", 1, {"auto_pad": auto_pad, "strides": (4,), "taps": (1,)}, (8,))
    assert convolution_of(node, arrays["w"].shape, arrays["x"].shape) is None
