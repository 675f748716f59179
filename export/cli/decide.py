"""Options on what is decided, of ``optimize`` and ``reduce``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from export.cli.group import Command
from export.tune.options import LOWERINGS
from fx_passes.records import EXACTNESS

Option = Callable[[Command], Command]
lowering_option: Option = click.option(
    "--lowering",
    type=click.Choice(LOWERINGS),
    default="tuned",
    show_default=True,
    help="tuned: what is fastest here; static: by rules, made for onnxruntime, the same everywhere; "
    "expand: equal bit for bit.",
)
exactness_option: Option = click.option(
    "--exactness",
    type=click.Choice(EXACTNESS),
    default="finite",
    show_default=True,
    help="The least exact that may be chosen: equal bits; other rounding; that, and for finite inputs only.",
)
plan_option: Option = click.option(
    "--plan",
    "plan_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Do what a saved plan says; nothing is timed to decide.",
)
dynamic_option: Option = click.option(
    "--dynamic",
    multiple=True,
    metavar="SPEC",
    help="Open sizes: batch (dimension 0 of every input), or INPUT:DIM[,DIM] by name or number. "
    "DIM=NAME[LOW..HIGH] gives a size a name and bounds.",
)
