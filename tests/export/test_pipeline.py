"""The main job as a function: what it writes, what it reports, and what it does about a faulty rewrite."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

import fx_passes.graph.edit
from export import optimize
from export.job import rewrite as second_stage
from export.report.text import site_table, summary_lines
from export.runtime import files
from export.runtime.arrays import tensor_arrays, with_arrays
from export.verify.reference import float64_reference
from export.write_onnx.exporter import to_onnx
from fx_passes.errors import ExportError, NotEquivalentError, UsageError
from fx_passes.kernels.expand import expand_kernel
from fx_passes.lowerings import MODULES
from fx_passes.records import EXACTNESS, Exactness

pytestmark = pytest.mark.usefixtures("simple_rules")


class Blurs(nn.Module):
    """Two blurs by one window each, and a mix between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Buffer(torch.rand(1, 1, 3, 3).repeat(4, 1, 1, 1))
        self.mix = nn.Conv2d(4, 4, 1)
        self.second = nn.Buffer(torch.rand(1, 1, 3, 3).repeat(4, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(F.conv2d(x, self.first, padding=1, groups=4))
        return F.conv2d(x, self.second, padding=1, groups=4)


X = torch.rand(1, 4, 12, 12)


def run(model: nn.Module, path: Path, inputs: tuple[Any, ...] = (X,), **more: Any) -> Any:
    return optimize(model.eval(), inputs, path, **{"seconds": 0, "lowering": "expand", **more})


@pytest.mark.slow
def test_report_and_file(tmp_path: Path) -> None:
    """The report has the contract's JSON; the file is there and smaller, and nothing else is."""
    model = Blurs()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = run(model, tmp_path / "out.onnx", seconds=0.2)
    assert os.listdir(tmp_path) == ["out.onnx"]
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    data = report.to_json()
    assert data["schema"] == "fx-passes/optimize/1"
    assert data.keys() >= {"model", "output", "sites", "equivalence", "speed", "size", "environment"}
    assert [site["lowering"] for site in data["sites"]] == ["expand", "expand"]
    assert data["equivalence"]["passed"]
    assert data["equivalence"]["reference"] == "equal bits, errors against float64"
    assert data["speed"]["threads"] == 1
    assert data["environment"]["torch"] == torch.__version__
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def plant(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the rewrite of the second site wrong."""
    expand_argument = fx_passes.graph.edit.expand_argument
    sites = []

    def faulty(conv: Any, *arguments: Any, **keywords: Any) -> Any:
        expanded = expand_argument(conv, *arguments, **keywords)
        sites.append(conv)
        if len(sites) != 2:
            return expanded
        if fault == "stride":
            conv.args = (*conv.args[:3], [2, 2], *conv.args[4:])
        elif fault == "padding":
            conv.args = (*conv.args[:4], [0, 0], *conv.args[5:])
        elif fault == "tap":
            with conv.graph.inserting_before(conv):
                kernel = expanded.args[0]
                tap = conv.graph.call_function(torch.ops.aten.slice.Tensor, (kernel, 3, 0, 1))
                rest = conv.graph.call_function(torch.ops.aten.slice.Tensor, (kernel, 3, 1, 3))
                tap = conv.graph.call_function(torch.ops.aten.mul.Scalar, (tap, 1.000001))
                kernel = conv.graph.call_function(torch.ops.aten.cat.default, ([tap, rest], 3))
                conv.update_arg(1, conv.graph.call_function(expand_kernel, (kernel, 4)))
        return expanded

    monkeypatch.setattr(fx_passes.graph.edit, "expand_argument", faulty)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["stride", "padding", "tap"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_faulty_rewrite_is_caught_and_its_site_named(
    fault: str, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong stride, wrong padding, one tap: not equivalent, no file left, an existing one untouched."""
    path = tmp_path / "out.onnx"
    if existing:
        path.write_text("before")
    plant(fault, monkeypatch)
    with pytest.raises(NotEquivalentError) as caught:
        run(Blurs(), path)
    message = str(caught.value)
    assert message.startswith("not equivalent: output `conv2d_2`")
    assert message.endswith("caused by site conv2d_2")
    if fault == "tap":
        assert "expected " in message
        assert "a tolerance of " in message
    else:
        assert "expected float32[1, 4, 12, 12], found float32[1, 4, " in message
    assert os.listdir(tmp_path) == (["out.onnx"] if existing else [])
    assert not existing or path.read_text() == "before"


@pytest.mark.slow
def test_a_fault_that_pytorch_does_not_see_blames_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that differs where the graphs do not: the export is to blame, no site is."""

    def faulty(model: nn.Module, *arguments: Any, **keywords: Any) -> Path:
        path = to_onnx(model, *arguments, **keywords)
        stored = onnx.load(path)
        taps = next(i for i in stored.graph.initializer if i.name == "first")
        taps.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(taps) * 2, "first"))
        onnx.save(stored, path)
        return path

    monkeypatch.setattr(second_stage, "to_onnx", faulty)
    with pytest.raises(NotEquivalentError, match="no site differs in PyTorch: the export causes it"):
        run(Blurs(), tmp_path / "out.onnx")


@pytest.mark.slow
def test_nothing_to_share_gives_the_plain_export(tmp_path: Path) -> None:
    """The output is the stock file, byte for byte as exported, and the report counts no shared site."""
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    report = run(model, tmp_path / "out.onnx")
    assert report.shared_count == 0
    assert report.baseline_bytes == report.optimized_bytes
    assert report.findings[0].reason is not None
    assert (tmp_path / "out.onnx").stat().st_size == report.optimized_bytes


@pytest.mark.slow
def test_exported_program_and_graph_module(tmp_path: Path) -> None:
    """Both are taken as they are; a program brings its own inputs."""
    program = torch.export.export(Blurs().eval(), (X,))
    report = optimize(program, None, tmp_path / "a.onnx", seconds=0)
    assert report.route == "exported program"
    assert report.shared_count == 2
    traced = torch.fx.symbolic_trace(Blurs().eval())
    assert run(traced, tmp_path / "b.onnx").shared_count == 2


@pytest.mark.slow
def test_dynamic_batch(tmp_path: Path) -> None:
    """The check runs other batch sizes where the batch is open."""
    dynamic = ({0: torch.export.Dim("batch")},)
    report = run(Blurs(), tmp_path / "out.onnx", (X.repeat(2, 1, 1, 1),), dynamic_shapes=dynamic)
    assert report.equivalence.cases == 10
    assert report.equivalence.bitwise


class Nested(nn.Module):
    """A dict, a number and a list among the arguments, a tuple of outputs, one of them integer."""

    def __init__(self) -> None:
        super().__init__()
        self.window = nn.Buffer(torch.rand(1, 1, 3, 3).repeat(4, 1, 1, 1))

    def forward(self, images: dict[str, Tensor], scale: float, more: list[Tensor]) -> tuple[Tensor, Tensor]:
        x = images["a"] * scale + more[0]
        return F.conv2d(x, self.window, groups=4), x.argmax(1)


@pytest.mark.slow
def test_nested_inputs_and_outputs(tmp_path: Path) -> None:
    """Tensors are found wherever they are among the arguments."""
    inputs = ({"a": X}, 2.0, [X + 1])
    report = run(Nested(), tmp_path / "out.onnx", inputs)
    assert report.equivalence.bitwise
    assert len(report.equivalence.outputs) == 2
    arrays = tensor_arrays(inputs)
    assert len(arrays) == 2
    rebuilt = with_arrays(inputs, arrays)
    assert torch.equal(rebuilt[0]["a"], X)
    assert rebuilt[1] == 2.0


def test_float64_reference_is_the_model_in_float64() -> None:
    """Of a module, and of a program; neither is written to."""
    model = Blurs()
    reference = float64_reference(model, (X,))
    assert reference is not None
    (found,) = reference([X.numpy()])
    assert found.dtype == "float64"
    program = float64_reference(torch.export.export(model, (X,)), (X,))
    assert program is not None
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    exact = model.double()(X.double()).detach()
    torch.testing.assert_close(torch.from_numpy(found), exact)
    torch.testing.assert_close(torch.from_numpy(program([X.numpy()])[0]), exact)


def test_wrong_arguments(tmp_path: Path) -> None:
    """Each is refused before any work is done."""
    with pytest.raises(UsageError, match="lowering must be one of tuned, static, expand, got 'fast'"):
        optimize(Blurs(), (X,), tmp_path / "out.onnx", lowering="fast")
    with pytest.raises(UsageError, match="example inputs are needed"):
        optimize(Blurs(), None, tmp_path / "out.onnx")
    with pytest.raises(ExportError, match=r"cannot write .*out.onnx: .* is not a folder"):
        optimize(Blurs(), (X,), tmp_path / "missing" / "out.onnx")


@pytest.mark.slow
def test_external_data_moves_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large model has its data under the output's name, shared or not, and loads from where it lies."""
    monkeypatch.setattr(files, "LARGE_BYTES", 10)
    for name, model in (("a.onnx", Blurs()), ("b.onnx", nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))):
        run(model, tmp_path / name)
        assert (tmp_path / f"{name}.data").exists()
        onnx.load(tmp_path / name, load_external_data=True)
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "a.onnx.data", "b.onnx", "b.onnx.data"]


def test_inputs_that_numpy_does_not_have(tmp_path: Path) -> None:
    """bfloat16 is refused in one line."""
    with pytest.raises(UsageError, match="example inputs cannot be passed to onnxruntime"):
        run(nn.ReLU(), tmp_path / "out.onnx", (X.bfloat16(),))


def test_output_that_is_a_folder(tmp_path: Path) -> None:
    """Nothing is moved into it."""
    with pytest.raises(ExportError, match="it is a folder"):
        run(Blurs(), tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_batch_norm_behind_a_shared_convolution(bias: bool, transposed: bool, tmp_path: Path) -> None:
    """The exporter folds it into the weight, one scale a channel: stored whole, said so, equal bits."""
    cls = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv, norm = cls(4, 4, 3, groups=4, bias=bias), nn.BatchNorm2d(4)
    conv.weight.data = conv.weight.data[:1].repeat(4, 1, 1, 1)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.get_buffer("running_var"))
    report = run(nn.Sequential(conv, norm, nn.ReLU(), Blurs()), tmp_path / "out.onnx")
    assert report.equivalence.bitwise
    first, *rest = report.to_json()["sites"]
    assert first["lowering"] is None
    assert first["reason"].startswith("stored whole: the exporter folds the batch norm")
    assert [site["lowering"] for site in rest] == ["expand", "expand"]


@pytest.mark.slow
def test_a_graph_module_is_not_changed(tmp_path: Path) -> None:
    """Neither the graph module nor the model it was traced from."""
    model = Blurs().eval()
    expected = model(X)
    traced = torch.fx.symbolic_trace(model)
    code = traced.code
    run(traced, tmp_path / "out.onnx")
    assert traced.code == code
    assert traced.first.shape == model.first.shape == (4, 1, 3, 3)
    assert torch.equal(traced(X), expected)
    assert torch.equal(model(X), expected)


@pytest.mark.slow
def test_open_sizes_of_an_exported_program_stay_open(tmp_path: Path) -> None:
    """What was dynamic when it was exported is dynamic in the file, and checked at other sizes."""
    dynamic = ({0: torch.export.Dim("batch"), 3: torch.export.Dim("width")},)
    program = torch.export.export(Blurs().eval(), (X.repeat(2, 1, 1, 1),), dynamic_shapes=dynamic)
    report = optimize(program, None, tmp_path / "out.onnx", seconds=0, lowering="expand")
    assert report.equivalence.bitwise
    assert report.equivalence.cases == 13


class Filters(nn.Module):
    """A blur in two dimensions, then one in one: simple rules lower the last."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Buffer(torch.rand(1, 1, 3, 3).repeat(16, 1, 1, 1) / 3)
        self.line = nn.Buffer(torch.rand(1, 1, 5).repeat(16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.image, padding=1, groups=16).sin()
        return F.conv1d(x.flatten(2), self.line, padding=2, groups=16)


# For each, the lowerings of both sites, and how many cases are checked.
CHOSEN: dict[Exactness, tuple[list[str], int]] = {
    "bitwise": (["expand", "expand"], 8),
    "reordered": (["expand", "lift"], 8),
    "finite": (["expand", "polyphase(phases=16)"], 7),
}


@dataclass(frozen=True)
class Static:
    """A run of the static rules: the report, the stages it went through, and the file."""

    report: Any
    stages: list[str]
    file: bytes


def static(exactness: Exactness, folder: Path) -> Static:
    torch.manual_seed(0)
    stages: list[str] = []
    more = {"lowering": "static", "exactness": exactness, "progress": stages.append}
    report = run(Filters(), folder / "out.onnx", (torch.rand(1, 16, 64, 128),), **more)
    return Static(report, stages, (folder / "out.onnx").read_bytes())


@pytest.fixture(scope="module")
def statics(tmp_path_factory: pytest.TempPathFactory) -> dict[Exactness, Static]:
    return {exactness: static(exactness, tmp_path_factory.mktemp(exactness)) for exactness in EXACTNESS}


@pytest.mark.slow
@pytest.mark.parametrize("exactness", EXACTNESS)
def test_static_with_each_exactness(exactness: Exactness, statics: dict[Exactness, Static]) -> None:
    """Nothing less exact is chosen; bits are asked for, and Inf and NaN tried, where that is promised."""
    report, data = statics[exactness].report, statics[exactness].report.to_json()
    wanted, cases = CHOSEN[exactness]
    assert [site["lowering"] for site in data["sites"]] == wanted
    assert [site["exactness"] for site in data["sites"]] == ["bitwise", exactness]
    assert data["equivalence"]["cases"] == cases
    stages = statics[exactness].stages
    assert ("checking equivalence: non-finite" in stages) == (exactness != "finite")
    assert report.equivalence.bitwise or exactness != "bitwise"
    assert report.equivalence.reference.startswith("equal bits") == (exactness == "bitwise")


@pytest.mark.slow
@pytest.mark.parametrize("exactness", EXACTNESS)
def test_the_report_says_how_exact_it_is(exactness: Exactness, statics: dict[Exactness, Static]) -> None:
    """For each site that was lowered, and for the outputs as they came out."""
    report = statics[exactness].report
    console = Console(width=300)
    with console.capture() as text:
        console.print(site_table(report.findings, report))
    said = {"bitwise": "", "reordered": " (rounds differently)"}.get(
        exactness, " (rounds differently, for finite inputs)"
    )
    wanted, cases = CHOSEN[exactness]
    lines = [line.strip() for line in text.get().splitlines() if line.startswith("conv1d")]
    assert [line.endswith(f"  {wanted[1]}{said}") for line in lines] == [True]
    bits = "equal bits" if report.equivalence.bitwise else "within bounds"
    assert f"equivalence: passed, {bits} in {cases} cases" in "\n".join(summary_lines(report))


@pytest.mark.slow
def test_static_writes_the_same_file_each_time(statics: dict[Exactness, Static], tmp_path: Path) -> None:
    """Byte for byte, from a model built anew, whatever the time and the folder."""
    assert statics["finite"].report.plan.exactness == "finite"
    assert static("finite", tmp_path).file == statics["finite"].file


@pytest.mark.slow
def test_what_is_chosen_is_among_the_candidates(statics: dict[Exactness, Static]) -> None:
    """Of a static choice, too."""
    for site in statics["finite"].report.to_json()["sites"]:
        assert site["lowering"] in [candidate["lowering"] for candidate in site["candidates"]]


def plant_in_lowering(monkeypatch: pytest.MonkeyPatch, name: str, taps: int, by: float) -> None:
    """Make one lowering wrong, for kernels of as many taps along the width."""
    module = MODULES[name].Module
    prepare = module.prepare

    def faulty(self: Any, kernel: Tensor) -> None:
        prepare(self, kernel * (1 + by) if kernel.shape[-1] == taps else kernel)

    monkeypatch.setattr(module, "prepare", faulty)


class Lowered(nn.Module):
    """Two blurs that the static rules lower."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Buffer(torch.rand(1, 1, 3, 3).repeat(3, 1, 1, 1) / 5)
        self.second = nn.Buffer(torch.rand(1, 1, 5, 5).repeat(3, 1, 1, 1) / 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.first, padding=1, groups=3).sin()
        return F.conv2d(x, self.second, padding=2, groups=3)


IMAGE = torch.rand(1, 3, 32, 48)


class InARow(nn.Module):
    """A blur right behind another, and one with a Slice in front."""

    taps_3: Tensor
    taps_5: Tensor
    taps_7: Tensor

    def __init__(self) -> None:
        super().__init__()
        for size in (3, 5, 7):
            setattr(self, f"taps_{size}", nn.Buffer(torch.rand(1, 1, size, size).repeat(3, 1, 1, 1) / size))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.taps_3, padding=1, groups=3)
        x = F.conv2d(x, self.taps_5, padding=2, groups=3)
        return F.conv2d(x[..., 1:], self.taps_7, padding=3, groups=3)


