"""How far rounding moves the outputs of a file, by its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from onnx import TensorProto, numpy_helper

from export.verify.weight_noise import WeightNoise

WEIGHT = np.random.default_rng(0).standard_normal((3, 1, 5, 5)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32)


def write(
    path: Path, nodes: list, *, listed: bool = False, external: bool = False, **stored: np.ndarray
) -> Path:
    """A file of x and y; ``listed``: initializers are inputs too, as they once had to be."""
    slots = [oh.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)]
    if listed:
        slots += [oh.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in stored.items()]
    graph = oh.make_graph(
        nodes,
        "test",
        slots,
        [oh.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path, save_as_external_data=external, size_threshold=0, location=f"{path.name}.data")
    return path


CONV = oh.make_node("Conv", ["x", "w"], ["y"], group=3)


def test_the_spread_is_what_rounding_of_the_sums_is(tmp_path: Path) -> None:
    """A few units of the largest sum of |terms|."""
    (spread,) = WeightNoise(write(tmp_path / "a.onnx", [CONV], w=WEIGHT)).spread([X])
    terms = np.abs(WEIGHT).sum(axis=(1, 2, 3)).max() * np.abs(X).max()
    assert 2**-24 * np.abs(WEIGHT).max() < spread < 20 * 2**-24 * terms


def test_draws_go_on_until_it_is_enough(tmp_path: Path) -> None:
    """A distance that the first draw reaches ends it. One that no draw reaches takes all of them."""
    noise = WeightNoise(write(tmp_path / "a.onnx", [CONV], w=WEIGHT))
    runs: list[int] = []
    run = noise._run
    noise._run = lambda *arguments: runs.append(1) or run(*arguments)  # type: ignore[method-assign,func-returns-value]
    (whole,) = noise.spread([X])
    everything, runs[:] = len(runs), []
    assert noise.spread([X], {0: 2 * whole}) == [whole]
    assert len(runs) == everything
    runs.clear()
    assert 0 < noise.spread([X], {0: 1e-30})[0] <= whole
    assert len(runs) == 2


def test_weights_are_found_behind_an_expand_and_among_the_inputs(tmp_path: Path) -> None:
    """Wherever they are stored, they are what is moved."""
    expand = [oh.make_node("Expand", ["k", "shape"], ["w"]), CONV]
    shape = np.array([3, 1, 5, 5])
    behind = WeightNoise(write(tmp_path / "a.onnx", expand, k=WEIGHT[:1], shape=shape))
    assert list(behind.weights) == ["k"]
    assert behind.spread([X])[0] > 0
    listed = WeightNoise(write(tmp_path / "b.onnx", [CONV], listed=True, w=WEIGHT))
    assert list(listed.weights) == ["w"]
    assert listed.spread([X])[0] > 0


def test_without_weights_the_inputs_are_moved(tmp_path: Path) -> None:
    """By units in the last place of themselves."""
    (spread,) = WeightNoise(write(tmp_path / "a.onnx", [oh.make_node("Neg", ["x"], ["y"])])).spread([X])
    assert 0 < spread < 32 * 2**-24 * np.abs(X).max()


def test_small_weights_beside_the_file_are_moved(tmp_path: Path) -> None:
    """As far as those inside: torch's exporter puts all weights there."""
    inside = WeightNoise(write(tmp_path / "a.onnx", [CONV], w=WEIGHT))
    beside = WeightNoise(write(tmp_path / "b.onnx", [CONV], external=True, w=WEIGHT))
    assert beside.spread([X]) == inside.spread([X])


def test_large_weights_beside_the_file_stay_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not copied; the file runs from where it lies. The smallest ones are read, up to a limit."""
    wide = np.random.default_rng(2).standard_normal((3, 1, 7, 7)).astype(np.float32)
    nodes = [
        oh.make_node("Conv", ["x", "wide"], ["c"], group=3),
        oh.make_node("Conv", ["c", "w"], ["y"], group=3),
    ]
    path = write(tmp_path / "a.onnx", nodes, external=True, wide=wide, w=WEIGHT)
    for limit, read in ((WEIGHT.size + wide.size, {"w", "wide"}), (WEIGHT.size + 1, {"w"}), (1, set[str]())):
        monkeypatch.setattr("export.verify.weight_noise.MOST_OUTSIDE", limit)
        noise = WeightNoise(path)
        assert noise.weights.keys() == read
        assert noise.spread([X])[0] > 0


@pytest.mark.parametrize("kind", [np.float16, np.int64])
def test_other_types_are_moved_by_their_own_units_or_not(kind: type, tmp_path: Path) -> None:
    """Halves move by 2^-11; integers do not move."""
    path = tmp_path / "a.onnx"
    slots = [oh.make_tensor_value_info(n, oh.np_dtype_to_tensor_dtype(np.dtype(kind)), [4]) for n in "xy"]
    model = oh.make_model(
        oh.make_graph([oh.make_node("Abs", ["x"], ["y"])], "test", slots[:1], slots[1:]),
        opset_imports=[oh.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(model, path)
    (spread,) = WeightNoise(path).spread([np.array([1, 2, 3, 4], kind)])
    assert (spread > 0) == (kind is np.float16)
    assert spread < 0.1
