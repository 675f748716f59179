"""The private parts of torch that write and read the files of torch.export."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest
import torch
from small_programs import program
from torch import Tensor, nn
from torch.export import ExportedProgram

from fx_passes.graph import torch_internals as internals


def test_operators_on_sizes() -> None:
    """They are names of plain functions on numbers. None of them can do more."""
    names = internals.operators_on_sizes()
    assert {"add", "mul", "floordiv", "eq", "ge", "sym_max", "sym_not"} <= names
    assert not names & {"system", "eval", "exec", "getattr", "setattr", "load", "open", "call"}


def described(exported: ExportedProgram) -> Any:
    """What ``torch.export.save`` writes of a program and of its weights."""
    file = io.BytesIO()
    torch.export.save(exported, file)
    archive = zipfile.ZipFile(file)
    read = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    weights = json.loads(read["data/weights/model_weights_config.json"])["config"]
    return json.loads(read["models/model.json"]), weights


# torch finds no whole tensor behind a transposed one, and stores what there is.
@pytest.mark.filterwarnings("ignore:No complete tensor found:UserWarning")
def test_stored_tensor() -> None:
    """It reads type, sizes, strides, offset, device and gradient of a weight."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 2, dtype=torch.float64).T)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    _, weights = described(program(Model(), torch.rand(1, 2, dtype=torch.float64)))
    found = internals.stored_tensor(weights["weight"]["tensor_meta"])
    device = torch.device("cpu")
    assert found == (torch.float64, [2, 3], [1, 2], 0, device, True)


def test_described_program() -> None:
    """A program is made from its description and its tensors. It computes what it computed."""
    exported, x = program(), torch.rand(3)
    text, _ = described(exported)
    again = internals.described_program(text, dict(exported.state_dict), {}, exported.example_inputs)
    assert torch.equal(again.module()(x, x), exported.module()(x, x))
