"""The reference of a torch model: its file in float64 where that is the same, which is several times faster.

torch runs the model in float64 once, on the example. If that run takes no decision that rounding could turn
(a threshold, a rounding to integers), and the evaluation of the file agrees with it, the file is evaluated
from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from export.read_onnx.model import OnnxModel
from export.runtime.session import Array
from export.verify.file_reference import FileReference, file_reference
from export.verify.reference import Float64Reference
from export.verify.truth import Reference
from fx_passes.errors import one_line

log = logging.getLogger(__name__)

# The file holds constants that the exporter computed and rounded to float32, such as exp of a parameter. Both
# files have them. So far, of the largest number, its evaluation may be from that of torch.
_SAME = 2.0**-20
# The noise that onnxruntime takes moves an output up to 1.8 times as far as that of torch. Files that differ
# by more than half of it are compared with torch.
_SHARE = 0.5
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
        by_file = FileReference(model, _SHARE, decides=False)
        found = by_file(example)
    except Exception as error:  # noqa: BLE001 - the evaluator, on operators that it may not know
        log.info("the file has no evaluation in float64: %s", one_line(error))
        return reference
    # torch has to run once more for each case, with noise; for the file, onnxruntime does that.
    if by_file.seconds > _RUNS * reference.seconds:
        log.info("the file takes %.2f s in float64, torch %.2f s", by_file.seconds, reference.seconds)
        return reference
    same = all(map(_same, reference(example), found))
    log.info("the evaluation of the file %s that of torch", "agrees with" if same else "differs from")
    return by_file if same else reference


def _same(first: Array, second: Array) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    with np.errstate(invalid="ignore"):
        apart = np.abs(first - second) if first.dtype.kind == "f" else first != second
    scale = np.abs(first[np.isfinite(first)]).max(initial=0.0)
    return bool(np.all((apart <= _SAME * scale) | (first == second) | (np.isnan(first) & np.isnan(second))))
