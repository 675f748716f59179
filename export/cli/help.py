"""What the help of a command and the shell say: examples, and files for MODEL."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def examples(*lines: str) -> str:
    """The end of a help text, with each line as it is.

    Example:
        >>> print(examples("fx-passes find model.onnx").replace(chr(8), "(b)"))
        (b)
        Examples:
          fx-passes find model.onnx
    """
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


class ModelName(click.ParamType):
    """MODEL. A shell completes files; what follows the colon is known only after the file was run."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Ask the shell for files."""
        return [CompletionItem(incomplete, type="file")]
