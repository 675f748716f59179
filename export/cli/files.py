"""The files that a command reads and writes: refused before the work is done, not after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click


def writable(context: click.Context, parameter: click.Parameter, file: str | None) -> str | None:
    """Refuse a file that cannot be written; the callback of an option."""
    if file and file != "-" and (Path(file).is_dir() or not Path(file).absolute().parent.is_dir()):
        raise click.BadParameter(f"cannot write {file}", context, parameter)
    return file


def file_of(model: str) -> Path:
    """The file that MODEL names."""
    if model.endswith((".pt2", ".onnx")):
        return Path(model)
    where = model.rpartition(":")[0]
    return Path(where if where.endswith(".py") else where.replace(".", "/") + ".py")


def require_apart(results: Mapping[str, str | None], inputs: Sequence[Path | None]) -> None:
    """Refuse to write two results to one file, or a result over what is read."""
    taken = {file.resolve(): "what is read" for file in inputs if file}
    for option, file in results.items():
        if file and file != "-":
            if other := taken.get(Path(file).resolve()):
                raise click.BadParameter(f"{file} would overwrite {other}", param_hint=option)
            taken[Path(file).resolve()] = f"what {option} writes"
