"""The reference of a torch model: its file in float64 where that is the same, which is several times faster.

torch runs the model in float64 once, on the example. If that run takes no decision that rounding could turn
(a threshold, a rounding to integers), and the evaluation of the file agrees with it, the file is evaluated
from then on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from export.read_onnx.model import OnnxModel
from export.runtime.session import Array
from export.verify.file_reference import evaluator_of, file_reference
from export.verify.reference import Float64Reference
from export.verify.truth import Reference
from fx_passes.errors import one_line

log = logging.getLogger(__name__)

# The file holds constants that the exporter computed and rounded to float32, such as exp of a parameter. Both
# files have them. So far, of the largest number, its evaluation may be from that of torch.
_SAME = 2.0**-20
# So much slower than one run of torch an evaluation may be.
_RUNS = 3.0


def quick_reference(
    reference: Float64Reference | None, model: OnnxModel, example: Sequence[Array], notes: list[str]
) -> Reference | None:
    """``reference``, or an evaluation of the file that gives the same.

    Args:
        reference: the torch model in float64; None: torch cannot run it so.
        model: its file.
        example: the inputs.
        notes: receives the reason if there is none.
    """
    if reference is None:
        return file_reference(model, example, notes)
    if reference.takes_decisions(example):
        return reference
    try:
        evaluate = evaluator_of(model)
        start = time.perf_counter()
        found = evaluate(example)
        seconds = time.perf_counter() - start
    except Exception as error:  # noqa: BLE001 - the evaluator, on operators that it may not know
        log.info("the file has no evaluation in float64: %s", one_line(error))
        return reference
    # torch has to run once more for each case, with noise; for the file, onnxruntime does that.
    if seconds > _RUNS * reference.seconds:
        log.info("the evaluation of the file takes %.2f s, that of torch %.2f s", seconds, reference.seconds)
        return reference
    same = all(map(_same, reference(example), found))
    log.info("the evaluation of the file %s that of torch", "agrees with" if same else "differs from")
    return evaluate if same else reference


def _same(first: Array, second: Array) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    with np.errstate(invalid="ignore"):
        apart = np.abs(first - second) if first.dtype.kind == "f" else first != second
    scale = np.abs(first[np.isfinite(first)]).max(initial=0.0)
    return bool(np.all((apart <= _SAME * scale) | (first == second) | (np.isnan(first) & np.isnan(second))))
