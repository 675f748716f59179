"""What is done at each site: decided once, written down, and done again without deciding anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fx_passes.errors import UsageError
from fx_passes.records import EXACTNESS, Exactness, Proposal

SCHEMA = "fx-passes/plan/1"
# A site that is kept, as it stands in a plan.
_EXPAND: dict[str, Any] = {"lowering": "expand", "params": {}, "exactness": "bitwise"}


@dataclass(frozen=True)
class Choice:
    """The choice for one site.

    Args:
        key: a digest of geometry, kernel, bias and input shape, for which the choice was made.
        proposal: the lowering; None keeps the expanded convolution.
    """

    key: str
    proposal: Proposal | None


@dataclass(frozen=True)
class Plan:
    """A choice for each site that can be lowered, and how it was made.

    Args:
        choices: by the id of the site.
        shares: whether ``lower`` keeps the kernel once where a convolution is not lowered, and expands it in
            each call, which takes torch some microseconds. Otherwise it keeps the whole weight.
        made: machine, versions, threads, timings. It is for the reader; nobody needs it to follow the plan.
            It is held as JSON holds it, so that a plan is the same after it was written and read.
    """

    choices: Mapping[str, Choice]
    made: Mapping[str, Any] = field(default_factory=dict)
    shares: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", dict(self.choices))
        object.__setattr__(self, "made", _plain(self.made))

    @property
    def exactness(self) -> Exactness:
        """The least exact of all choices."""
        used = [choice.proposal.exactness for choice in self.choices.values() if choice.proposal]
        return max(used, key=EXACTNESS.index, default="bitwise")

    def to_json(self) -> str:
        """The plan as JSON text. :meth:`from_json` gives the same plan again.

        Raises:
            ValueError, TypeError: a parameter of a proposal is no finite number, no text and no list of them.

        Example:
            >>> from fx_passes.records import Proposal
            >>> plan = Plan({"blur": Choice("0a", Proposal("polyphase", (("phases", 16),), "finite"))})
            >>> Plan.from_json(plan.to_json()) == plan
            True
        """
        sites = {
            name: {"key": choice.key, **(_EXPAND if choice.proposal is None else choice.proposal.to_json())}
            for name, choice in self.choices.items()
        }
        shares: dict[str, Any] = {} if self.shares else {"shares": False}
        data = {"schema": SCHEMA, "sites": sites, **shares, "made": self.made}
        return json.dumps(data, indent=2, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Plan:
        """The plan that :meth:`to_json` wrote.

        Raises:
            UsageError: the text is no plan.
        """
        try:
            data = json.loads(text)
            if data["schema"] != SCHEMA:
                raise UsageError(f"the plan has schema {data['schema']!r}, expected {SCHEMA!r}")
            choices = {name: _choice(site) for name, site in data["sites"].items()}
            return Plan(choices, dict(data.get("made", {})), data.get("shares", True) is not False)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"the file is no plan: {type(error).__name__}: {error}") from error


def _plain(value: Any) -> Any:
    """``value`` as it comes back from JSON: keys are texts, sequences are lists, other objects become their
    text.

    JSON has no infinity and no NaN. They become texts that ``float`` reads: ``inf``, ``nan``.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _plain(value.tolist())
    return str(value)


def _choice(site: Mapping[str, Any]) -> Choice:
    if site["lowering"] == _EXPAND["lowering"]:
        return Choice(str(site["key"]), None)
    return Choice(str(site["key"]), Proposal.from_json(site))
