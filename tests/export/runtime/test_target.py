"""A target: its text, what is refused, and how it opens and runs files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from export.runtime import in_openvino, session, target
from export.runtime.environment import environment
from export.runtime.in_onnxruntime import DEVICES, InOnnxruntime, bound
from export.runtime.session import CPU, open_session, run
from export.runtime.target import RUNTIMES, USUAL, Target, parse_target, targets_of
from fx_passes.errors import ExportError, UsageError

CUDA = "CUDAExecutionProvider"


def difference() -> bytes:
    """A model of ``a - b``, with an input between them that nothing reads."""
    value = helper.make_tensor_value_info
    inputs = [value(name, TensorProto.FLOAT, ["n", 2]) for name in ("b", "unused", "a")]
    outputs = [value("y", TensorProto.FLOAT, ["n", 2]), value("z", TensorProto.FLOAT, ["n", 2])]
    nodes = [helper.make_node("Sub", ["a", "b"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


INPUTS = [np.full((3, 2), number, np.float32) for number in (1.0, 9.0, 5.0)]


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that says it has CUDA."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, "AzureExecutionProvider", CPU])


@pytest.mark.parametrize("text", ["onnxruntime", "ONNXRuntime:cpu", "onnxruntime:CPUExecutionProvider"])
def test_the_usual_target(text: str) -> None:
    """Short and full names, in upper and lower case."""
    assert parse_target(text) == USUAL == Target()
    assert parse_target(text).is_usual
    assert str(parse_target(text)) == "onnxruntime"


def test_a_provider(with_cuda: None) -> None:
    """Its short name is what is shown, and its full one is what onnxruntime gets."""
    for text in ("onnxruntime:CUDA", "onnxruntime:cudaexecutionprovider"):
        found = parse_target(text, 2)
        assert found == Target("onnxruntime", CUDA, 2)
        assert str(found) == "onnxruntime:CUDA"
        assert not found.is_usual


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tensorrt", "there is no runtime 'tensorrt'; known are onnxruntime, openvino"),
        ("", "there is no runtime ''"),
        ("onnxruntime:ROCM", "has no provider 'ROCM'; it has CUDA, Azure, CPU"),
        ("onnxruntime:", "has no provider ''"),
    ],
)
def test_refused(text: str, said: str, with_cuda: None) -> None:
    """One line says what is there."""
    with pytest.raises(UsageError, match=said) as refused:
        parse_target(text)
    assert "\n" not in str(refused.value)


def test_openvino_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says how to install it."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    in_openvino._core.cache_clear()
    with pytest.raises(UsageError, match=r"--target openvino: .* not installed: pip install openvino"):
        parse_target("openvino")


def test_numbers_of_threads() -> None:
    """One or several, each once."""
    assert targets_of("onnxruntime", 3) == (Target(threads=3),)
    assert [at.threads for at in targets_of("onnxruntime", [4, 1, 4])] == [4, 1]
    wrong: list[Any] = [0, [], [1, 0], [-1], ["2"], [1.5]]
    for threads in wrong:
        with pytest.raises(UsageError, match="--threads: give one or more whole numbers from 1 on"):
            targets_of("onnxruntime", threads)


def test_the_cpu_is_opened_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing but its own provider, and the threads of the target."""
    made: list[Any] = []
    real = ort.InferenceSession

    def making(source: Any, options: Any, providers: Any) -> Any:
        made.append((options.intra_op_num_threads, providers))
        return real(source, options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", making)
    y, z = Target(threads=2).opened(difference(), INPUTS)()
    assert made == [(2, [CPU])]
    assert y.tolist() == (INPUTS[2] - INPUTS[0]).tolist()
    assert z.tolist() == (-y).tolist()


def test_another_provider_falls_back_on_the_cpu() -> None:
    """For the operators that it does not have; Azure has none."""
    opened = Target("onnxruntime", "AzureExecutionProvider").open(difference())
    assert isinstance(opened, InOnnxruntime)
    assert opened.session.get_providers() == ["AzureExecutionProvider", CPU]
    assert opened.run(INPUTS)[0].tolist() == (INPUTS[2] - INPUTS[0]).tolist()


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_cannot_be_loaded(with_cuda: None) -> None:
    """onnxruntime would go on without it. Then times would be those of the CPU."""
    with pytest.raises(ExportError, match=f"could not load {CUDA}"):
        parse_target("onnxruntime:CUDA").open(difference())


def test_cuda_computes_in_float32() -> None:
    """Its default rounds the inputs of a convolution to ten bits."""
    assert session._providers(CUDA) == [(CUDA, {"use_tf32": "0"}), CPU]


def test_inputs_and_outputs_that_are_bound() -> None:
    """A device computes what the session computes. The CPU stands in for one."""
    opened = open_session(difference())
    binding = bound(opened, INPUTS, "cpu")()
    for ours, theirs in zip(binding.copy_outputs_to_cpu(), run(opened, INPUTS), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_owns_a_device_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timed run then has no copies between the memories in it."""
    monkeypatch.setitem(DEVICES, "AzureExecutionProvider", "cpu")
    result = Target("onnxruntime", "AzureExecutionProvider").opened(difference(), INPUTS)()
    assert isinstance(result, ort.IOBinding)
    assert DEVICES[CUDA] == "cuda"
    assert CPU not in DEVICES


def test_a_runtime_is_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered can be named, opened and timed, and is in the environment."""
    asked: list[Any] = []

    class Fake:
        def run(self, inputs: Sequence[Any]) -> list[Any]:
            return list(inputs)

        def prepared(self, inputs: Sequence[Any]) -> Any:
            return lambda: self.run(inputs)

    def opening(file: Path | bytes, *, provider: str, threads: int, folder: Path | None = None) -> Fake:
        asked.append((file, provider, threads, folder))
        return Fake()

    monkeypatch.setitem(
        RUNTIMES, "fake", target.Runtime(lambda: "3.2", lambda: ["NPU", "DSP"], "NPU", opening)
    )
    at = parse_target("fake:dsp", 4)
    assert str(at) == "fake:DSP"
    assert str(parse_target("FAKE")) == "fake"
    assert at.opened(b"model", [1])() == [1]  # type: ignore[list-item]
    assert asked == [(b"model", "DSP", 4, None)]
    data = environment(at, Target("fake", "DSP", 8))
    assert (data["target"], data["provider"], data["runtime_version"]) == ("fake:DSP", "DSP", "3.2")
    assert (data["threads"], data["all_threads"]) == (4, [4, 8])
    assert environment(USUAL)["onnxruntime"] == ort.__version__
