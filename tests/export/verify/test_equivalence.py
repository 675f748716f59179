"""The equivalence check passes what is equal, and fails on every planted fault with place and numbers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from onnx import TensorProto

from export.runtime.session import open_session
from export.verify import equivalence
from export.verify.cases import make_cases
from export.verify.compare_output import ULPS
from export.verify.equivalence import check_equivalence
from export.verify.weight_noise import WeightNoise
from fx_passes.errors import ExportError, NotEquivalentError, UsageError

WEIGHT = np.random.default_rng(0).standard_normal((3, 1, 3, 3)).astype(np.float32)


def write(path: Path, nodes: list, inputs: dict, outputs: dict, **stored: np.ndarray) -> Path:
    """An ONNX file of the given nodes; inputs and outputs are name -> (element type, shape)."""
    graph = oh.make_graph(
        nodes,
        "test",
        [oh.make_tensor_value_info(name, *info) for name, info in inputs.items()],
        [oh.make_tensor_value_info(name, *info) for name, info in outputs.items()],
        [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def conv(
    path: Path, weight: np.ndarray = WEIGHT, batch: int | str = 1, scale: float = 1.0, **more: Any
) -> Path:
    """y = scale * conv(x), grouped; with stride or pads given, of another size."""
    attributes = {"group": 3, "kernel_shape": [3, 3], **more}
    nodes = [
        oh.make_node("Conv", ["x", "w"], ["c"], **attributes),
        oh.make_node("Mul", ["c", "s"], ["y"]),
    ]
    size = (8 + (2 if "pads" in more else 0) - 3) // more.get("strides", [1])[0] + 1
    return write(
        path,
        nodes,
        {"x": (TensorProto.FLOAT, [batch, 3, 8, 8])},
        {"y": (TensorProto.FLOAT, [batch, 3, size, size])},
        w=weight,
        s=np.array(scale, np.float32),
    )


def convolved(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The convolution in float64, tap by tap."""
    x = arrays[0].astype(np.float64)
    y = sum(
        WEIGHT[:, 0, i, j].astype(np.float64)[:, None, None] * x[:, :, i : i + 6, j : j + 6]
        for i in range(3)
        for j in range(3)
    )
    return [np.asarray(y)]


def test_equal_files_pass_with_equal_bits(tmp_path: Path) -> None:
    """Seven cases, each at two levels; errors against float64 are those of float32."""
    a, b = conv(tmp_path / "a.onnx"), conv(tmp_path / "b.onnx")
    result = check_equivalence(a, b, reference=convolved, require_bitwise=True)
    assert result.passed
    assert result.bitwise
    assert result.cases == 7
    (output,) = result.outputs
    assert 0 < output.max_abs_error == output.baseline_error <= output.bound


def one_tap(by: float) -> np.ndarray:
    weight = WEIGHT.copy()
    weight[1, 0, 2, 0] += by
    return weight


FAULTS: dict[str, Callable[[Path], Path]] = {
    "tap": lambda path: conv(path, one_tap(1e-3)),
    "stride": lambda path: conv(path, strides=[2, 2]),
    "padding": lambda path: conv(path, pads=[1, 1, 1, 1]),
    "scale": lambda path: conv(path, scale=1.0001),
    "nan": lambda path: conv(path, one_tap(np.nan)),
    "inf": lambda path: conv(path, one_tap(np.inf)),
}


