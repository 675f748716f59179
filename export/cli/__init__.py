"""The command line: one file for each command."""

from export.cli import check, explain, find, optimize, reduce
from export.cli.group import main

__all__ = ["check", "explain", "find", "main", "optimize", "reduce"]
