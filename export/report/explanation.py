"""Why a convolution is rewritten or not, as data, as JSON and as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from export.report.alike import geometry_text
from export.report.text import EXACTNESS_TEXT
from export.runtime.arrays import shape_text
from fx_passes.records import Exactness, Finding, Refusal

EXPLAIN_SCHEMA = "fx-passes/explain/1"


@dataclass(frozen=True)
class Way:
    """One lowering of a site, proposed or refused.

    Args:
        lowering: its name; ``name`` has the parameters, too.
        does: what it computes.
        refusal: why it is none for this site. None: it is proposed.
        exactness: how exact it is.
        merged: it computes all siblings by one call.
        work: its counted work as a part of that of the original, at the worst. None: it is not counted.
        ms: milliseconds here. None: it was not timed.
    """

    lowering: str
    name: str
    does: str
    refusal: Refusal | None = None
    exactness: Exactness | None = None
    merged: bool = False
    work: float | None = None
    ms: float | None = None

    @property
    def parameters(self) -> str:
        """The parameters alone, as ``name`` has them."""
        given = self.name.partition("(")[2].removesuffix(")")
        return ", ".join(one for one in given.split(", ") if not one.startswith("lowering=")) if given else ""

    def to_json(self) -> dict[str, Any]:
        """This way in the JSON."""
        return {
            "lowering": self.lowering,
            "name": self.name,
            "does": self.does,
            "proposed": self.refusal is None,
            "code": self.refusal.code if self.refusal else None,
            "reason": self.refusal.reason if self.refusal else None,
            "exactness": self.exactness,
            "merged": self.merged,
            "work": self.work,
            "ms": self.ms,
        }


@dataclass(frozen=True)
class Explanation:
    """What is known of one site.

    Args:
        id: of the site; of several in a row, all of them.
        findings: on its convolutions.
        around: in sentences, what it computes with its surroundings, and what stays outside.
        refusal: why no lowering is tried. None: they are.
        ways: the lowerings.
        chosen: the name of the one that the static rules choose. None: they keep the convolution.
        rules: in a sentence, why.
        original_ms: milliseconds of the original here. None: it was not timed.
    """

    model: str
    id: str
    findings: tuple[Finding, ...]
    around: tuple[str, ...] = ()
    refusal: Refusal | None = None
    ways: tuple[Way, ...] = ()
    chosen: str | None = None
    rules: str | None = None
    original_ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The object of the JSON contract for ``explain``."""
        return {
            "schema": EXPLAIN_SCHEMA,
            "model": self.model,
            "id": self.id,
            "sites": [finding.to_json() for finding in self.findings],
            "around": list(self.around),
            "code": self.refusal.code if self.refusal else None,
            "reason": self.refusal.reason if self.refusal else None,
            "lowerings": [way.to_json() for way in self.ways],
            "static": {"lowering": self.chosen, "reason": self.rules},
            "original_ms": self.original_ms,
            "text": [text for _, text in sentences(self)],
        }


def sentences(explained: Explanation) -> list[tuple[int, str]]:
    """The explanation as paragraphs, each with its depth."""
    lines = [(0, f"{explained.id}: {_what(explained.findings)}")]
    for finding in explained.findings:
        where = f"{finding.id}: " if len(explained.findings) > 1 else ""
        lines += [(1, where + text) for text in _finding(finding)]
    lines += [(1, text) for text in explained.around]
    if explained.refusal is not None:
        lines.append((1, f"No lowering is tried: {explained.refusal.reason}."))
    possible = [way for way in explained.ways if way.refusal is None]
    if possible:
        lines.append((0, "What can be done:"))
        if explained.original_ms is not None:
            lines.append((1, f"original: {explained.original_ms:.4g} ms by itself."))
        lines += [(1, text) for text in _possible(possible, explained.original_ms)]
    refused = [way for way in explained.ways if way.refusal is not None]
    if refused:
        lines.append((0, "What cannot:"))
        lines += [(1, f"{way.name}: {way.refusal.reason}.") for way in refused if way.refusal]
    if explained.rules:
        lines += [(0, "What is chosen:"), (1, explained.rules), (1, _tuned(explained))]
    return lines


def _what(findings: Sequence[Finding]) -> str:
    said = " and then ".join(geometry_text(finding.site.geometry) for finding in findings)
    return said + ("" if len(findings) == 1 else ", as one")


def _finding(finding: Finding) -> list[str]:
    """What the weight is, and what its groups have in common."""
    site, kernel = finding.site, finding.kernel
    name = f" `{site.origin.name}`" if site.origin.name else ""
    kind = {"parameter": "the parameter", "buffer": "the buffer", "computed": "computed"}[site.origin.kind]
    count = f"{finding.groups} group{'' if finding.groups == 1 else 's'}"
    shape = shape_text(finding.weight_shape) or "of an unknown shape"
    lines = [f"It has {count}. Its weight, {shape}, is {kind}{name}."]
    if kernel is None:
        return [*lines, f"It is not shared: {finding.reason}."]
    if kernel.groups == 1:
        return [*lines, f"There is nothing to share: {finding.reason}."]
    repeat = "the numbers are equal" if kernel.proof == "values" else "the graph itself repeats it"
    repeat = "up to a factor for each group" if kernel.scaled else repeat
    lines.append(f"Every group repeats one kernel of {shape_text(kernel.shape)}: {repeat}.")
    if kernel.block_diagonal:
        lines.append("The model has a dense convolution. Outside of these groups its weight is zero.")
    if finding.note:
        lines.append(f"Note: {finding.note}.")
    return lines


def _possible(ways: Sequence[Way], original_ms: float | None) -> list[str]:
    """A paragraph for each lowering, with all its parameters. The quickest, or that of least work, is the
    first."""
    by_lowering: dict[tuple[str, bool], list[Way]] = {}
    for way in sorted(ways, key=lambda way: (way.ms or 0.0, way.work is None, way.work or 0.0)):
        by_lowering.setdefault((way.lowering, way.merged), []).append(way)
    paragraphs = []
    for (lowering, merged), same in by_lowering.items():
        exactness = same[0].exactness
        assert exactness is not None
        together = " All siblings are computed by one call." if merged else ""
        costs = "; ".join(_cost(way, original_ms) for way in same)
        exact = EXACTNESS_TEXT[exactness].capitalize()
        paragraphs.append(f"{lowering}: {same[0].does}{together} {exact}. {costs[:1].upper()}{costs[1:]}.")
    return paragraphs


def _cost(way: Way, original_ms: float | None) -> str:
    """What one choice of parameters costs."""
    said = "work not counted by the rules"
    if way.work is not None:
        said = f"about {way.work:.2g} of the work of the original"
    if way.ms is not None and original_ms:
        said += f", timed here {way.ms:.4g} ms ({way.ms / original_ms:.2g} of the original)"
    return f"with {way.parameters}: {said}" if way.parameters else said


def _tuned(explained: Explanation) -> str:
    said = "`optimize` times all of them here, and keeps one only where the whole graph is faster with it."
    return said if explained.original_ms is not None else f"{said} --time times them by themselves."
