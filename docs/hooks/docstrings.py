"""Docstrings as the code has them, in the form that mkdocstrings reads: an extension of griffe."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Readable(griffe.Extension):
    """Applies ``readable`` to each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)


def readable(docstring: str) -> str:
    """One parameter a line, examples as examples, and names of Python as code.

    >>> print(readable("Args:\\n    a, b: see :class:`~x.Y`."))
    Args:
        a: see `Y`.
        b: see `Y`.
    """
    docstring = re.sub(r"^Example:$", "Examples:", docstring, flags=re.M)
    docstring = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", docstring)
    return re.sub(r"^( {4})(\w+(?:, \w+)+): (.*(?:\n {5,}.*)*)", _each, docstring, flags=re.M)


def _each(found: re.Match[str]) -> str:
    return "\n".join(f"{found[1]}{name}: {found[3]}" for name in found[2].split(", "))
