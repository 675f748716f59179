"""The record of a shared convolution that can be lowered."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from fx_passes.records import Finding
from fx_passes.resample.axes import Resample


@dataclass(frozen=True)
class Site:
    """A shared convolution that can be lowered: what it computes, and its place in the graph.

    It holds names of nodes, no nodes. So it is valid in every copy of the graph.

    Args:
        finding: the verdict on the convolution.
        resample: what it computes, with the surroundings that were absorbed.
        kernel: (rows, columns, *taps), in the order of a correlation.
        bias: (rows,) or (groups * rows,), or None.
        key: equal sites have equal keys; what is chosen for one holds for all of them.
        conv: the name of the node of the convolution.
        source, end: the site reads the value of ``source`` and replaces all nodes from there to ``end``.
        siblings: how many sites of the graph, this one included, equal this one and do not depend on each
            other.
        shapes: of the input, if it has open sizes: those at which the lowering should be fast, as far as they
            are known. That of the example is the first.
        outside: why a Pad in front of it or a Slice behind it is not absorbed, a sentence for each.
        parts: of several sites in a row that are one site (``compose.py``), these sites. They stay sites by
            themselves; what is chosen is either the whole or the parts.
    """

    finding: Finding
    resample: Resample
    kernel: Tensor
    bias: Tensor | None
    key: str
    conv: str
    source: str
    end: str
    siblings: int = 1
    shapes: tuple[tuple[int, ...], ...] = ()
    outside: tuple[str, ...] = ()
    parts: tuple[Site, ...] = ()

    @property
    def id(self) -> str:
        """The id of its finding. Of several in a row, all of them."""
        return "+".join(self.ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all findings that it computes."""
        return tuple(part.finding.id for part in self.parts) or (self.finding.id,)

    @property
    def transposed(self) -> bool:
        """Whether the model has a transposed convolution here. An ordinary one may have zeros put in by the
        model."""
        return self.finding.site.geometry.transposed


def key_of(resample: Resample, kernel: Tensor, bias: Tensor | None) -> str:
    """What equal sites have in common, as a short text."""
    said = repr(resample).removesuffix(")") + ", siblings=1)"  # as plans have it
    said += f" {resample.factors}" if resample.factors else ""
    said += f" {resample.leading}" if resample.leading else ""
    said += " composed" if resample.composed else ""
    digest = hashlib.sha256(f"{said} {kernel.dtype} {tuple(kernel.shape)}".encode())
    for tensor in (kernel, bias):
        digest.update(b"" if tensor is None else tensor.double().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def digest(text: str) -> str:
    """A short text that stands for a long one."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def takes(values: Tensor, scale: float) -> bool:
    """Whether ``values`` times ``scale`` stay exact in their type: no overflow, and no bits lost to
    underflow."""
    scaled = (values.double() * scale).abs()
    limits = torch.finfo(values.dtype)
    return bool(((scaled == 0) | ((scaled >= limits.tiny) & (scaled <= limits.max))).all()) or scale == 1.0
