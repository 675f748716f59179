"""Frozen records that travel between the stages; they hold names, never live nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Form = Literal["module", "functional", "aten"]
OriginKind = Literal["parameter", "buffer", "computed"]
Exactness = Literal["bitwise", "reordered", "finite"]
# From the most exact on: the same bits; other rounding; and where an Inf or NaN may reach more outputs as
# well.
EXACTNESS: tuple[Exactness, ...] = ("bitwise", "reordered", "finite")
# How plans and reports name a lowering of all siblings at once.
_MERGED = "sibling_merge"


@dataclass(frozen=True)
class ConvGeometry:
    """What a convolution does to shapes, in the terms of ``torch.nn.Conv2d`` and ``ConvTranspose2d``.

    ``padding`` is a tuple, or the string ``"same"`` / ``"valid"`` where the model says it so.
    """

    op: str
    in_channels: int
    out_channels: int
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    padding_mode: str = "zeros"

    @property
    def transposed(self) -> bool:
        return self.op.startswith("conv_transpose")

    @property
    def dim(self) -> int:
        """Number of spatial dimensions: 1, 2 or 3."""
        return len(self.kernel)


@dataclass(frozen=True)
class WeightOrigin:
    """Where the weight of a site comes from: its kind, qualified name, and who else uses it."""

    kind: OriginKind
    name: str | None = None
    users: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConvSite:
    """One convolution in a graph. ``node`` is the name of its node, ``id`` is unique in the model."""

    id: str
    form: Form
    node: str
    geometry: ConvGeometry
    weight_shape: tuple[int, ...]
    origin: WeightOrigin


@dataclass(frozen=True)
class SharedKernel:
    """The one kernel that every group of a site repeats.

    Args:
        groups: how many groups repeat it; for a block-diagonal dense convolution, how many blocks.
        shape: (out/groups, in/groups, *kernel); transposed: (in/groups, out/groups, *kernel), which
            is how ``torch.nn.ConvTranspose2d`` lays out one group.
        block_diagonal: the model has a dense convolution (groups = 1) that is zero off the blocks.
        proof: ``"values"``: the numbers were compared; ``"construction"``: the graph itself repeats
            one kernel (``expand``, ``repeat``, ...), whatever its values.
        max_difference: largest distance of any repeat from the kernel kept, 0.0 when bitwise equal.
        bias_shared: the bias, too, repeats over the groups.
        output_change: how far the output may move for that, times the largest magnitude of the input.
    """

    groups: int
    shape: tuple[int, ...]
    block_diagonal: bool = False
    proof: Literal["values", "construction"] = "values"
    max_difference: float = 0.0
    bias_shared: bool = False
    output_change: float = 0.0


@dataclass(frozen=True)
class Refusal:
    """Why something is not done to a site.

    Args:
        site: the id of the site; empty where whoever refuses does not know it.
        stage: who refuses: finding (``"site"``, ``"weight"``, ``"repeats"``), sharing, one way to train
            (``"formulation"``), all lowerings (``"lower"``), or one of them (``"lowering"``).
        code: the same for the same cause, whatever the numbers are; messages may change, codes do not.
        reason: in words, with the numbers.
    """

    site: str
    stage: Literal["site", "weight", "repeats", "share", "formulation", "lower", "lowering"]
    code: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """One convolution and the verdict on it: a shared kernel, or a refusal with its reason."""

    site: ConvSite
    kernel: SharedKernel | None = None
    refusal: Refusal | None = None
    note: str | None = None

    @property
    def id(self) -> str:
        return self.site.id

    @property
    def op(self) -> str:
        return self.site.geometry.op

    @property
    def groups(self) -> int:
        return self.kernel.groups if self.kernel else self.site.geometry.groups

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return self.site.weight_shape

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of one group's block of the weight, shared or not."""
        if self.kernel:
            return self.kernel.shape
        rows = self.weight_shape[0] // max(self.groups, 1) if self.weight_shape else 0
        return (rows, *self.weight_shape[1:])

    @property
    def origin(self) -> OriginKind:
        return self.site.origin.kind

    @property
    def shared(self) -> bool:
        return self.kernel is not None

    @property
    def reason(self) -> str | None:
        """Why it is not shared; for a shared site, why nothing had to be rewritten, or None."""
        return self.refusal.reason if self.refusal else self.note

    def to_json(self) -> dict[str, Any]:
        """The SITE object of the JSON contract."""
        return {
            "id": self.id,
            "op": self.op,
            "form": self.site.form,
            "groups": self.groups,
            "weight_shape": list(self.weight_shape),
            "kernel_shape": list(self.kernel_shape),
            "origin": self.origin,
            "origin_name": self.site.origin.name,
            "block_diagonal": bool(self.kernel and self.kernel.block_diagonal),
            "bias_shared": bool(self.kernel and self.kernel.bias_shared),
            "max_difference": self.kernel.max_difference if self.kernel else None,
            "output_change": self.kernel.output_change if self.kernel else None,
            "shared": self.shared,
            "code": self.refusal.code if self.refusal else None,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Proposal:
    """One way to compute a site: the lowering, its parameters, and how exact it is.

    Args:
        params: what ``Module`` of the lowering is built with, as sorted pairs; a list in them becomes a
            tuple, so that proposals that say the same are equal, wherever they come from.
        merged: one call computes the site together with its siblings (``resample/siblings.py``).

    Example:
        >>> proposal = Proposal("polyphase", (("phases", 16),), "finite", merged=True)
        >>> proposal.name
        'sibling_merge(lowering=polyphase, phases=16)'
        >>> Proposal.from_json(proposal.to_json()) == proposal
        True
    """

    lowering: str
    params: tuple[tuple[str, Any], ...]
    exactness: Exactness
    merged: bool = False

    def __post_init__(self) -> None:
        params = tuple(sorted((name, _frozen(value)) for name, value in self.params))
        object.__setattr__(self, "params", params)

    @property
    def name(self) -> str:
        """The lowering with its parameters, as in a report: ``polyphase(phases=16)``."""
        said = self.to_json()
        listed = ", ".join(f"{key}={value}" for key, value in said["params"].items())
        return f"{said['lowering']}({listed})" if listed else self.lowering

    def to_json(self) -> dict[str, Any]:
        """As in a plan: a merged lowering is a parameter of ``sibling_merge``."""
        lowering, params = self.lowering, self.params
        if self.merged:
            lowering, params = _MERGED, tuple(sorted((("lowering", lowering), *params)))
        return {"lowering": lowering, "params": dict(params), "exactness": self.exactness}

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> Proposal:
        """What :meth:`to_json` wrote.

        Raises:
            ValueError: there is no such exactness.
            KeyError, AttributeError: something is missing.
        """
        if said["exactness"] not in EXACTNESS:
            raise ValueError(f"exactness {said['exactness']!r}")
        lowering, params, merged = str(said["lowering"]), dict(said["params"].items()), False
        if lowering == _MERGED:
            lowering, merged = str(params.pop("lowering")), True
        return Proposal(lowering, tuple(params.items()), said["exactness"], merged)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
