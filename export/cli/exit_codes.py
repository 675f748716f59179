"""How a command ends: an error, a signal or an unexpected exception becomes one line and an exit code."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

import click

from fx_passes.errors import FxPassesError, one_line

log = logging.getLogger(__name__)

# How a shell, a scheduler or a closed terminal ends a command.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _Ended(BaseException):
    """SIGTERM or SIGHUP as an exception, so that unfinished files are removed."""


def _end(number: int, frame: Any) -> None:
    raise _Ended(number)


class ExitCodes(click.Group):
    """Commands whose errors are one line each on standard error."""

    def invoke(self, ctx: click.Context) -> Any:
        # Only the main thread can have signal handlers. In another thread, the caller has its own.
        signals = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, _end) for number in signals}
        try:
            return super().invoke(ctx)
        except _Ended as error:
            click.echo("fx-passes: ended by a signal; unfinished files were removed", err=True)
            ctx.exit(128 + error.args[0])
        except FxPassesError as error:
            log.debug("where it was raised", exc_info=True)
            click.echo(f"fx-passes: {error}", err=True)
            ctx.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("fx-passes: interrupted; unfinished files were removed", err=True)
            ctx.exit(130)
        except (Exception, SystemExit) as error:  # SystemExit is the model's, click has its own
            # Exit code 1 means "not equivalent". An unexpected error must not look like it.
            log.debug("unexpected", exc_info=True)
            said = f"unexpected {type(error).__name__}: {one_line(error)} (--debug shows where)"
            click.echo(f"fx-passes: {said}", err=True)
            ctx.exit(3)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
