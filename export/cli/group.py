"""The command and what all its subcommands share: logging, exit codes, options."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import click

from export.cli.exit_codes import ExitCodes
from export.cli.files import writable

Command = Callable[..., Any]
input_option: Callable[[Command], Command] = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="SIZES",
    help="Sizes of an example input, as 1x3x224x224, x=1x3x224x224 or 4x16:int64; once for each input.",
)
json_option: Callable[[Command], Command] = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    help="Write the result as JSON to FILE, or to standard output for -.",
    callback=writable,
)


@click.group(cls=ExitCodes, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fx-passes")
@click.option("-v", "--verbose", is_flag=True, help="Log what the stages do to standard error.")
def main(verbose: bool) -> None:
    """Find convolutions whose groups repeat one kernel, keep it once, export verified ONNX.

    MODEL is path/to/file.py:attr, package.module:attr, model.pt2 or model.onnx. attr is an nn.Module, or a
    callable without arguments that returns a module or (module, example_inputs).
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.ERROR, stream=sys.stderr)
    if not verbose:
        warnings.simplefilter("ignore")
        logging.getLogger("torch").setLevel(logging.CRITICAL)  # our message says what torch raises
