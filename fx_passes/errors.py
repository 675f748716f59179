"""Every error this project raises on purpose.

    FxPassesError
    ├── UsageError            an argument is wrong                      exit code 2
    ├── CheckpointError       a checkpoint does not repeat one kernel   exit code 3
    ├── LoadError             the model could not be loaded             exit code 3
    ├── CaptureError          no route gave a graph of the model        exit code 3
    ├── ExportError           the graph could not be written as ONNX    exit code 3
    ├── NotEquivalentError    onnxruntime found a difference            exit code 1
    └── NothingGainedError    ``--strict`` and nothing shared / faster  exit code 4

The message of each is one line that says what is wrong, where, and what to do.
"""

from __future__ import annotations


def one_line(error: BaseException, most: int = 300) -> str:
    """The message of any exception as one line of at most so many characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[:most]}..."


class FxPassesError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(FxPassesError):
    """An argument has the wrong form or value."""

    exit_code = 2


class CheckpointError(FxPassesError, RuntimeError):
    """A state_dict does not repeat one kernel; a RuntimeError, as what ``load_state_dict`` raises."""

    exit_code = 3


class LoadError(FxPassesError):
    """The model named on the command line could not be imported or read."""

    exit_code = 3


class CaptureError(FxPassesError):
    """Neither symbolic tracing nor ``torch.export`` produced a graph."""

    exit_code = 3


class ExportError(FxPassesError):
    """The graph could not be turned into a valid ONNX file."""

    exit_code = 3


class NotEquivalentError(FxPassesError):
    """The optimized model does not compute what the original does; ``site`` is the one that causes it, if
    any."""

    exit_code = 1

    def __init__(self, message: str, site: str | None = None) -> None:
        super().__init__(message)
        self.site = site


class NothingGainedError(FxPassesError):
    """``--strict`` was given and nothing was shared, or nothing got faster."""

    exit_code = 4
