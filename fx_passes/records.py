"""Frozen records that travel between the stages. They hold names, never live nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Form = Literal["module", "functional", "aten", "onnx"]
OriginKind = Literal["parameter", "buffer", "computed"]
Exactness = Literal["bitwise", "reordered", "finite"]
# The most exact first: the same bits; other rounding; other rounding, and an Inf or NaN in the input may
# reach more outputs.
EXACTNESS: tuple[Exactness, ...] = ("bitwise", "reordered", "finite")
# The name of a merged lowering in plans and reports.
_MERGED = "sibling_merge"


@dataclass(frozen=True)
class ConvGeometry:
    """The geometry of a convolution, in the terms of ``torch.nn.Conv2d`` and ``ConvTranspose2d``.

    ``padding`` is a tuple, or the string ``"same"`` or ``"valid"`` if the model has that.
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
    """Where the weight of a site comes from: its kind, its qualified name, and who else uses it."""

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
        groups: how many groups repeat it. For a block-diagonal dense convolution: how many blocks.
        shape: (out/groups, in/groups, *kernel). Transposed: (in/groups, out/groups, *kernel), which is the
            layout of one group in ``torch.nn.ConvTranspose2d``.
        block_diagonal: the model has a dense convolution (groups = 1) that is zero outside the blocks.
        proof: ``"values"``: the numbers were compared. ``"construction"``: the graph itself repeats one
            kernel (``expand``, ``repeat``, ...), whatever its values are.
        max_difference: the largest distance of a repeat from the kernel that is kept; 0.0 if bitwise equal.
        bias_shared: the bias repeats over the groups, too.
        output_change: how far sharing may move the output, for inputs of magnitude 1.
        scaled: the groups repeat the kernel up to a factor for each of them. Such a weight is not cut; a
            lowering computes the kernel and multiplies behind it.
    """

    groups: int
    shape: tuple[int, ...]
    block_diagonal: bool = False
    proof: Literal["values", "construction"] = "values"
    max_difference: float = 0.0
    bias_shared: bool = False
    output_change: float = 0.0
    scaled: bool = False


@dataclass(frozen=True)
class Refusal:
    """Why something is not done to a site.

    Args:
        site: the id of the site; empty if the refusing part does not know it.
        stage: which part refuses. Finding: ``"site"``, ``"weight"``, ``"repeats"``. Sharing: ``"share"``. A
            way to train: ``"formulation"``. All lowerings: ``"lower"``. One lowering: ``"lowering"``.
        code: names the cause. Codes are stable; the text of a reason may change.
        reason: the cause in words, with the numbers.
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
        """Why the site is not shared. For a shared site: why nothing had to be rewritten, or None."""
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
            "scaled": bool(self.kernel and self.kernel.scaled),
            "shared": self.shared,
            "code": self.refusal.code if self.refusal else None,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Proposal:
    """One way to compute a site: the lowering, its parameters, and its exactness.

    Args:
        lowering: the name of the lowering.
        params: the parameters of its ``Module``, as sorted pairs. Lists become tuples, so that equal
            proposals are equal wherever they come from.
        exactness: how exact it is.
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
        """As in a plan. There, a merged lowering is a parameter of ``sibling_merge``."""
        lowering, params = self.lowering, self.params
        if self.merged:
            lowering, params = _MERGED, tuple(sorted((("lowering", lowering), *params)))
        return {"lowering": lowering, "params": dict(params), "exactness": self.exactness}

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> Proposal:
        """The proposal that :meth:`to_json` wrote.

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
