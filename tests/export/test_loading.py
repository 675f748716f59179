"""MODEL on the command line: what loads, and one clear line for what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from export.loading import load_model, parse_input
from fx_passes.errors import LoadError, UsageError

SOURCE = """
import torch
from torch import nn
import neighbour

model = nn.Conv2d(3, 3, 3)
Model = nn.ReLU

class Space:
    inner = nn.Tanh()

def build():
    return nn.Conv2d(3, 3, 3)

def with_inputs():
    return nn.Conv2d(3, 3, 3).train(), (torch.ones(1, 3, 8, 8),)

def one_tensor():
    return nn.ReLU(), torch.ones(2)

def needs(argument):
    return argument

def wrong():
    return 3

def wrong_inputs():
    return nn.ReLU(), "x"

def leaves():
    raise SystemExit("bye\\nbye")

number = 3
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("value = 1\n")
    file = tmp_path / "model_source.py"
    file.write_text(SOURCE)
    return file


@pytest.mark.parametrize("name", ["model", "Model", "Space.inner", "build", "with_inputs", "one_tensor"])
def test_attributes_of_a_file(name: str, source: Path) -> None:
    """A module, a class, a nested name, a function with and without inputs; always in evaluation mode."""
    loaded = load_model(f"{source}:{name}")
    assert isinstance(loaded.model, nn.Module)
    assert not loaded.model.training
    assert (loaded.example_inputs is not None) == (name in ("with_inputs", "one_tensor"))


def test_importable_module() -> None:
    """package.module:attr."""
    loaded = load_model("fx_passes.example:edges")
    assert isinstance(loaded.model, nn.Module)
    assert loaded.example_inputs is not None


def test_exported_program(tmp_path: Path) -> None:
    """model.pt2 brings its example inputs."""
    x = torch.randn(1, 3, 8, 8)
    torch.export.save(torch.export.export(nn.Conv2d(3, 3, 3), (x,)), tmp_path / "model.pt2")
    loaded = load_model(str(tmp_path / "model.pt2"))
    assert isinstance(loaded.model, ExportedProgram)
    assert loaded.example_inputs is not None
    assert torch.equal(loaded.example_inputs[0], x)


def test_inputs_of_the_command_line_come_first(source: Path) -> None:
    """--input replaces the inputs that the model brings."""
    loaded = load_model(f"{source}:with_inputs", ("2x3x16x16",))
    assert loaded.example_inputs is not None
    assert loaded.example_inputs[0].shape == (2, 3, 16, 16)


ERRORS = {
    "nothing.py:model": (LoadError, "no such file: nothing.py"),
    "nothing.pt2": (LoadError, "no such file: nothing.pt2"),
    "no_such_package.x:model": (LoadError, "importing no_such_package.x raised ModuleNotFoundError"),
    "fx_passes.example:edgse": (LoadError, "has no attribute 'edgse'; did you mean 'edges'?"),
    "model.onnx": (UsageError, "here a torch model is expected"),
    "just_a_name": (UsageError, "MODEL must be file.py:attr"),
    "{source}:needs": (LoadError, "raised TypeError: needs() missing 1 required positional argument"),
    "{source}:number": (LoadError, "is a int; expected an nn.Module"),
    "{source}:wrong": (LoadError, "is a int; expected an nn.Module"),
    "{source}:wrong_inputs": (LoadError, "example_inputs must be a tuple, got str"),
    "{source}:leaves": (LoadError, "raised SystemExit: bye bye"),
    "{broken}:model": (LoadError, "raised SyntaxError"),
    "{archive}": (LoadError, "is not a torch.export archive"),
}


@pytest.mark.parametrize("spec", ERRORS)
def test_errors_are_one_line(spec: str, source: Path) -> None:
    """What is wrong, where, and where it helps what to do."""
    broken, archive = source.with_name("broken.py"), source.with_name("archive.pt2")
    broken.write_text("def (:\n")
    archive.write_text("not an archive")
    error, message = ERRORS[spec]
    with pytest.raises(error) as raised:
        load_model(spec.format(source=source, broken=broken, archive=archive))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "x", "1x", "1x3x", "axb", "1x3:floating", "1x3:nn", "-1x3", "1 x 3"])
def test_input_sizes_that_are_none(text: str) -> None:
    """Anything but sizes and a dtype is refused."""
    with pytest.raises(UsageError, match="--input takes sizes like 1x3x224x224"):
        parse_input(text)


@pytest.mark.parametrize("text", ["99999999999x3x32x32", "2x3:quint8"])
def test_inputs_that_cannot_be_made(text: str) -> None:
    """Too large, or without numbers to draw: one line that names the option."""
    with pytest.raises(UsageError, match=f"--input {text}: ") as refused:
        parse_input(text)
    assert "\n" not in str(refused.value)


def test_input_sizes() -> None:
    """Sizes and dtypes; the same numbers each time."""
    assert parse_input("4").shape == (4,)
    assert parse_input("2x3:float16").dtype == torch.float16
    assert parse_input("2x3:int64").dtype == torch.int64
    assert parse_input("2x3:bool").dtype == torch.bool
    assert torch.equal(parse_input("5x5"), parse_input("5x5"))
