"""The command line: one file for each command."""

from export.cli import check, find, optimize, reduce
from export.cli.group import main

__all__ = ["check", "find", "main", "optimize", "reduce"]