@pytest.mark.slow
def test_sites_in_a_row(tmp_path: Path) -> None:
    """The output of one lowered site is the input of the next; what is between belongs to one of them."""
    report = run(InARow(), tmp_path / "out.onnx", (torch.rand(1, 3, 32, 64),), lowering="static")
    assert [site["lowering"] for site in report.to_json()["sites"]] == ["polyphase(phases=16)"] * 3


@pytest.mark.slow
def test_a_model_that_draws_random_numbers(tmp_path: Path) -> None:
    """Dropout in training mode: nothing can be compared with it, and the message says why."""
    model = nn.Sequential(Blurs(), nn.Dropout()).train()
    message = r"the original gives another output `.*` each time .*; does it draw random numbers\?$"
    with pytest.raises(ExportError, match=message):
        optimize(model, (X,), tmp_path / "out.onnx", seconds=0, lowering="expand")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_faulty_lowering_is_caught_and_its_site_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off by a thousandth at the first site: not equivalent, and no file is left."""
    plant_in_lowering(monkeypatch, "polyphase", 3, 1e-3)
    with pytest.raises(NotEquivalentError) as caught:
        run(Lowered(), tmp_path / "out.onnx", (IMAGE,), lowering="static")
    assert str(caught.value).startswith("not equivalent: output `conv2d_1` at [0, ")
    assert str(caught.value).endswith("; caused by site conv2d")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_lowering_that_is_less_exact_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `finite` one that claims to be `reordered` is found out by the Inf and NaN among the inputs."""
    polyphase = MODULES["polyphase"]
    propose = polyphase.propose

    def boasts(*arguments: Any) -> Any:
        return [replace(proposal, exactness="reordered") for proposal in propose(*arguments)]

    monkeypatch.setattr(polyphase, "propose", boasts)
    more = {"lowering": "static", "exactness": "reordered"}
    with pytest.raises(NotEquivalentError, match=r"\(non-finite, default .*; caused by site conv2d"):
        run(Lowered(), tmp_path / "out.onnx", (IMAGE,), **more)


@pytest.mark.slow
def test_candidates_that_cannot_be_timed_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The convolutions are kept, the file is written, and the report says why nothing was lowered."""

    def refuses(*arguments: Any) -> Any:
        raise ExportError("planted")

    monkeypatch.setattr("export.tune.fastest.make_candidates", refuses)
    report = run(Blurs(), tmp_path / "out.onnx", lowering="tuned")
    assert report.equivalence.bitwise
    assert [site["lowering"] for site in report.to_json()["sites"]] == ["expand", "expand"]
    assert "nothing was lowered, as the candidates could not be timed: planted" in summary_lines(report)
