"""How much a command says: ``--quiet``, ``--verbose``, ``--debug``, in front of its name or behind it.

--quiet     errors alone, and what --json - writes
            the result on standard output; the stages on standard error
--verbose   also the steps of each stage, one line each
--debug     also all logs, warnings and tracebacks, of torch too
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import click

from export.report.forecast import Expected
from export.report.progress import progress
from export.stages import Progress

QUIET, NORMAL, VERBOSE, DEBUG = range(4)
_OPTIONS: dict[int, tuple[tuple[str, ...], str]] = {
    QUIET: (("-q", "--quiet"), "Print errors alone, and what --json - writes."),
    VERBOSE: (("-v", "--verbose"), "Also log the steps of each stage to standard error."),
    DEBUG: (("--debug",), "Log everything, with warnings, tracebacks and the logs of torch."),
}
_KEY = f"{__name__}.log"
_OURS = ("export", "fx_passes")


def loudness_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the group and of every command. No function takes them: they are set when parsed."""
    for level, (names, text) in reversed(_OPTIONS.items()):
        callback = partial(_asked_for, level)
        option = click.option(*names, is_flag=True, expose_value=False, callback=callback, help=text)
        command = option(command)
    return command


def start(context: click.Context) -> None:
    """Log as the options of the group say, or as usual."""
    _log_of(context)


def printing(json_file: str | None = None) -> bool:
    """Whether the result is printed for a person."""
    return json_file != "-" and _log_of(click.get_current_context()).level != QUIET


def showing(expected: Sequence[Expected]) -> AbstractContextManager[Progress]:
    """Shows the stages of a command, as far as it may."""
    level = _log_of(click.get_current_context()).level
    return progress(expected, quiet=level == QUIET, lines=level > NORMAL)


def _asked_for(level: int, context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if not given:
        return
    log = _log_of(context)
    if QUIET in (level, log.level) and log.level not in (level, NORMAL):
        raise click.UsageError("--quiet contradicts --verbose and --debug", context)
    log.set(level if log.level == NORMAL else max(level, log.level))


def _log_of(context: click.Context) -> _Log:
    """The log of a run, which ends with the outermost context."""
    root = context.find_root()
    if _KEY not in root.meta:
        root.meta[_KEY] = root.with_resource(_logging())
    log: _Log = root.meta[_KEY]
    return log


@contextmanager
def _logging() -> Iterator[_Log]:
    """A log on standard error. Afterwards, logging and warnings are as they were."""
    names = (None, "torch", *_OURS)
    before = {name: logging.getLogger(name).level for name in names}
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            log = _Log(handler)
            log.set(NORMAL)
            yield log
    finally:
        logging.getLogger().removeHandler(handler)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


class _Log:
    """What is logged, and how loud a run is."""

    def __init__(self, handler: logging.Handler) -> None:
        self.handler, self.level = handler, NORMAL

    def set(self, level: int) -> None:
        """Log what belongs to a level."""
        self.level = level
        debug = level == DEBUG
        # Our message says what torch raises.
        logging.getLogger("torch").setLevel(logging.NOTSET if debug else logging.CRITICAL)
        for name in _OURS:
            logging.getLogger(name).setLevel(logging.INFO if level == VERBOSE else logging.NOTSET)
        self.handler.setLevel({VERBOSE: logging.INFO, DEBUG: logging.DEBUG}.get(level, logging.ERROR))
        if debug:
            logging.getLogger().setLevel(logging.DEBUG)
        self.handler.setFormatter(
            logging.Formatter("  %(message)s" if level == VERBOSE else logging.BASIC_FORMAT)
        )
        warnings.simplefilter("default" if debug else "ignore")
