"""onnxruntime's symbolic inference of shapes, without its side effects.

Where it finds no shape, ``SymbolicShapeInference.infer_shapes`` writes a file into the current folder, or
guesses: it takes two sizes that are added for equal, though one may be 1.
"""

from __future__ import annotations

import logging
import warnings

from onnx import ModelProto
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

_LARGEST = 2**31 - 1
_LOGGER = logging.getLogger("onnxruntime.tools.symbolic_shape_infer")


def infer_symbolically(proto: ModelProto) -> ModelProto:
    """A copy of ``proto`` with the types of its values.

    Raises:
        Exception: it raises whatever it comes upon, and ValueError where it finds no shape.
    """
    level, _LOGGER.level = _LOGGER.level, logging.CRITICAL
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _steps(proto)
    finally:
        _LOGGER.level = level


def _steps(proto: ModelProto) -> ModelProto:
    """The steps of ``infer_shapes``, of which the last one is left out."""
    run = SymbolicShapeInference(int_max=_LARGEST, auto_merge=False, guess_output_rank=False, verbose=0)
    SymbolicShapeInference._preprocess(run, proto)  # noqa: SLF001
    while run.run_:
        if not SymbolicShapeInference._infer_impl(run):  # noqa: SLF001
            raise ValueError("a shape cannot be inferred")
    SymbolicShapeInference._update_output_from_vi(run)  # noqa: SLF001
    return run.out_mp_  # type: ignore[no-any-return]
