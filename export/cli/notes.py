"""Options on what a written file tells of itself."""

from __future__ import annotations

from typing import Any

import click

from export.cli.group import Command


def note_options(command: Command) -> Any:
    """``--stamp`` and ``--keep-traces``."""
    command = click.option(
        "--keep-traces",
        is_flag=True,
        help="Keep the stack traces of torch's exporter, which have paths of this machine.",
    )(command)
    return click.option(
        "--stamp",
        is_flag=True,
        help="Note in the file what was done, in a given ONNX file and in an unchanged one, too.",
    )(command)
