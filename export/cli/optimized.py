"""``optimize`` of the command line: MODEL and its inputs -> the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.cli.inputs import file_inputs
from export.cli.loudness import showing
from export.dynamic import dynamic_shapes
from export.job.expected import expected_stages
from export.loading import load_model
from export.pipeline import optimize_file, optimize_model
from export.read_onnx.model import read_model
from export.report.result import Report
from export.stages import Stages
from export.tune.options import Options
from export.tune.tune_at import Wanted


def optimized(
    model: str,
    inputs: tuple[str, ...],
    dynamic: Sequence[str],
    tune_at: Sequence[Wanted],
    output: Path,
    options: Options,
) -> Report:
    """Optimize what MODEL names, and show the stages."""
    with showing(expected_stages(options)) as show:
        show(f"loading {model}")
        if model.endswith(".onnx"):
            return _optimized_file(model, inputs, dynamic, tune_at, output, options, Stages(show))
        loaded = load_model(model, inputs)
        shapes = dynamic_shapes(loaded.model, loaded.example_inputs, dynamic)
        return optimize_model(
            loaded.model,
            loaded.example_inputs,
            output,
            options,
            Stages(show),
            dynamic_shapes=shapes,
            tune_at=tune_at,
            name=model,
        )


def _optimized_file(
    model: str,
    inputs: tuple[str, ...],
    dynamic: Sequence[str],
    tune_at: Sequence[Wanted],
    output: Path,
    options: Options,
    stages: Stages,
) -> Report:
    """Optimize an ONNX file."""
    example = file_inputs(inputs, dynamic)
    return optimize_file(
        read_model(Path(model)), example, output, options, stages, tune_at=tune_at, name=model
    )
