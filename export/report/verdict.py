"""The result in one line: is the file equivalent, and is it faster?"""

from __future__ import annotations

from export.report.result import Report
from export.speed import Timing
from export.verify.equivalence import Equivalence


def equivalence_words(check: Equivalence) -> str:
    """Whether the file computes what the original computes, in how many cases, and against what."""
    if not check.passed:
        return f"Not equivalent: {check.mismatch or check.sensitive or 'a difference was found'}"
    if not check.cases:
        return f"Unchanged: {check.reference}"
    how = "equal bits" if check.bitwise else "within bounds"
    return f"Equivalent to the original: {how} in {check.cases} cases ({check.reference})"


def speed_words(report: Report) -> str:
    """How much faster the file is. Of several settings: the first, and how many of all are what."""
    timings = [timing for _, timing in report.speed_at] or ([report.speed] if report.speed else [])
    if not timings:
        return "speed not measured" + ("" if report.rewritten else ", as nothing was rewritten")
    said = _words(timings[0])
    if len(timings) == 1:
        return said
    faster, slower = (sum(getattr(t, word) for t in timings) for word in ("faster", "slower"))
    counts = {"faster": faster, "slower": slower, "without a claim": len(timings) - faster - slower}
    listed = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"{said} in the example; of {len(timings)} settings: {listed}"


def _words(timing: Timing) -> str:
    if not timing.enough:
        return f"{times_text(timing.speedup)} in one block, which allows no claim of speed"
    low, high = timing.ci95
    said, interval = times_text(timing.speedup), f"95 % interval {times_text(low)} to {times_text(high)}"
    if timing.faster:
        return f"{said} faster ({interval})"
    word = "slower" if timing.slower else "no measurable difference"
    return f"{word}: {said} ({interval})"


def times_text(ratio: float) -> str:
    """A ratio, with as many digits as matter.

    Example:
        >>> times_text(1.0042), times_text(0.98), times_text(12.345)
        ('1.004x', '0.980x', '12.3x')
    """
    return f"{ratio:.3f}x" if ratio < 2 else f"{ratio:.3g}x"


def headline(report: Report) -> str:
    """Both, in one line."""
    return f"{equivalence_words(report.equivalence)}; {speed_words(report)}"


def tone(report: Report) -> str:
    """How a page colours the line: ``good``, ``plain`` or ``bad``."""
    timings = [timing for _, timing in report.speed_at] or ([report.speed] if report.speed else [])
    if not report.equivalence.passed or any(timing.slower for timing in timings):
        return "bad"
    return "good" if timings and all(timing.faster for timing in timings) else "plain"


def size_words(report: Report) -> str:
    """Both sizes."""
    return f"{bytes_text(report.baseline_bytes)} → {bytes_text(report.optimized_bytes)}"


def bytes_text(count: float) -> str:
    """A number of bytes as a person reads it.

    Example:
        >>> bytes_text(1536), bytes_text(12)
        ('1.5 KiB', '12 B')
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
