"""A .pt2 file that torch saved opens as torch opens it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils import _pytree as pytree

from export.loading import load_model
from export.read_pt2 import read_pt2


class Everything(nn.Module):
    """This model has buffers of every kind, a constant, an expanded weight and ``no_grad``.

    It also has open sizes, nested inputs and keywords.
    """

    expanded: Tensor
    volatile: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, groups=4)
        self.tied = self.conv
        self.register_buffer("expanded", torch.rand(4, 1, 1, 1).expand(4, 1, 3, 3))
        self.register_buffer("volatile", torch.ones(3), persistent=False)
        self.constant = torch.ones(2)
        self.odd = nn.ParameterDict({"a-b c": nn.Parameter(torch.ones(2))})

    def forward(self, x: Tensor, more: dict[str, list[Tensor]], *, k: int = 3, name: str = "a") -> Any:
        with torch.no_grad():
            y = self.conv(x)
        rest = self.volatile.sum() + self.constant.sum() + torch.tensor([1.0, 2.0]).sum() * k
        rest = rest + torch.einsum("ij->i", more["a"][1]).sum() + self.odd["a-b c"].sum()
        half = x[:, :, : x.shape[2] // 2] * 2.5
        doubled = torch.vmap(lambda row: row * 2)(x)
        z = torch.nn.functional.conv2d(x, self.expanded, groups=4) + more["a"][0].sum()
        return {"y": y, "z": (z + rest, half, doubled, x.reshape(2, -1))}


def everything() -> torch.export.ExportedProgram:
    more = {"a": [torch.ones(2).expand(3, 2), torch.ones(2, 3, dtype=torch.bfloat16).T]}
    sizes = {
        "x": {0: Dim.AUTO, 2: Dim.DYNAMIC},
        "more": {"a": [None, None]},
        "k": None,
        "name": None,
    }
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    return torch.export.export(Everything(), (x, more), {"k": 5, "name": "b"}, dynamic_shapes=sizes)


# torch saves the expanded weight as it is, and warns about that.
@pytest.mark.filterwarnings("ignore:No complete tensor found:UserWarning:torch.export.pt2_archive")
def test_what_torch_saves_opens_as_torch_opens_it(tmp_path: Path) -> None:
    """Graph, weights, guards and inputs are the same. The outputs are the same, bit for bit."""
    file = tmp_path / "everything.pt2"
    torch.export.save(everything(), file, extra_files={"notes.txt": "x"})
    ours, theirs = read_pt2(file), torch.export.load(file)
    assert str(ours.graph) == str(theirs.graph)
    assert str(ours.graph_signature) == str(theirs.graph_signature)
    assert str(ours.range_constraints) == str(theirs.range_constraints)
    assert ours._guards_code == theirs._guards_code != []
    assert list(ours.state_dict) == list(theirs.state_dict)
    for name, tensor in theirs.state_dict.items():
        mine = ours.state_dict[name]
        assert torch.equal(mine, tensor)
        assert (type(mine), mine.stride(), mine.requires_grad) == (
            type(tensor),
            tensor.stride(),
            tensor.requires_grad,
        )
    assert pytree.tree_structure(ours.example_inputs) == pytree.tree_structure(theirs.example_inputs)
    for mine, tensor in zip(
        *map(pytree.tree_leaves, (ours.example_inputs, theirs.example_inputs)), strict=True
    ):
        if isinstance(tensor, Tensor):
            assert (mine.dtype, mine.stride()) == (tensor.dtype, tensor.stride())
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(tensor)) if mine is not tensor else True
    args, kwargs = theirs.example_inputs
    outputs = [pytree.tree_leaves(p.module()(*args, **kwargs)) for p in (ours, theirs)]
    assert all(torch.equal(first, second) for first, second in zip(*outputs, strict=True))


def test_tensors_that_share_memory_share_it_again(tmp_path: Path) -> None:
    """A weight that has two names lies in memory once."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    torch.export.save(torch.export.export(model, (torch.ones(1, 3),)), tmp_path / "m.pt2")
    first, second = read_pt2(tmp_path / "m.pt2").state_dict.values()
    assert first.data_ptr() == second.data_ptr()


def test_a_program_without_inputs_and_one_without_weights(tmp_path: Path) -> None:
    """A program opens that has no example inputs and no weights."""
    program = torch.export.export(nn.ReLU(), (torch.ones(2),))
    program.example_inputs = None
    torch.export.save(program, tmp_path / "m.pt2")
    assert load_model(str(tmp_path / "m.pt2")).example_inputs is None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts memory as Linux does")
def test_large_weights_are_held_once(tmp_path: Path) -> None:
    """Reading takes as much memory as the weights have, and not twice as much."""
    size = 256 << 20
    model = nn.Linear(size // 4096, 1024, bias=False)
    torch.export.save(torch.export.export(model, (torch.ones(1, size // 4096),)), tmp_path / "m.pt2")
    code = (
        "import sys; from pathlib import Path; from export.read_pt2 import read_pt2\n"
        "def peak(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) << 10\n"
        "before = peak(); p = read_pt2(Path(sys.argv[1])); print(peak() - before, len(p.state_dict))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.pt2"], capture_output=True, text=True, check=True
    )
    grown, weights = map(int, done.stdout.split())
    assert weights == 1
    assert size * 0.9 < grown < size * 1.5
