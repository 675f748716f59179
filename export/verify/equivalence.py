"""Does the optimised file compute what the original does? Both in onnxruntime, against float64.

Every case is an input. On each, both files run at onnxruntime's default optimisation and with optimisation
off, and every output is compared (``compare.py`` says how). One session is open at a time: weights may be
large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime as ort

from export.runtime.session import Array, open_session, run
from export.verify.cases import make_cases
from export.verify.evidence import Equivalence, Evidence, Reference
from export.verify.signature import require_same_signature, signature_of
from fx_passes.capture.asked_sizes import OpenSizes
from fx_passes.errors import ExportError

__all__ = ["Equivalence", "check_equivalence"]


def check_equivalence(
    baseline: Path | str,
    optimized: Path | str,
    *,
    example_inputs: Sequence[Array] | None = None,
    reference: Reference | None = None,
    require_bitwise: bool = False,
    non_finite: bool = False,
    finite_only: bool = False,
    sizes: OpenSizes | None = None,
    progress: Callable[[str], None] | None = None,
) -> Equivalence:
    """Compare two ONNX files on inputs made for the purpose.

    Args:
        baseline, optimized: the files.
        example_inputs: arrays in the order of the inputs; they give open sizes, and the range of integers.
        reference: the original model in float64: arrays in, arrays out; None where it cannot be run.
        require_bitwise: ask for equal bits. Without it, equal bits pass too, and are reported.
        non_finite: add a case in which inputs hold Inf and NaN.
        finite_only: where the original overflows, Inf and NaN may reach more elements of the optimised file.
        sizes: what the model needs of its open sizes; without it, other sizes are guesses.
        progress: called with the name of each case, once for each optimisation level.

    Raises:
        ExportError: onnxruntime does not accept a file; or the original cannot run on its own inputs, or
            gives another output each time.
        NotEquivalentError: the files do not have the same inputs and outputs.
        UsageError: the example inputs do not fit the files.
    """
    files = Path(baseline), Path(optimized)
    evidence = Evidence(files[0], reference, require_bitwise, finite_only)
    for level in (True, False):
        session = open_session(files[0], optimized=level)
        if level:
            cases = list(make_cases(session, example_inputs, special=non_finite, sizes=sizes))
            signature = signature_of(session)
        originals: dict[str, list[Array] | None] = {}
        for case, inputs in cases:
            originals[case] = evidence.original(session, case, inputs, level)
        del session
        session = open_session(files[1], optimized=level)
        require_same_signature(signature, signature_of(session))
        found = {case: _run_optimized(session, x) for case, x in cases if originals[case] is not None}
        del session
        for case, inputs in cases:
            if (original := originals.pop(case)) is not None:
                if progress:
                    progress(case if level else f"{case}, optimisation off")
                evidence.compare(case, inputs, level, original, found.pop(case))
        evidence.noise = None  # it may hold a session
    return evidence.verdict(cases)


def _run_optimized(session: ort.InferenceSession, inputs: Sequence[Array]) -> list[Array] | str:
    try:
        return run(session, inputs)
    except ExportError as error:
        return f"the original runs, the optimised file does not: {error}"
