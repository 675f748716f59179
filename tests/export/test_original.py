"""MODEL -> what its plain export needs: the same in each command that exports."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner
from command_line import run

from export.cli.steps import ARRAYS, WHOLE, steps
from export.job.original import load_original, original_of
from fx_passes.errors import UsageError

PROGRAM = """
import torch
from torch import nn
from torch.export import Dim, export

def program():
    conv = nn.Conv2d(3, 3, 9, groups=3)
    conv.weight.data = torch.rand(1, 1, 9, 9).repeat(3, 1, 1, 1)
    rows = {2: Dim("rows", min=16, max=64)}
    return export(nn.Sequential(conv).eval(), (torch.rand(1, 3, 32, 32),), dynamic_shapes=(rows,))
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    """MODEL that names an exported program. Its inputs are in itself."""
    (tmp_path / "programs.py").write_text(PROGRAM)
    return f"{tmp_path / 'programs.py'}:program"


@pytest.mark.slow
def test_a_program_is_exported_for_reduce(program: str, tmp_path: Path) -> None:
    """Its own inputs are taken, and its open size stays open under its name."""
    result = CliRunner().invoke(steps, ["export", program, str(tmp_path)])
    assert result.exit_code == 0, result.output
    (value,) = onnx.load(tmp_path / WHOLE).graph.input
    assert value.type.tensor_type.shape.dim[2].dim_param
    assert (tmp_path / ARRAYS).exists()


@pytest.mark.slow
def test_a_program_is_explained(program: str) -> None:
    """Its own inputs are taken."""
    result = run("explain", program, "0/conv2d")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("0/conv2d: conv2d, 9x9 taps")


def test_no_tensor_comes_twice() -> None:
    """The exporter takes one object for one input."""
    x = torch.rand(2)
    first, second = original_of(torch.nn.ReLU(), (x, x), None).inputs
    assert first is not second
    assert torch.equal(first, second)


def test_a_model_without_inputs(source: Path) -> None:
    """The message says how to give them."""
    with pytest.raises(UsageError, match="example inputs are needed: give --input"):
        load_original(f"{source}:no_inputs", (), ())
    assert len(load_original(f"{source}:no_inputs", ("1x4x8x8",), ()).inputs) == 1
