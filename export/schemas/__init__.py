"""JSON Schemas (draft 2020-12) of everything that is written as JSON: ``find.json`` and its neighbours.

They are strict about what the contract names, and allow fields that are added.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from fx_passes.errors import UsageError


def schemas() -> list[str]:
    """What there are schemas of.

    Example:
        >>> {"find", "optimize", "plan", "check", "explain"} <= set(schemas())
        True
    """
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of what a command writes with ``--json``, or of a saved plan.

    Args:
        name: ``"find"``, ``"optimize"``, ``"check"``, ``"explain"`` or ``"plan"``.

    Raises:
        UsageError: there is no such schema.

    Example:
        >>> schema("plan")["properties"]["schema"]
        {'const': 'fx-passes/plan/1'}
    """
    if name not in schemas():
        raise UsageError(f"there is no schema {name!r}; there are {', '.join(schemas())}")
    text = resources.files(__name__).joinpath(f"{name}.json").read_text()
    return json.loads(text)  # type: ignore[no-any-return]
