"""What a report for people shows besides the result: kernels, nodes, operators, initializers.

It is gathered only on request, while the files of the stages exist (``export/job/details.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from export.runtime.session import Array
from export.verify.site_check import SiteError


@dataclass(frozen=True)
class SiteDetail:
    """What is known of one site.

    Args:
        kernel: (rows, columns, *taps), in the order of a correlation. None: it has no one kernel, or its
            values are not known.
        before, after: the operators that compute it in the original and in the written file, in order. Empty:
            they are the same.
        error: by itself, against float64. None: it was not compared by itself.
    """

    kernel: Array | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    error: SiteError | None = None


@dataclass(frozen=True)
class Operators:
    """Milliseconds by operator in both files, or the reason why they are not known."""

    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    why_not: str | None = None


@dataclass(frozen=True)
class Details:
    """What was gathered.

    Args:
        sites: by the id of the finding.
        operators: the times of onnxruntime's profile.
        before, after: bytes of each initializer of both files.
    """

    sites: Mapping[str, SiteDetail] = field(default_factory=dict)
    operators: Operators = field(default_factory=Operators)
    before: Mapping[str, int] = field(default_factory=dict)
    after: Mapping[str, int] = field(default_factory=dict)
