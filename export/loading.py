"""The argument MODEL of the command line -> a model and its example inputs.

    path/to/file.py:attr     an attribute of a Python file
    package.module:attr      an attribute of an importable module
    model.pt2                a file that torch.export.save wrote

An ONNX file is read by ``export/read_onnx``, not here.

``attr`` is an ``nn.Module``, or a callable without arguments that returns a module or ``(module,
example_inputs)``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from export.dynamic import program_inputs
from export.read_pt2 import read_pt2
from fx_passes.errors import LoadError, UsageError, one_line


@dataclass(frozen=True)
class Loaded:
    """A model with its example inputs (a tuple of positional arguments), or None if none are known."""

    model: nn.Module | ExportedProgram
    example_inputs: tuple[Any, ...] | None


def load_model(spec: str, inputs: tuple[str, ...] = ()) -> Loaded:
    """Load the model that ``spec`` names. Modules are put in evaluation mode.

    Args:
        spec: as in the docstring of this module.
        inputs: sizes like ``1x3x224x224`` or ``4x16:int64``. They replace the example inputs of the model.

    Raises:
        UsageError: ``spec`` or ``inputs`` has none of the known forms.
        LoadError: the file, module or attribute is missing, or it raises.
    """
    if spec.endswith(".pt2"):
        loaded = _load_exported_program(Path(spec))
    elif spec.endswith(".onnx"):
        raise UsageError(f"{spec} is an ONNX file; here a torch model is expected")
    elif all(spec.rpartition(":")):
        loaded = _load_attribute(spec)
    else:
        raise UsageError(
            f"MODEL must be file.py:attr, package.module:attr, model.pt2 or model.onnx, got {spec!r}"
        )
    return Loaded(loaded.model, _arranged(loaded.model, inputs) or loaded.example_inputs)


def named_input(text: str) -> tuple[str | None, Tensor]:
    """An input of the command line, with the name that it may have: ``x=1x3x8x8``.

    Example:
        >>> name, tensor = named_input("x=1x3x8x8")
        >>> name, tensor.shape
        ('x', torch.Size([1, 3, 8, 8]))
    """
    name, equals, sizes = text.rpartition("=")
    return (name if equals else None), parse_input(sizes)


def _arranged(model: nn.Module | ExportedProgram, inputs: tuple[str, ...]) -> tuple[Tensor, ...] | None:
    """The inputs of the command line in the order of the arguments of ``model``. None: there are none."""
    given = [named_input(text) for text in inputs]
    if all(name is None for name, _ in given):
        return tuple(tensor for _, tensor in given) or None
    if isinstance(model, ExportedProgram):
        raise UsageError("--input by name: an exported program takes its inputs in their order")
    taken = inspect.signature(model.forward).parameters.values()
    parameters = [one.name for one in taken if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    by_name: dict[str, Tensor] = {}
    for place, (name, tensor) in enumerate(given):
        key = name if name is not None else parameters[place] if place < len(parameters) else "?"
        if key not in parameters:
            raise UsageError(f"--input: the model has no argument {key!r}; it has {', '.join(parameters)}")
        by_name[key] = tensor
    missing = [name for name in parameters[: len(by_name)] if name not in by_name]
    if missing:
        raise UsageError(f"--input: argument {missing[0]!r} is missing")
    return tuple(by_name[name] for name in parameters[: len(by_name)])


def parse_input(text: str) -> Tensor:
    """A random tensor with the sizes and dtype (default float32) in ``text``.

    Example:
        >>> parse_input("1x3x8x8").shape, parse_input("2x5:int64").dtype
        (torch.Size([1, 3, 8, 8]), torch.int64)
    """
    sizes, dtype = parse_sizes(text, "--input")
    generator = torch.Generator().manual_seed(0)
    try:
        if dtype.is_floating_point:
            return torch.rand(sizes, generator=generator).to(dtype)
        return torch.randint(0, 2, sizes, generator=generator).to(dtype)
    except (RuntimeError, TypeError) as error:  # too large, or a dtype without numbers
        raise UsageError(f"--input {text}: {_said(error)}") from error


def parse_sizes(text: str, option: str) -> tuple[list[int], torch.dtype]:
    """The sizes and the dtype (default float32) in ``text``, which is an argument of ``option``.

    Raises:
        UsageError: ``text`` has another form.
    """
    match = re.fullmatch(r"(\d+(?:x\d+)*)(?::(\w+))?", text)
    dtype = getattr(torch, match[2] or "float32", None) if match else None
    if match is None or not isinstance(dtype, torch.dtype):
        raise UsageError(f"{option} takes sizes like 1x3x224x224 or 4x16:int64, got {text!r}")
    return [int(size) for size in match[1].split("x")], dtype


def _load_exported_program(path: Path) -> Loaded:
    if not path.is_file():
        raise LoadError(f"no such file: {path}")
    try:
        program = read_pt2(path)
    except LoadError:
        raise
    except Exception as error:  # torch on a file that is wrong in a way that nobody foresaw
        raise LoadError(f"{path} is not a torch.export archive: {_said(error)}") from error
    return Loaded(program, program_inputs(program))


def import_source(spec: str) -> ModuleType:
    """The module with the attribute that ``spec`` names.

    Raises:
        LoadError: it is missing, or it raises.
    """
    where = spec.rpartition(":")[0]
    return _import_file(Path(where)) if where.endswith(".py") else _import_module(where)


def _load_attribute(spec: str) -> Loaded:
    where, _, name = spec.rpartition(":")
    module = import_source(spec)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise LoadError(f"{where} has no attribute {name!r}{_suggestion(value, part)}")
        value = getattr(value, part)
    if not isinstance(value, nn.Module | ExportedProgram) and callable(value):
        try:
            value = value()
        except (Exception, SystemExit) as error:  # the user's own code
            raise LoadError(f"calling {spec} raised {type(error).__name__}: {_said(error)}") from error
    return _unpack(value, spec)


def _unpack(value: Any, spec: str) -> Loaded:
    inputs = None
    if isinstance(value, tuple) and len(value) == 2:
        value, inputs = value
        if isinstance(inputs, Tensor):
            inputs = (inputs,)
        if not isinstance(inputs, tuple | list):
            raise LoadError(f"{spec}: example_inputs must be a tuple, got {type(inputs).__name__}")
        inputs = tuple(inputs)
    if isinstance(value, nn.Module):
        _evaluation_mode(value)
    elif not isinstance(value, ExportedProgram):
        kind = type(value).__name__
        raise LoadError(f"{spec} is a {kind}; expected an nn.Module, or (module, example_inputs)")
    return Loaded(value, inputs)


def _evaluation_mode(model: nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError:
        pass  # the module of an exported program has its mode built in


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise LoadError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As python does for a script: its folder comes first, so that it can import the files beside it.
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's own code
        raise LoadError(f"importing {path} raised {type(error).__name__}: {_said(error)}") from error
    return module


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the user's own code, or no such module
        raise LoadError(f"importing {name} raised {type(error).__name__}: {_said(error)}") from error


def _suggestion(owner: Any, missing: str) -> str:
    close = difflib.get_close_matches(missing, [n for n in dir(owner) if not n.startswith("_")], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _said(error: BaseException) -> str:
    return one_line(error) or "no message"
