"""The third stage: does the rewritten file compute the same as the original?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from export.job.blame import blame_site
from export.job.rewrite import Rewritten
from export.job.source import Source
from export.runtime.target import Target
from export.stages import Stages
from export.verify.equivalence import Equivalence, check_equivalence
from export.verify.site_check import SiteError, Wrong, check_sites
from fx_passes.errors import NotEquivalentError


@dataclass(frozen=True)
class Verified:
    """A rewrite whose file was compared with the original, and passed. ``errors`` are those of the lowered
    sites by themselves, by key."""

    rewritten: Rewritten
    equivalence: Equivalence
    errors: Mapping[str, SiteError] = field(default_factory=dict)


def verify(source: Source, rewritten: Rewritten, target: Target, stages: Stages) -> Verified:
    """Compare both files in onnxruntime, and in the target if that is another one. A given file whose graph
    did not change is equivalent.

    Raises:
        NotEquivalentError: they differ; it names the site that causes the difference.
    """
    if rewritten.unchanged and not source.exported:
        return Verified(rewritten, Equivalence(True, 0, True, "the same graph, byte for byte", ()))
    with stages.stage("checking equivalence"):
        wrong, notes, errors = check_sites(rewritten.path, rewritten.places, rewritten.replaced)
        equivalence = _compare_files(source, rewritten, target, notes, stages, quick=True)
        if source.exported and not equivalence.passed:  # torch knows best how far its rounding goes
            equivalence = _compare_files(source, rewritten, target, [], stages, quick=False)
        if wrong is not None or not equivalence.passed:
            raise _error(source, rewritten, wrong, equivalence)
    return Verified(rewritten, replace(equivalence, notes=(*notes, *equivalence.notes)), errors)


def _compare_files(
    source: Source, rewritten: Rewritten, target: Target, notes: list[str], stages: Stages, *, quick: bool
) -> Equivalence:
    used = rewritten.plan.exactness
    return check_equivalence(
        source.baseline,
        rewritten.path,
        example_inputs=source.arrays,
        reference=source.reference(notes, quick),
        require_bitwise=used == "bitwise",
        non_finite=used != "finite",
        finite_only=used == "finite",
        sizes=source.sizes,
        target=target,
        progress=lambda case: stages.step(f"checking: {case}"),
    )


def _error(
    source: Source, rewritten: Rewritten, wrong: Wrong | None, equivalence: Equivalence
) -> NotEquivalentError:
    """The error for files that differ."""
    if wrong is not None and equivalence.mismatch is None:  # lost on the way to the outputs
        said = f"site {wrong.site} by itself, on random numbers: {wrong.said}"
        return NotEquivalentError(f"not equivalent: {said}; caused by site {wrong.site}", wrong.site)
    if wrong is None and equivalence.sensitive is not None:
        return NotEquivalentError(f"not equivalent: {equivalence.sensitive}")
    assert equivalence.mismatch is not None
    site = wrong.site if wrong is not None else blame_site(source, rewritten, equivalence)
    cause = f"caused by site {site}" if site else "no single site causes it"
    return NotEquivalentError(f"not equivalent: {equivalence.mismatch}; {cause}", site)
