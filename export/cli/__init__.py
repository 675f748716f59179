"""The command line."""

from export.cli.commands import main

__all__ = ["main"]
