"""What docstrings and help promise: examples run, the public surface is what ``__all__`` says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

import export
import fx_passes
from export.cli import main

MODULES = sorted(
    module.name
    for package in (fx_passes, export)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    """Every example in a docstring runs and prints what it says."""
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_every_public_thing_has_a_docstring(name: str) -> None:
    """Modules, and the public functions and classes that they define."""
    module = importlib.import_module(name)
    assert module.__doc__
    for key, value in vars(module).items():
        if key.startswith("_") or getattr(value, "__module__", None) != name or not callable(value):
            continue
        assert getattr(value, "__doc__", None) or key == "match", f"{name}.{key}"


@pytest.mark.parametrize(
    ("package", "names"),
    [
        (
            fx_passes,
            "find_shared_kernels share_kernels unshare_kernels ShareKernels SharedKernelConv1d "
            "SharedKernelConv2d SharedKernelConv3d SharedKernelConvTranspose1d "
            "SharedKernelConvTranspose2d SharedKernelConvTranspose3d",
        ),
        (export, "to_onnx check_equivalence measure_speed optimize Report"),
    ],
)
def test_public_names(package: ModuleType, names: str) -> None:
    """The names of the contract are there, and ``__all__`` is sorted and true."""
    assert set(names.split()) <= set(package.__all__)
    assert package.__all__ == sorted(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)


def test_fx_passes_imports_neither_onnx_nor_export() -> None:
    """The direction of imports: export imports fx_passes, never the other way."""
    for file in Path(fx_passes.__path__[0]).rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (onnx|export)", file.read_text(), re.M), file


def test_help_of_every_command() -> None:
    """--help works and every option is explained."""
    for name, command in main.commands.items():
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.help
