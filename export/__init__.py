"""Shared kernels on their way out: ONNX files, verified and measured in onnxruntime."""

from export.equivalence import Equivalence, check_equivalence
from export.measure import Timing, measure_speed
from export.onnx_export import to_onnx
from export.pipeline import optimize
from export.report import Report

__all__ = [
    "Equivalence",
    "Report",
    "Timing",
    "check_equivalence",
    "measure_speed",
    "optimize",
    "to_onnx",
]
