"""Says in a file what was done to it, in ``metadata_props``: the version, and a line for each rewritten site.

No time and no date stands there: a plan gives the same file, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from onnx import ModelProto

import fx_passes

VERSION, SITES = "fx_passes.version", "fx_passes.sites"


def stamp(proto: ModelProto, sites: Sequence[dict[str, Any]]) -> None:
    """Write the version of this package and ``sites`` into a model, in place.

    Sites that an earlier run has written there stay in front of the new ones.
    """
    noted = {entry.key: entry.value for entry in proto.metadata_props}
    noted[SITES] = json.dumps([*_earlier(noted.get(SITES)), *sites], separators=(",", ":"))
    noted[VERSION] = fx_passes.__version__
    del proto.metadata_props[:]
    for key, value in noted.items():
        proto.metadata_props.add(key=key, value=value)


def _earlier(text: str | None) -> list[Any]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return found if isinstance(found, list) else []
