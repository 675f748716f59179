"""Lists of whole numbers on the command line."""

from __future__ import annotations

import click


def whole_numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...]:
    """The numbers in ``text``, from 1 on and separated by commas; the callback of an option."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        said = f"{text!r} is not a list of whole numbers from 1 on, such as 1,4"
        raise click.BadParameter(said, context, parameter)
    return tuple(map(int, parts))
