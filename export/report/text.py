"""A result as lines that a person can read."""

from __future__ import annotations

from collections.abc import Sequence

from export.report.result import Report
from export.runtime.arrays import shape_text
from export.speed import Timing
from fx_passes.records import Finding
from fx_passes.timing.blocks import Ratio

# Of a convolution that has nothing to share.
MAY_BE_FASTER = "optimize may compute it faster"
EXACTNESS_TEXT = {
    "bitwise": "equal bits",
    "reordered": "rounds differently",
    "finite": "rounds differently, for finite inputs",
}


def verdict_text(finding: Finding, report: Report | None, *, named: bool) -> str:
    """What became of a site (or ``shared``) with its note; or ``not shared: reason``.

    Args:
        named: other sites are named. Otherwise they are counted.
    """
    if not finding.shared:
        return f"not shared: {finding.reason}"
    lowering = report.lowering_of(finding) if report else None
    if lowering and lowering != "expand":
        assert report is not None
        exact = EXACTNESS_TEXT[report.exactness_of(finding) or "bitwise"]
        outside = report.outside.get(report.whole.get(finding.id, finding.id), ())
        return f"{lowering}{_together(report.together_with(finding), named)} ({'; '.join([exact, *outside])})"
    notes = [finding.reason, report.kept.get(finding.id) if report else None]
    note = "; ".join(note for note in notes if note)
    if finding.groups == 1:  # there is nothing to share
        return note if report else f"{note}; {MAY_BE_FASTER}"
    word = lowering or "shared"
    return f"{word} ({note})" if note else word


def _together(others: Sequence[str], named: bool) -> str:
    if not others:
        return ""
    count = "1 other site" if len(others) == 1 else f"{len(others)} other sites"
    return f" together with {', '.join(others) if named else count}"


def summary_lines(report: Report) -> list[str]:
    """The result in a few plain lines."""
    check, lines = report.equivalence, notes_of(report)
    if check.cases:
        bits = "equal bits" if check.bitwise else "within bounds"
        lines.append(f"equivalence: passed, {bits} in {check.cases} cases ({check.reference})")
    lines += [f"  {case}: {', '.join(map(shape_text, shapes))}" for case, shapes in check.sizes.items()]
    lines += [f"  {note}" for note in check.notes]
    if report.speed is not None:
        lines.append(f"speed: {speed_text(report.speed)}")
    lines += [f"speed{_where(*one, report)}: {speed_text(one[1])}" for one in report.speed_at[1:]]
    kib = report.baseline_bytes / 1024, report.optimized_bytes / 1024
    lines.append(f"size: {kib[0]:.1f} KiB -> {kib[1]:.1f} KiB")
    lines.append(f"time: {sum(report.seconds.values()):.1f} s")
    return lines


def notes_of(report: Report) -> list[str]:
    """What the model needs of its open sizes, and why nothing was done where that is so."""
    notes = list(report.sizes)
    if not report.rewritten:
        what = "no convolution was rewritten" if report.shared_count else "nothing was shared"
        notes.append(f"{what}: the output is {_original(report)}")
    if why := report.plan.made.get("kept"):
        notes.append(f"every convolution is kept: {why}")
    if failed := report.plan.made.get("failed"):
        notes.append(f"nothing was lowered, as the candidates could not be timed: {failed}")
    return notes


def _where(shapes: Sequence[Sequence[int]], timing: Timing, report: Report) -> str:
    """What differs from the first measurement: the shapes of the inputs, the number of threads."""
    (first_shapes, first), *_ = report.speed_at
    at = f" at {', '.join(map(shape_text, shapes))}" if shapes != first_shapes else ""
    threads = f" with {counted(timing.threads, 'thread')}" if timing.threads != first.threads else ""
    return at + threads


def setting_text(shapes: Sequence[Sequence[int]], timing: Timing) -> str:
    """The shapes of the inputs and the number of threads of a measurement."""
    return f"{', '.join(map(shape_text, shapes))} with {counted(timing.threads, 'thread')}"


def _original(report: Report) -> str:
    original = "a copy of the file" if report.route == "onnx" else "the plain export"
    return f"{original}, with a stamp" if report.stamped else original


def speed_text(speed: Timing) -> str:
    """Both times, the ratio with its interval, the control, and the claim that they allow."""
    word = "faster" if speed.faster else "slower" if speed.slower else "no measurable difference"
    if speed.noisy and not (speed.faster or speed.slower):
        word = "too noisy to tell; measure longer (--seconds)"
    if not speed.enough:
        word = "no claim, as one block of sessions has no interval; give more --seconds"
    noisy = ", noisy" if speed.noisy and (speed.faster or speed.slower) else ""
    control = f"original against itself: {_ratio_text(speed.control, speed)}"
    blocks, runs = counted(len(speed.blocks), "block"), counted(speed.runs, "run")
    basis = f"{blocks} of fresh sessions, {runs}, {counted(speed.threads, 'thread')}"
    basis += "" if speed.target.is_usual else f", in {speed.target}"
    times = f"{speed.baseline_ms:.4g} ms -> {speed.optimized_ms:.4g} ms"
    return f"{times}, {_ratio_text(speed.ratio, speed)}: {word}{noisy} ({control}; {basis})"


def counted(count: int, what: str) -> str:
    """A number of things, as in ``1 block`` and ``2 blocks``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _ratio_text(ratio: Ratio, speed: Timing) -> str:
    low, high = ratio.ci95
    interval = f" [{low:.3f}, {high:.3f}]" if speed.enough else ""
    return f"{ratio.value:.3f}x{interval}"


def stage_lines(report: Report) -> list[str]:
    """How long each stage took."""
    return [f"  {seconds:6.1f} s {stage}" for stage, seconds in report.seconds.items()]
