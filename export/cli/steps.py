"""What ``fx-passes reduce`` does in processes of its own, besides the commands that everyone has."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np

from export.cli.decide import dynamic_option
from export.cli.exit_codes import ExitCodes
from export.cli.group import input_option
from export.cli.group import main as commands
from export.job.original import load_original
from export.job.source import export_original
from export.loading import import_source, named_input
from export.read_onnx.example import example_arrays
from export.read_onnx.model import read_model
from export.reduce.values import record as record_values
from export.runtime.arrays import tensor_arrays
from export.stages import Stages

WHOLE, ARRAYS = Path("baseline") / "whole.onnx", "inputs.npz"


def main() -> None:
    """Run a step or a command of everyone, after the Python file of a model was imported."""
    _, first, *arguments = sys.argv
    if first:
        import_source(first)
    (steps if arguments[0] in steps.commands else commands)(arguments)


@click.group(cls=ExitCodes)
def steps() -> None:
    """What reduce does in processes of its own."""


@steps.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@input_option
@dynamic_option
def export(model: str, folder: Path, inputs: tuple[str, ...], dynamic: tuple[str, ...]) -> None:
    """Write the plain export of a torch model, and its inputs."""
    made = load_original(model, inputs, dynamic)
    np.savez(folder / ARRAYS, *tensor_arrays(made.inputs))
    export_original(made.model, made.inputs, made.dynamic_shapes, folder, WHOLE.name, Stages())


@steps.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("values", type=click.Path(path_type=Path))
@input_option
def record(file: Path, folder: Path, values: Path, inputs: tuple[str, ...]) -> None:
    """Run an ONNX file, and write what its values are."""
    model, arrays = read_model(file), folder / ARRAYS
    if arrays.exists():
        with np.load(arrays, allow_pickle=False) as stored:
            given = [(None, stored[key]) for key in stored.files]
    else:
        given = [(name, tensor_arrays([tensor])[0]) for name, tensor in map(named_input, inputs)]  # type: ignore[misc]
    record_values(model, example_arrays(model, given)).save(values)
