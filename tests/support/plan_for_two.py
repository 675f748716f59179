"""A plan for two sites, ``blur`` and ``a/b#2``."""

from __future__ import annotations

from fx_passes.plan import Choice, Plan
from fx_passes.records import Proposal

POLYPHASE = Proposal("polyphase", (("phases", 16),), "finite")


def fitting() -> Plan:
    """Return a plan for two sites: it lowers one in phases, and leaves the other as it is."""
    return Plan({"blur": Choice("0a", POLYPHASE), "a/b#2": Choice("0b", None)}, {"by": "hand", "threads": 2})
