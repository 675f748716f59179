"""What ``torch.export.save`` wrote, opened without running anything that the file brings.

``torch.export.load`` is for files that one trusts: it unpickles, loads libraries, evaluates texts as Python
and calls whatever function the file names. Here the directory of the zip file is checked first
(``archive.py``), then every text that torch reads (``program.py``, ``expressions.py``); weights are bytes
(``tensors.py``), and example inputs plain values (``values.py``). What needs more is refused. From what is
left, torch builds the program.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.pt2_archive.constants import ARCHIVE_VERSION_VALUE

from export.read_pt2.archive import Archive
from export.read_pt2.program import read_program
from export.read_pt2.tensors import strided
from export.read_pt2.values import read_values
from fx_passes.errors import LoadError
from fx_passes.graph.torch_internals import StoredTensor, described_program, stored_tensor

__all__ = ["read_pt2"]


def read_pt2(path: Path) -> ExportedProgram:
    """The program in ``path``, with its example inputs.

    Raises:
        LoadError: the file is none that this torch saved, or holds more than tensors and plain values.
    """
    with path.open("rb") as file:
        archive = Archive(file, str(path))
        _require_known(archive)
        program = read_program(archive.text("models/model.json"), str(path))
        weights = _tensors(archive, "weights", r"weight_\d+")
        constants = _tensors(archive, "constants", r"tensor_\d+")
        sample = archive.bytes_of("data/sample_inputs/model.pt")
    inputs = read_values(sample, f"{path} (its example inputs)") if sample else None
    if inputs is not None and not _are_inputs(inputs):
        raise LoadError(f"{path}: its example inputs are no arguments and keywords")
    return described_program(program, weights, constants, inputs)


def _require_known(archive: Archive) -> None:
    """Refuse what torch would load as a library, and formats that are not the one of this torch."""
    names = archive.names()
    if "archive_format" not in names or archive.text("archive_format") != "pt2":
        raise LoadError(f"{archive.what} is not what this version of torch saves; save the model anew")
    if (version := archive.text("archive_version")) != ARCHIVE_VERSION_VALUE:
        raise LoadError(f"{archive.what} has version {version[:20]!r}, expected {ARCHIVE_VERSION_VALUE!r}")
    if compiled := [name for name in names if name.startswith("data/aotinductor/")]:
        raise LoadError(f"{archive.what} holds compiled code ({compiled[0][:80]}), which is not opened")
    if "byteorder" in names and archive.text("byteorder") != sys.byteorder:
        raise LoadError(f"{archive.what} was saved on a machine with another order of bytes")


def _tensors(archive: Archive, kind: str, pattern: str) -> dict[str, Tensor]:
    """All tensors of a ``kind``; those that share their memory in the file share it again."""
    if f"data/{kind}/model.pt" in archive.names():
        raise LoadError(f"{archive.what} holds its {kind} as a pickle, as old versions of torch saved it")
    config = json.loads(archive.text(f"data/{kind}/model_{kind}_config.json"))["config"]
    stored: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for name, entry in config.items():
        member = entry["path_name"]
        if entry["use_pickle"] or not re.fullmatch(pattern, member):
            raise LoadError(f"{archive.what}: `{name[:80]}` is a pickled object, which is not opened")
        if member not in stored:
            stored[member] = archive.tensor(f"data/{kind}/{member}")
        meta = stored_tensor(entry["tensor_meta"])
        tensors[name] = _tensor(
            stored[member], meta, bool(entry["is_param"]), f"{archive.what}: `{name[:80]}`"
        )
    return tensors


def _tensor(stored: Tensor, meta: StoredTensor, parameter: bool, what: str) -> Tensor:
    tensor = strided(stored, meta.dtype, meta.sizes, meta.strides, meta.offset, what).to(meta.device)
    if parameter:
        return nn.Parameter(tensor, requires_grad=meta.requires_grad)
    return tensor


def _are_inputs(inputs: Any) -> bool:
    two = isinstance(inputs, tuple) and len(inputs) == 2
    return two and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict)
