"""``--input`` of the command line -> the example inputs of an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click
from torch import Tensor

from export.loading import named_input


def file_inputs(inputs: Sequence[str], dynamic: Sequence[str] = ()) -> Mapping[str, Tensor] | list[Tensor]:
    """The inputs that are given, by name or in their order.

    Raises:
        click.BadParameter: some have names and others do not, or open sizes are asked for.
    """
    if dynamic:
        raise click.BadParameter("an ONNX file states which of its sizes are open", param_hint="--dynamic")
    given = [named_input(text) for text in inputs]
    named = {name: tensor for name, tensor in given if name is not None}
    if named and len(named) < len(given):
        raise click.BadParameter("give all inputs by name, or all in their order", param_hint="--input")
    return named or [tensor for _, tensor in given]
