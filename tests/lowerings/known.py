"""The lowerings with their cases: a file here for each file in ``fx_passes/lowerings/``, by its name."""

from __future__ import annotations

import importlib

from cases import Tested

from fx_passes.lowerings import MODULES

# All lowerings, each for siblings at once, and each for volumes: two more ways to compute sites. The laws run
# over them as well.
SIBLINGS, VOLUMES = "siblings", "volumes"
WAYS = (*MODULES, SIBLINGS, VOLUMES)


def _cases(name: str) -> Tested:
    try:
        found: Tested = importlib.import_module(name).CASES
    except ModuleNotFoundError as error:
        raise AssertionError(f"the lowering {name} has no cases: write tests/lowerings/{name}.py") from error
    return found


TESTED: dict[str, Tested] = {name: _cases(name) for name in WAYS}
