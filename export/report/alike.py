"""Sites that are alike: the same convolution, and the same became of it. A person reads them as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from export.report.result import Report
from export.report.text import verdict_text
from export.runtime.arrays import shape_text
from fx_passes.records import ConvGeometry, Finding


@dataclass(frozen=True)
class Alike:
    """One or more sites that are alike, and what became of them."""

    findings: tuple[Finding, ...]
    verdict: str

    @property
    def example(self) -> Finding:
        return self.findings[0]

    @property
    def what(self) -> str:
        """The convolution in a few words."""
        return geometry_text(self.example.site.geometry)

    @property
    def groups(self) -> str:
        """The number of groups; the smallest and the largest, if they differ."""
        counts = sorted({finding.groups for finding in self.findings})
        return " to ".join(str(count or "?") for count in dict.fromkeys((counts[0], counts[-1])))

    @property
    def weight(self) -> str:
        """The shape of the weight, and what it repeats."""
        before = _one_of({shape_text(f.weight_shape) or "?" for f in self.findings})
        shared = all(f.shared and f.groups > 1 for f in self.findings)
        after = _one_of({shape_text(f.kernel_shape) for f in self.findings}) if shared else ""
        return f"{before} -> {after}" if after else before


def alike(findings: Sequence[Finding], report: Report | None, *, every: bool) -> list[Alike]:
    """The sites in the order of the model, those that are alike as one.

    Sites that are not shared are alike if they are refused for the same cause. Its numbers are those of the
    first.

    Args:
        report: what became of them; None: nothing was done.
        every: each site by itself.
    """
    found: dict[tuple[object, ...], list[Finding]] = {}
    for number, finding in enumerate(findings):
        geometry = finding.site.geometry
        cause = finding.refusal.code if finding.refusal else verdict_text(finding, report, named=False)
        shape = geometry.op, geometry.kernel, geometry.stride, geometry.dilation
        kernel = finding.kernel.shape if finding.kernel else None
        key = (number,) if every else (*shape, kernel, finding.groups > 1, cause)
        found.setdefault(key, []).append(finding)
    return [Alike(tuple(same), _verdict(same, report, every)) for same in found.values()]


def _verdict(same: Sequence[Finding], report: Report | None, every: bool) -> str:
    text = verdict_text(same[0], report, named=every)
    differ = {verdict_text(finding, report, named=every) for finding in same} != {text}
    return f"{text} (this is the first; the numbers of the others differ)" if differ else text


def geometry_text(geometry: ConvGeometry) -> str:
    """A convolution in a few words.

    Example:
        >>> one = (1, 1)
        >>> geometry_text(ConvGeometry("conv2d", 3, 3, 3, (5, 5), (2, 2), (0, 0), one, (0, 0)))
        'conv2d, 5x5 taps, stride 2'
    """
    said = [geometry.op]
    if geometry.kernel:
        said.append(f"{shape_text(geometry.kernel)} taps")
    for name, steps in (("stride", geometry.stride), ("dilation", geometry.dilation)):
        if any(step != 1 for step in steps):
            said.append(f"{name} {steps[0] if len(set(steps)) == 1 else shape_text(steps)}")
    return ", ".join(said)


def _one_of(texts: set[str]) -> str:
    return next(iter(texts)) if len(texts) == 1 else "several"