@pytest.mark.parametrize("bitwise", [True, False])
@pytest.mark.parametrize("reference", [convolved, None], ids=["float64", "no reference"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_planted_fault_is_caught(
    fault: str, reference: Callable[..., Any] | None, bitwise: bool, tmp_path: Path
) -> None:
    """Whether or not bits are asked for, and with or without a float64 reference."""
    baseline, faulty = conv(tmp_path / "a.onnx"), FAULTS[fault](tmp_path / "b.onnx")
    result = check_equivalence(baseline, faulty, reference=reference, require_bitwise=bitwise)
    assert not result.passed
    assert not result.bitwise
    assert result.mismatch is not None
    assert result.mismatch.output == "y"
    text = str(result.mismatch)
    if fault in ("stride", "padding"):
        assert "expected float32[1, 3, 6, 6], found float32[1, 3, " in text
    else:
        assert "expected " in text
        assert "a tolerance of " in text
        assert result.mismatch.needed > result.mismatch.allowed


def test_one_ulp_fails_bits_and_passes_bounds(tmp_path: Path) -> None:
    """A tap off by one unit in the last place is not the same bits, yet within the float32 error."""
    weight = WEIGHT.copy()
    weight[1, 0, 1, 1] = np.nextafter(weight[1, 0, 1, 1], np.float32(9))
    a, b = conv(tmp_path / "a.onnx"), conv(tmp_path / "b.onnx", weight)
    strict = check_equivalence(a, b, reference=convolved, require_bitwise=True)
    assert not strict.passed
    assert strict.mismatch is not None
    assert strict.mismatch.place[:2] == (0, 1)
    loose = check_equivalence(a, b, reference=convolved)
    assert loose.passed
    assert not loose.bitwise


def test_the_bound_is_what_the_docstring_says(tmp_path: Path) -> None:
    """Where bits differ: the measured spread, and ULPS ulp. A sum of nine terms is off by a few units."""
    a, b = conv(tmp_path / "a.onnx"), conv(tmp_path / "b.onnx", one_tap(1e-7))
    (output,) = check_equivalence(a, b, reference=convolved).outputs
    inputs = dict(make_cases(open_session(a), None))
    spreads = {case: WeightNoise(a).spread(arrays)[0] for case, arrays in inputs.items()}
    ulps = {case: ULPS * np.spacing(np.abs(convolved(x)[0]).max().astype("f4")) for case, x in inputs.items()}
    assert any(output.bound == pytest.approx(spreads[case] + ulps[case]) for case in inputs)
    largest = {case: np.abs(convolved(x)[0]).max() for case, x in inputs.items()}
    assert all(0 < spreads[case] < 64 * 2**-24 * largest[case] for case in inputs)


def identity(path: Path, kind: int, shape: list, op: str = "Identity", **stored: np.ndarray) -> Path:
    inputs = ["x", *stored]
    return write(
        path, [oh.make_node(op, inputs, ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)}, **stored
    )


def test_sign_of_zero_is_a_bit(tmp_path: Path) -> None:
    """-0.0 for 0.0 fails where bits are asked for."""
    a = identity(tmp_path / "a.onnx", TensorProto.FLOAT, [4], "Mul", s=np.array(0, np.float32))
    b = identity(tmp_path / "b.onnx", TensorProto.FLOAT, [4], "Mul", s=np.array(-0.0, np.float32))
    assert not check_equivalence(a, b, require_bitwise=True).passed
    assert check_equivalence(a, b).passed


@pytest.mark.parametrize(
    "kind", [TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE, TensorProto.FLOAT16]
)
def test_other_types(kind: int, tmp_path: Path) -> None:
    """Integers, flags, doubles and halves are made, run and compared."""
    a, b = (identity(tmp_path / f"{name}.onnx", kind, [2, 3]) for name in "ab")
    result = check_equivalence(a, b, require_bitwise=True)
    assert result.passed
    assert result.cases == 7


def test_integer_difference(tmp_path: Path) -> None:
    """An integer that differs has no tolerance."""
    a = identity(tmp_path / "a.onnx", TensorProto.INT64, [4], "Add", s=np.array(1, np.int64))
    b = identity(tmp_path / "b.onnx", TensorProto.INT64, [4], "Add", s=np.array(2, np.int64))
    result = check_equivalence(a, b)
    assert not result.passed
    assert result.mismatch is not None
    assert (result.mismatch.needed, result.mismatch.allowed) == (1.0, 0.0)


def test_scalar_and_empty_outputs(tmp_path: Path) -> None:
    """A 0-d output and one of no elements are compared like any other."""
    for shape in ([], [0, 3]):
        a, b = (identity(tmp_path / f"{name}.onnx", TensorProto.FLOAT, shape) for name in "ab")
        assert check_equivalence(a, b, require_bitwise=True).passed


def test_a_difference_in_the_last_output_is_found(tmp_path: Path) -> None:
    """All outputs are compared, and the mismatch names the one that differs."""
    info = (TensorProto.FLOAT, [4])
    for name, factor in (("a", 2.0), ("b", 2.5)):
        nodes = [oh.make_node("Neg", ["x"], ["p"]), oh.make_node("Mul", ["x", "s"], ["q"])]
        stored = np.array(factor, np.float32)
        write(tmp_path / f"{name}.onnx", nodes, {"x": info}, {"p": info, "q": info}, s=stored)
    result = check_equivalence(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert result.mismatch is not None
    assert result.mismatch.output == "q"


def test_open_batch_is_checked_at_other_sizes(tmp_path: Path) -> None:
    """An open first dimension adds a batch of 1 and one of 3; a fixed one does not."""
    session = open_session(conv(tmp_path / "a.onnx", batch="n"))
    cases = dict(make_cases(session, [np.zeros((2, 3, 8, 8), np.float32)]))
    assert cases["batch of 1"][0].shape == (1, 3, 8, 8)
    assert cases["batch of 3"][0].shape == (3, 3, 8, 8)
    assert check_equivalence(tmp_path / "a.onnx", tmp_path / "a.onnx").cases == 9


def test_a_fault_at_another_batch_size_is_found(tmp_path: Path) -> None:
    """A file whose batch was baked in runs the example and nothing else."""
    a, b = conv(tmp_path / "a.onnx", batch="n"), tmp_path / "b.onnx"
    nodes = [
        oh.make_node("Conv", ["x", "w"], ["c"], group=3, kernel_shape=[3, 3]),
        oh.make_node("Reshape", ["c", "shape"], ["y"]),
    ]
    shape = np.array([2, 3, 6, 6])
    info = {"x": (TensorProto.FLOAT, ["n", 3, 8, 8])}, {"y": (TensorProto.FLOAT, ["n", 3, 6, 6])}
    write(b, nodes, *info, w=WEIGHT, shape=shape)
    result = check_equivalence(a, b, example_inputs=[np.ones((2, 3, 8, 8), np.float32)])
    assert not result.passed
    assert result.mismatch is not None
    assert result.mismatch.case == "batch of 1"
    assert "the original runs, the optimized file does not" in str(result.mismatch)


def test_cases_differ_in_magnitude(tmp_path: Path) -> None:
    """Normal, uniform, large, tiny, impulses, constant: what the names say."""
    session = open_session(conv(tmp_path / "a.onnx"))
    cases = {name: arrays[0] for name, arrays in make_cases(session, None)}
    assert np.abs(cases["large"]).max() > 1e4
    assert 0 < np.abs(cases["tiny"]).max() < 1e-18
    assert set(np.unique(cases["impulses"])) == {0.0, 1.0}
    assert np.unique(cases["constant"]).tolist() == [0.5]
    assert 0 <= cases["uniform"].min() < cases["uniform"].max() <= 1


def test_integers_stay_in_the_range_of_the_example(tmp_path: Path) -> None:
    """Indices beyond what the example shows may be invalid."""
    session = open_session(identity(tmp_path / "a.onnx", TensorProto.INT64, [100]))
    example = np.arange(100) % 5 + 7
    for _, (array,) in make_cases(session, [example]):
        assert array.min() >= 7
        assert array.max() <= 11


def test_reference_that_cannot_run_is_noted_and_replaced(tmp_path: Path) -> None:
    """Without float64 the original file is what is compared with, and the report says so."""

    def refuses(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        raise TypeError("no float64 here")

    result = check_equivalence(conv(tmp_path / "a.onnx"), tmp_path / "a.onnx", reference=refuses)
    assert result.passed
    assert result.reference == "original file, within what rounding can do"
    assert "cannot be run in float64 (TypeError: no float64 here)" in result.notes[0]


def test_files_that_do_not_fit_each_other(tmp_path: Path) -> None:
    """Other inputs, or a number of example inputs that does not fit: usage errors."""
    a = conv(tmp_path / "a.onnx")
    b = identity(tmp_path / "b.onnx", TensorProto.FLOAT16, [4])
    with pytest.raises(NotEquivalentError, match="the files have different inputs"):
        check_equivalence(a, b)
    with pytest.raises(UsageError, match=r"the model takes 1 inputs \(x\), got 0"):
        check_equivalence(a, a, example_inputs=[])


def test_something_that_is_no_model(tmp_path: Path) -> None:
    """One line that names the file."""
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    with pytest.raises(ExportError, match=r"onnxruntime does not accept .*bad.onnx: "):
        check_equivalence(bad, bad)


def test_one_session_is_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds the weights: none is kept by what was asked of it, as by its inputs and outputs."""
    opened: list[weakref.ref[Any]] = []

    def opening(*arguments: Any, **options: Any) -> Any:
        assert [ref for ref in opened if ref() is not None] == []
        session = open_session(*arguments, **options)
        opened.append(weakref.ref(session._sess))
        return session

    monkeypatch.setattr(equivalence, "open_session", opening)
    a, b = conv(tmp_path / "a.onnx"), conv(tmp_path / "b.onnx")
    assert check_equivalence(a, b).passed
    assert len(opened) == 4


def test_json_has_the_contract(tmp_path: Path) -> None:
    """Names of the JSON contract."""
    data = check_equivalence(conv(tmp_path / "a.onnx"), tmp_path / "a.onnx").to_json()
    assert {"passed", "cases", "outputs"} <= data.keys()
    assert data["outputs"][0].keys() == {"name", "max_abs_error", "baseline_error", "bound"}


def test_numbers_that_are_none_are_a_case_of_their_own(tmp_path: Path) -> None:
    """Inf, -Inf and NaN are among the inputs where that is asked for, in all else the cases are the same."""
    session = open_session(conv(tmp_path / "a.onnx"))
    cases = {name: arrays[0] for name, arrays in make_cases(session, None, special=True)}
    assert set(cases) - {name for name, _ in make_cases(session, None)} == {"non-finite"}
    strange = cases["non-finite"][~np.isfinite(cases["non-finite"])]
    assert sorted(map(str, strange)) == ["-inf", "inf", "nan"]


def shifted(path: Path, taps: int) -> Path:
    """y = conv(x) along the width, its one tap followed by zeros: the same for finite inputs."""
    weight = np.zeros((3, 1, 1, taps), np.float32)
    weight[..., 0] = 2.0
    node = oh.make_node("Conv", ["x", "w"], ["y"], group=3, pads=[0, 0, 0, taps - 1])
    slots = {"x": (TensorProto.FLOAT, [1, 3, 8, 8])}, {"y": (TensorProto.FLOAT, [1, 3, 8, 8])}
    return write(path, [node], *slots, w=weight)


@pytest.mark.parametrize("bitwise", [True, False])
def test_zeros_that_an_infinity_meets_are_found(bitwise: bool, tmp_path: Path) -> None:
    """Equal bits in all finite cases; 0 * Inf is NaN, which only the case with Inf in its inputs shows."""
    a, b = shifted(tmp_path / "a.onnx", 1), shifted(tmp_path / "b.onnx", 2)
    finite = check_equivalence(a, b, require_bitwise=bitwise)
    assert (finite.passed, finite.bitwise, finite.cases) == (True, True, 7)
    result = check_equivalence(a, b, require_bitwise=bitwise, non_finite=True)
    assert not result.passed
    assert result.cases == 8
    assert result.mismatch is not None
    assert result.mismatch.case == "non-finite"
    assert np.isnan(result.mismatch.found)


def test_an_original_far_from_the_truth_allows_nothing_between(tmp_path: Path) -> None:
    """What is as good as the original passes, and what is as good as the truth; nothing between them."""
    baseline = conv(tmp_path / "a.onnx", scale=2.0)
    rounded = float(np.nextafter(np.float32(2), np.float32(3)))
    for scale, passes in ((1.0, True), (2.0, True), (rounded, True), (1.0001, False), (1.5, False)):
        optimized = conv(tmp_path / "b.onnx", scale=scale)
        assert check_equivalence(baseline, optimized, reference=convolved).passed == passes


def test_where_the_reference_has_no_number_the_original_counts(tmp_path: Path) -> None:
    """One channel of the reference is NaN: a fault there is found, and one unit in the last place is none."""

    def without_a_channel(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        (y,) = convolved(arrays)
        y[:, 1] = np.nan
        return [y]

    baseline = conv(tmp_path / "a.onnx")
    for by, passes in ((0.0, True), (1e-7, True), (1e-3, False)):
        result = check_equivalence(
            baseline, conv(tmp_path / "b.onnx", one_tap(by)), reference=without_a_channel
        )
        assert result.passed == passes
    assert result.mismatch is not None
    assert result.mismatch.place[:2] == (0, 1)


def test_a_number_that_the_original_lost_is_noted(tmp_path: Path) -> None:
    """Equal bits pass; that both files have no number where the model has one is said, once a case."""
    weight = np.full_like(WEIGHT, np.inf)
    files = [conv(tmp_path / name, weight) for name in ("a.onnx", "b.onnx")]
    result = check_equivalence(*files, reference=convolved)
    assert result.passed
    assert "output `y` of the stock export is " in result.notes[0]
    assert ", where the model in float64 gives " in result.notes[0]
    assert len(set(result.notes)) == len(result.notes)
    assert check_equivalence(files[0], files[1]).notes == ()


def test_what_is_expected_is_what_was_compared_with(tmp_path: Path) -> None:
    """The reference, where it has a number; else the original."""
    baseline, optimized = conv(tmp_path / "a.onnx", scale=2.0), conv(tmp_path / "b.onnx", scale=1.5)
    for reference, ratio in ((convolved, 1.5), (None, 0.75)):
        mismatch = check_equivalence(baseline, optimized, reference=reference).mismatch
        assert mismatch is not None
        assert mismatch.found / mismatch.expected == pytest.approx(ratio, rel=1e-5)
