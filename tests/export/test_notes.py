"""What a written file tells of itself: names, what was done, and nothing of the machine."""

from __future__ import annotations

import json
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from command_line import run
from onnx import ModelProto

import fx_passes
from export.write_onnx.exporter import to_onnx
from export.write_onnx.stamp import SITES, VERSION, stamp
from export.write_onnx.traces import remove_traces

STATIC = ("--lowering", "static", "--seconds", 0)
MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.wide = nn.Conv2d(3, 3, 9, padding=4, groups=3)
        self.wide.weight.data = (torch.rand(1, 1, 9, 1) * torch.rand(1, 1, 1, 9)).repeat(3, 1, 1, 1)
        self.small = nn.Conv2d(3, 3, 3, groups=3)
        self.small.weight.data = torch.rand(1, 1, 3, 3).repeat(3, 1, 1, 1)
        self.mixed = nn.Conv2d(3, 3, 3, groups=3)

    def forward(self, x):
        return self.mixed(self.small(self.wide(x).relu()))

def net():
    return Net(), (torch.rand(1, 3, 64, 64),)

def dense():
    return nn.Sequential(nn.Conv2d(3, 3, 3)), (torch.rand(1, 3, 8, 8),)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "network_of_the_user.py"
    file.write_text(MODEL)
    return file


def noted(file: Path) -> dict[str, str]:
    """The notes on the whole model."""
    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


def optimized(given: str, out: Path, *options: object) -> bytes:
    result = run("optimize", given, "-o", out, *STATIC, *options)
    assert result.exit_code == 0, result.output
    return out.read_bytes()


@pytest.mark.slow
def test_a_rewritten_file_says_what_was_done(model: Path, tmp_path: Path) -> None:
    """Each rewritten site is there, as in the report. The same plan gives the same bytes."""
    out, again, plan, said = (tmp_path / name for name in ("a.onnx", "b.onnx", "plan.json", "said.json"))
    made = optimized(f"{model}:net", out, "--save-plan", plan, "--json", said)
    sites = json.loads(noted(out)[SITES])
    listed = json.loads(said.read_text())["sites"]
    assert sites == [
        {key: s[key] for key in ("id", "lowering", "exactness")} for s in listed if s["lowering"]
    ]
    assert [site["id"] for site in sites] == ["wide/conv2d", "small/conv2d_1"]
    assert sites[1] == {"id": "small/conv2d_1", "lowering": "expand", "exactness": "bitwise"}
    assert noted(out)[VERSION] == fx_passes.__version__
    assert optimized(f"{model}:net", again, "--plan", plan) == made


@pytest.mark.slow
def test_new_nodes_have_names_that_people_recognise(model: Path, tmp_path: Path) -> None:
    """Each begins with its site, and ends with what it does. Nothing has a name that the exporter counts."""
    optimized(f"{model}:net", tmp_path / "a.onnx")
    graph = onnx.load(tmp_path / "a.onnx").graph
    names = [node.name for node in graph.node if node.name.startswith("fx_passes/")]
    assert {"fx_passes/wide/conv2d/conv_rows", "fx_passes/wide/conv2d/conv_columns"} <= set(names)
    assert "fx_passes/small/conv2d_1/bias" in names
    stored = [tensor.name for tensor in graph.initializer if tensor.name.startswith("fx_passes/")]
    assert {"fx_passes/wide/conv2d/rows", "fx_passes/wide/conv2d/columns"} <= set(stored)
    counted = [n for n in [*names, *stored] if any(part in n for part in ("node_", "val_", "entries."))]
    assert counted == []


@pytest.mark.slow
def test_a_file_with_nothing_to_do_is_not_stamped(model: Path, tmp_path: Path) -> None:
    """It is the plain export, which says nothing of us. With ``--stamp`` it says that nothing was done."""
    optimized(f"{model}:dense", tmp_path / "a.onnx")
    assert not [key for key in noted(tmp_path / "a.onnx") if key.startswith("fx_passes")]
    optimized(f"{model}:dense", tmp_path / "b.onnx", "--stamp")
    assert noted(tmp_path / "b.onnx") == {SITES: "[]", VERSION: fx_passes.__version__}


@pytest.mark.slow
@pytest.mark.parametrize("which", ["net", "dense"])
def test_an_onnx_file_keeps_its_own_notes(which: str, model: Path, tmp_path: Path) -> None:
    """It gets ours only with ``--stamp``, and then beside its own; everything else is the same."""
    given, out, stamped = (tmp_path / name for name in ("in.onnx", "a.onnx", "b.onnx"))
    optimized(f"{model}:{which}", given, "--lowering", "expand")
    proto = onnx.load(given)
    del proto.metadata_props[:]
    proto.metadata_props.add(key="made by", value="somebody")
    onnx.save(proto, given)
    without = optimized(str(given), out)
    assert (without == given.read_bytes()) == (which == "dense")
    assert noted(out) == {"made by": "somebody"}
    optimized(str(given), stamped, "--stamp")
    assert list(noted(stamped)) == ["made by", SITES, VERSION]
    assert len(json.loads(noted(stamped)[SITES])) == (which == "net")
    proto = onnx.load(stamped)
    del proto.metadata_props[1:]
    assert proto == onnx.load(out)


