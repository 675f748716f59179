"""The command and what all its subcommands share: exit codes, options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from export.cli.exit_codes import ExitCodes
from export.cli.files import writable
from export.cli.help import ModelName, examples
from export.cli.loudness import loudness_options, start

Command = Callable[..., Any]
model_argument: Callable[[Command], Command] = click.argument("model", type=ModelName())
input_option: Callable[[Command], Command] = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="SIZES",
    help="Sizes of an example input, as 1x3x224x224, x=1x3x224x224 or 4x16:int64; once for each input.",
)
sites_option: Callable[[Command], Command] = click.option(
    "--sites", "every", is_flag=True, help="List every site. Otherwise those that are alike are one line."
)
json_option: Callable[[Command], Command] = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    help="Write the result as JSON to FILE, or to standard output for -.",
    callback=writable,
)


@click.group(
    cls=ExitCodes,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "fx-passes find my_model.py:build",
        "fx-passes optimize my_model.py:build -o out.onnx",
        "fx-passes COMMAND --help",
    ),
)
@click.version_option(package_name="fx-passes")
@loudness_options
@click.pass_context
def main(context: click.Context) -> None:
    """Find convolutions whose groups repeat one kernel, keep it once, export verified ONNX.

    MODEL is path/to/file.py:attr, package.module:attr, model.pt2 or model.onnx. attr is an nn.Module, or a
    callable without arguments that returns a module or (module, example_inputs).
    """
    start(context)
