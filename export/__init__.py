"""Exports models with shared kernels as ONNX files, and verifies and measures them in onnxruntime."""

from export.runtime import idle_threads  # noqa: F401 - before anything that loads torch

# isort: split
from export.pipeline import optimize
from export.report.html import write_html
from export.report.markdown import write_markdown
from export.report.result import Report
from export.schemas import schema
from export.speed import Timing, measure_speed
from export.verify.equivalence import Equivalence, check_equivalence
from export.write_onnx.exporter import to_onnx

__all__ = [
    "Equivalence",
    "Report",
    "Timing",
    "check_equivalence",
    "measure_speed",
    "optimize",
    "schema",
    "to_onnx",
    "write_html",
    "write_markdown",
]
