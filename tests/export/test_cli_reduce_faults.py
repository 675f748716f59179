"""What ``reduce`` does where a try, a step or a place is not as it should be. No try runs optimize."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from click.testing import CliRunner
from command_line import run
from onnx import TensorProto
from onnx.numpy_helper import from_array

from export.cli import reduced
from export.cli.attempt import Outcome
from export.cli.steps import steps
from export.loading import named_input
from export.read_onnx.example import example_arrays
from export.read_onnx.model import read_model
from fx_passes.errors import ExportError, UsageError
from fx_passes.plan import Plan

DIFFERS = Outcome(1, "not equivalent: planted")
# The end of `optimize FILE -o OUT ...` on a piece.
Try = Callable[[Path, Sequence[str]], Outcome]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """z = -sum(relu(x + w)), with x of open sizes, and w in the file that the weights of small.onnx have."""
    nodes = [
        oh.make_node("Add", ["x", "w"], ["a"]),
        oh.make_node("Relu", ["a"], ["b"]),
        oh.make_node("ReduceSum", ["b"], ["s"], keepdims=0),
        oh.make_node("Neg", ["s"], ["z"]),
    ]
    x = oh.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    z = oh.make_tensor_value_info("z", TensorProto.FLOAT, [])
    graph = oh.make_graph(nodes, "g", [x], [z], [from_array(np.ones(3, np.float32), "w")])
    made = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18)], ir_version=8)
    file = tmp_path / "model.onnx"
    onnx.save(made, file, save_as_external_data=True, location="small.onnx.data", size_threshold=0)
    return file


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the whole differ, and pieces and steps end as they are told."""

    def told(piece: Try, **ended: Outcome) -> None:
        def attempt(arguments: Sequence[object], *, first: str | None, limit: float) -> Outcome:
            texts = [str(argument) for argument in arguments]
            if texts[0] in ended:
                return ended[texts[0]]
            if texts[0] in steps.commands:
                return Outcome(CliRunner().invoke(steps, texts).exit_code)
            whole = Path(texts[1]).name.startswith("model.")
            return DIFFERS if whole else piece(Path(texts[1]), texts[2:])

        monkeypatch.setattr(reduced, "attempt", attempt)

    return told


def has_neg(path: Path, options: Sequence[str]) -> Outcome:
    """A piece differs if it has the Neg. optimize refuses to write over what it reads, and wrong sizes."""
    try:
        for option, text in itertools.pairwise(options):
            if option == "--input":
                named_input(text)
    except UsageError as error:
        return Outcome(2, str(error))
    if path == Path(options[1]):
        return Outcome(2, "would overwrite the model that is read")
    return DIFFERS if any(node.op_type == "Neg" for node in onnx.load(path).graph.node) else Outcome(0)


def only_open(path: Path, options: Sequence[str]) -> Outcome:
    """As :func:`has_neg`, if the input of the whole has its open sizes."""
    for value in onnx.load(path).graph.input:
        if value.name == "x" and not value.type.tensor_type.shape.dim[0].dim_param:
            return Outcome(0)
    return has_neg(path, options)


INPUT = ("--input", "x=2x3")


def test_a_failure_that_comes_and_goes(model: Path, tmp_path: Path, ends: Callable[..., None]) -> None:
    """The last try passes: there is no piece that shows the failure, and the message says what helps."""
    ends(lambda path, options: Outcome(0) if path.name == "small.onnx" else has_neg(path, options))
    (tmp_path / "out").mkdir()
    result = run("reduce", model, "-o", tmp_path / "out" / "small.onnx", *INPUT)
    assert result.exit_code == 3, result.output
    assert "does not fail each time; use --plan or --lowering static" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["out.onnx", "trial.onnx", "piece"])
def test_any_name_of_the_file(name: str, model: Path, tmp_path: Path, ends: Callable[..., None]) -> None:
    """A try writes over no piece, and the command that is printed does not, either."""
    ends(has_neg)
    result = run("reduce", model, "-o", tmp_path / name, *INPUT)
    assert result.exit_code == 0, result.output
    assert "1 of 4 nodes (Neg)" in result.stdout
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("shown by: "))
    words = shlex.split(line.removeprefix("shown by: "))
    assert words[2] == str(tmp_path / name)
    assert Path(words[4]).name != name


def test_a_scalar_that_is_cut(model: Path, tmp_path: Path, ends: Callable[..., None]) -> None:
    """Open sizes are given with --input. A scalar has none to give."""
    ends(only_open)
    result = run("reduce", model, "-o", tmp_path / "one.onnx", *INPUT)
    assert result.exit_code == 0, result.output
    assert "1 of 4 nodes (Neg)" in result.stdout
    assert "--input" not in result.stdout
    (made,) = example_arrays(read_model(tmp_path / "one.onnx"), [])
    assert made.shape == ()


@pytest.mark.parametrize("words", ["piece.onnx --plan piece.plan.json", "small.onnx", "small.onnx.data"])
def test_results_over_what_is_read(
    words: str, model: Path, tmp_path: Path, ends: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan of the piece over the plan; its weights over those of the model; the piece over these."""
    ends(has_neg)
    monkeypatch.chdir(tmp_path)
    Path("piece.plan.json").write_text(Plan({}).to_json())
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    result = run("reduce", model, "-o", *words.split(), *INPUT)
    assert result.exit_code == 2, result.output
    assert "would overwrite what is read" in result.stderr
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_plan_is_written_last(
    model: Path, tmp_path: Path, ends: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named where it is written, and not written where its model could not be."""
    ends(has_neg)
    plan, derived = tmp_path / "plan.json", tmp_path / "one.plan.json"
    plan.write_text(Plan({}).to_json())
    words = ("reduce", model, "-o", tmp_path / "one.onnx", "--plan", plan, *INPUT)

    def full(*arguments: object) -> None:
        raise ExportError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(reduced, "move_model", full)
        assert run(*words).exit_code == 3
    assert not derived.exists()
    result = run(*words)
    assert result.stdout.splitlines()[-2:] == [f"written: {tmp_path / 'one.onnx'}", f"written: {derived}"]
    assert Plan.from_json(derived.read_text()) == Plan({})


def test_values_that_are_not_recorded(model: Path, tmp_path: Path, ends: Callable[..., None]) -> None:
    """The original does not run. This is said: with the piece, and where there is none."""
    ends(has_neg, record=Outcome(3, "onnxruntime could not run it"))
    result = run("reduce", model, "-o", tmp_path / "one.onnx", *INPUT)
    assert result.exit_code == 0, result.output
    said = "the values of the original could not be recorded: onnxruntime could not run it"
    assert f"it may not be the smallest: {said}" in result.stdout
    ends(lambda path, options: Outcome(0), record=Outcome(3, "onnxruntime could not run it"))
    result = run("reduce", model, "-o", tmp_path / "two.onnx", *INPUT)
    assert result.exit_code == 3
    assert said in result.stderr


def test_an_export_that_ends_otherwise(tmp_path: Path, ends: Callable[..., None]) -> None:
    """It fails, and not as optimize did: both are said."""
    ends(has_neg, export=Outcome(124, "it did not end within 1 s"))
    (tmp_path / "model.py").touch()
    result = run("reduce", f"{tmp_path / 'model.py'}:build", "-o", tmp_path / "one.onnx")
    assert result.exit_code == 3
    assert "can be cut: not equivalent: planted; its export: it did not end within 1 s" in result.stderr