def test_a_second_stamp_keeps_the_first() -> None:
    """What was done before was done. A note of somebody else under our name is replaced."""
    proto = ModelProto()
    stamp(proto, [{"id": "a"}])
    stamp(proto, [{"id": "b"}])
    assert [entry.key for entry in proto.metadata_props] == [SITES, VERSION]
    assert json.loads(proto.metadata_props[0].value) == [{"id": "a"}, {"id": "b"}]
    for text in ("no JSON", "7"):
        proto.metadata_props[0].value = text
        stamp(proto, [])
        assert proto.metadata_props[0].value == "[]"


def machine() -> list[bytes]:
    """Paths that tell of this machine."""
    packages = sysconfig.get_paths()["purelib"]
    return [str(path).encode() for path in (Path.home(), Path.cwd(), packages, tempfile.gettempdir())]


def told(data: bytes, *more: Path) -> list[bytes]:
    return [path for path in (*machine(), *(str(one).encode() for one in more)) if path in data]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["net", "dense"])
def test_no_path_of_this_machine(
    which: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in a rewritten file nor in the plain export. With ``--keep-traces`` they are there."""
    folder = tmp_path / "somewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert told(optimized(f"{model}:{which}", folder / "a.onnx"), tmp_path) == []
    kept = optimized(f"{model}:{which}", folder / "b.onnx", "--keep-traces")
    assert str(sysconfig.get_paths()["purelib"]).encode() in told(kept, tmp_path)
    assert str(tmp_path).encode() in told(kept, tmp_path) or which == "dense"


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True])
def test_to_onnx_leaves_no_traces_either(keep: bool, tmp_path: Path) -> None:
    """It is the same exporter."""
    conv = fx_passes.SharedKernelConv2d(3, 3, 3, groups=3).eval()
    file = to_onnx(conv, (torch.rand(1, 3, 8, 8),), tmp_path / "a.onnx", keep_traces=keep)
    assert (b"stack_trace" in file.read_bytes()) == keep
    assert bool(told(file.read_bytes())) == keep


def with_notes(text: str) -> tuple[ir.Model, Sequence[object]]:
    """A model in which everything that can have a note has this one."""
    x, y, w, between = (ir.Value(name=name) for name in ("x", "y", "w", "between"))
    w.const_value = ir.tensor([1.0], name="w")
    inner = ir.Graph([], [], nodes=[], name="inner")
    before = ir.Node("", "Neg", [x], outputs=[between], name="before")
    node = ir.Node("", "Add", [between, w], attributes=[ir.AttrGraph("body", inner)], outputs=[y], name="n")
    graph = ir.Graph([x], [y], nodes=[before, node], initializers=[w], opset_imports={"": 18}, name="g")
    z = ir.Value(name="z")
    copy = ir.Node("", "Neg", [z], name="m")
    body = ir.Graph([z], [copy.outputs[0]], nodes=[copy], opset_imports={"": 18}, name="f")
    function = ir.Function("d", "f", graph=body, attributes=[])
    made = ir.Model(graph, ir_version=10, functions=[function])
    owners = [made, graph, inner, before, node, x, between, y, w, z, function, copy]
    for owner in owners:
        owner.metadata_props.update({"theirs": text, "pkg.stack_trace": "File a", "other": "stays"})  # type: ignore[attr-defined]
        owner.doc_string = text  # type: ignore[attr-defined]
    return made, owners


@pytest.mark.parametrize("path", [Path.home(), Path.cwd(), Path(tempfile.gettempdir())])
def test_every_note_with_a_path_goes(path: Path) -> None:
    """Of the model, its graphs, functions, nodes and values. Other notes stay."""
    model, owners = with_notes(f'see "{path}/file.py"')
    remove_traces(model)
    for owner in owners:
        assert (owner.metadata_props, owner.doc_string) == ({"other": "stays"}, None), owner  # type: ignore[attr-defined]


def test_notes_without_a_path_stay() -> None:
    """Also those that only look like one."""
    model, owners = with_notes("see /model/layer.0")
    remove_traces(model)
    for owner in owners:
        assert owner.metadata_props == {"theirs": "see /model/layer.0", "other": "stays"}  # type: ignore[attr-defined]
        assert owner.doc_string == "see /model/layer.0"  # type: ignore[attr-defined]
