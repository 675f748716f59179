"""The command line as a user sees it: output, exit codes, JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import fx_passes.graph.edit
from export.cli import commands, main
from export.report import terminal
from export.runtime.blocks import Ratio
from export.speed import Block, Timing
from export.tune.candidates import Candidates
from export.tune.options import Options
from export.tune.stopwatch import Stopwatch
from fx_passes.lowerings import MODULES
from fx_passes.plan import Plan

SOURCE = """
import torch
from torch import nn

X = torch.rand(1, 4, 12, 12)

def shared():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    conv.weight.data = conv.weight.data[:1].repeat(4, 1, 1, 1)
    return nn.Sequential(conv), (X,)

def unshared():
    return nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), (X,)

def no_inputs():
    return shared()[0]

class Looks(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x

def untraceable():
    return Looks(), (X,)

class Measured(nn.Module):
    def __init__(self):
        super().__init__()
        self.blur = shared()[0]

    def forward(self, x):
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return self.blur(x)

def measured():
    return Measured(), (X,)

class Exits(nn.Module):
    def forward(self, x):
        raise SystemExit(0)

def exits():
    return Exits(), (X,)

def blur(size):
    conv = nn.Conv2d(3, 3, size, padding=size // 2, groups=3)
    conv.weight.data = torch.rand(1, 1, size, size).repeat(3, 1, 1, 1)
    return conv

def blurs(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(blur(3), nn.ReLU(), blur(5)), (torch.rand(1, 3, 32, 48),)

def other_blurs():
    return blurs(1)

class Random(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return self.draw(x)

def noise():
    return Random(lambda x: x + torch.rand(4, 12, 12)), (X,)

def dropout():
    return Random(lambda x: nn.functional.dropout(x, training=True)), (X,)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "models.py"
    file.write_text(SOURCE)
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_find_prints_sites_and_reasons(source: Path) -> None:
    """Plain text off a terminal: site, form, groups, shapes, verdict."""
    result = run("find", f"{source}:shared")
    assert result.exit_code == 0
    assert "captured by torch.export" in result.stdout
    assert "0/conv2d  aten  conv2d       4  4x1x3x3 -> 1x1x3x3  shared\n" in result.stdout
    assert "1 of 1 candidate convolutions share a kernel" in result.stdout
    assert "\x1b" not in result.output
    result = run("find", f"{source}:unshared")
    assert "not shared: group 1 differs from group 0 by " in result.stdout


def test_find_json(source: Path, tmp_path: Path) -> None:
    """To a file, or to standard output with nothing else there."""
    result = run("find", f"{source}:shared", "--json", "-")
    data = json.loads(result.stdout)
    assert data["schema"] == "fx-passes/find/1"
    (site,) = data["sites"]
    assert site["kernel_shape"] == [1, 1, 3, 3]
    assert site["weight_shape"] == [4, 1, 3, 3]
    assert (site["op"], site["groups"], site["origin"]) == ("conv2d", 4, "parameter")
    assert site["shared"] is True
    assert site["reason"] is None
    run("find", f"{source}:shared", "--json", tmp_path / "find.json")
    assert json.loads((tmp_path / "find.json").read_text()) == data


@pytest.mark.slow
def test_find_and_optimize_name_sites_alike(source: Path, tmp_path: Path) -> None:
    """One site has one id in both commands."""
    found = json.loads(run("find", f"{source}:shared", "--json", "-").stdout)
    arguments = ("optimize", f"{source}:shared", "-o", tmp_path / "o.onnx", "--seconds", 0, "--json", "-")
    optimized = json.loads(run(*arguments).stdout)
    assert [s["id"] for s in found["sites"]] == [s["id"] for s in optimized["sites"]]


@pytest.mark.slow
def test_find_looks_where_optimize_does(source: Path, tmp_path: Path) -> None:
    """Under ``no_grad`` and without autocast, where torch.export makes graphs of their own, as well."""
    result = run("find", f"{source}:measured")
    assert "1 of 1 candidate convolutions share a kernel" in result.stdout, result.output
    arguments = ("optimize", f"{source}:measured", "-o", tmp_path / "a.onnx", "--json", "-", "--seconds", 0)
    (site,) = json.loads(run(*arguments, "--lowering", "expand").stdout)["sites"]
    assert site["id"] in result.stdout


def test_find_without_inputs(source: Path) -> None:
    """A model that can be traced symbolically needs none; --input gives them where it does."""
    assert "captured by symbolic_trace" in run("find", f"{source}:no_inputs").stdout
    result = run("find", f"{source}:no_inputs", "--input", "1x4x12x12")
    assert "captured by torch.export" in result.stdout


@pytest.mark.slow
def test_optimize_writes_verifies_and_measures(source: Path, tmp_path: Path) -> None:
    """Exit 0, the table, the verdicts in words, and the file."""
    output = tmp_path / "out.onnx"
    result = run("optimize", f"{source}:shared", "-o", output, "--lowering", "expand", "--seconds", 0.2)
    assert result.exit_code == 0
    assert "4x1x3x3 -> 1x1x3x3  expand\n" in result.stdout
    assert "equivalence: passed, equal bits in 8 cases" in result.stdout
    assert "speed: " in result.stdout
    assert "original against itself: " in result.stdout
    assert "s exporting the original\n" in result.stdout
    assert "s measuring speed\n" in result.stdout
    assert f"written: {output}" in result.stdout
    assert "exporting the original ..." in result.stderr
    assert output.exists()


@pytest.mark.slow
def test_nothing_shared_is_the_plain_export_and_says_so(source: Path, tmp_path: Path) -> None:
    """Exit 0 without --strict, exit 4 with it; the verified file is written either way."""
    output = tmp_path / "out.onnx"
    arguments = ("optimize", f"{source}:unshared", "-o", output, "--seconds", 0)
    result = run(*arguments)
    assert result.exit_code == 0
    assert "nothing was shared: the output is the plain export" in result.stdout
    strict = run(*arguments, "--strict")
    assert strict.exit_code == 4
    assert strict.stderr.endswith("fx-passes: nothing was shared (--strict)\n")
    assert output.exists()


@pytest.mark.slow
def test_not_equivalent_is_exit_1_and_no_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted fault: one line that names the output and the site; no file, an existing one untouched."""
    cut_tensor = fx_passes.graph.edit.cut_tensor
    monkeypatch.setattr(
        fx_passes.graph.edit,
        "cut_tensor",
        lambda graph, names, values: cut_tensor(graph, names, values * 1.01),
    )
    output = tmp_path / "out.onnx"
    output.write_text("before")
    result = run("optimize", f"{source}:shared", "-o", output)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("fx-passes: not equivalent: output `conv2d` at [0, 0, 0, 0]")
    assert last.endswith("caused by site 0/conv2d")
    assert output.read_text() == "before"
    assert set(os.listdir(tmp_path)) - {"__pycache__"} == {"models.py", "out.onnx"}


@pytest.mark.slow
def test_check(source: Path, tmp_path: Path) -> None:
    """Two equal files pass, two different ones exit 1 with the place."""
    for name in ("shared", "unshared"):
        run("optimize", f"{source}:{name}", "-o", tmp_path / f"{name}.onnx", "--seconds", 0)
    same = run("check", tmp_path / "shared.onnx", tmp_path / "shared.onnx")
    assert same.exit_code == 0
    assert "equivalent: equal bits in 7 cases" in same.stdout
    arguments = ("check", tmp_path / "shared.onnx", tmp_path / "unshared.onnx")
    different = run(*arguments, "--json", "-")
    assert different.exit_code == 1
    data = json.loads(different.stdout)
    assert data["schema"] == "fx-passes/check/1"
    assert data["equivalence"]["passed"] is False
    assert "fx-passes: not equivalent: output `conv2d` at [0, " in different.stderr


USAGE = {
    "no command": [],
    "no model": ["find"],
    "no output": ["optimize", "{source}:shared"],
    "unknown option": ["find", "{source}:shared", "--nonsense"],
    "unknown lowering": ["optimize", "{source}:shared", "-o", "x.onnx", "--lowering", "magic"],
    "no threads": ["optimize", "{source}:shared", "-o", "x.onnx", "--threads", "0"],
    "model without a colon": ["find", "models.py"],
    "nothing before the colon": ["find", ":shared"],
    "sizes that are none": ["find", "{source}:shared", "--input", "1x"],
    "no inputs": ["optimize", "{source}:no_inputs", "-o", "x.onnx"],
    "an argument that is not there": ["optimize", "{source}:shared", "-o", "x.onnx", "--dynamic", "y:0"],
    "a file to check that is not there": ["check", "a.onnx", "b.onnx"],
    "json nowhere": ["find", "{source}:shared", "--json", "/nonexistent/x.json"],
}


@pytest.mark.parametrize("name", USAGE)
def test_usage_errors_are_exit_2(name: str, source: Path) -> None:
    """Wrong arguments: exit 2, and the last line says what is wrong."""
    result = run(*(argument.format(source=source) for argument in USAGE[name]))
    assert result.exit_code == 2, result.output
    assert result.stderr
    assert "Traceback" not in result.output
    assert not Path("x.onnx").exists()


# What is written where something else is written or read; and all files that are there before.
OVERWRITES = {
    "the report over the model": "optimize models.py:shared -o x.onnx --json x.onnx",
    "by another name": "optimize models.py:shared -o x.onnx --json sub/../x.onnx",
    "the plan over the report": "optimize models.py:shared -o x.onnx --json x.json --save-plan x.json",
    "the report over the plan": "optimize models.py:shared -o x.onnx --plan plan.json --json plan.json",
    "the report over the source": "find models.py:shared --json models.py",
    "the model over the source": "optimize models.py:shared -o models.py",
    "the model over the source of a package": "optimize package.models:shared -o package/models.py",
    "the report over a file that is checked": "check a.onnx b.onnx --json b.onnx",
}


@pytest.mark.parametrize("name", OVERWRITES)
def test_nothing_is_written_over_something_else(
    name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any work is done: exit 2, and every file is what it was."""
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("package").mkdir()
    for file, text in {"a.onnx": "", "b.onnx": "", "plan.json": Plan({}).to_json()}.items():
        Path(file).write_text(text)
    before = {file: file.read_text() for file in Path().iterdir() if file.is_file()}
    result = run(*OVERWRITES[name].split())
    assert result.exit_code == 2
    assert " would overwrite what " in result.stderr.splitlines()[-1]
    assert {file: file.read_text() for file in Path().iterdir() if file.is_file()} == before


@pytest.mark.slow
def test_what_torch_logs_is_not_repeated(source: Path) -> None:
    """In a process of its own, as torch logs to the standard error that it found when it was imported."""
    command = [sys.executable, "-c", "from export.cli import main; main()", "find", f"{source}:untraceable"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 3
    assert not [line for line in said.stderr.splitlines() if re.match(r"[IWEC]\d{4} ", line)]


LOADING = {
    "missing file": ["find", "missing.py:model"],
    "missing attribute": ["find", "{source}:shraed"],
    "cannot be captured": ["find", "{source}:untraceable"],
    "cannot be exported": ["optimize", "{source}:untraceable", "-o", "x.onnx"],
    "a model that ends the process": ["find", "{source}:exits"],
    "one that does so when it is exported": ["optimize", "{source}:exits", "-o", "x.onnx"],
    "no folder to work in": ["optimize", "{source}:shared", "-o", "/proc/x.onnx"],
    "no folder": ["optimize", "{source}:shared", "-o", "/nonexistent/x.onnx"],
}


@pytest.mark.parametrize("name", LOADING)
def test_what_cannot_be_loaded_captured_or_exported_is_exit_3(name: str, source: Path) -> None:
    """Exit 3 and one line."""
    result = run(*(argument.format(source=source) for argument in LOADING[name]))
    assert result.exit_code == 3, result.output
    assert result.stderr.splitlines()[-1].startswith("fx-passes: ")
    assert not re.search("Traceback|unexpected", result.output)


@pytest.mark.slow
def test_strict_without_a_gain_is_exit_4(source: Path, tmp_path: Path) -> None:
    """``expand`` is never faster: --strict says so after the file is written."""
    result = run("optimize", f"{source}:shared", "-o", tmp_path / "o.onnx", "--seconds", 0, "--strict")
    assert result.exit_code == 4
    assert result.stderr.endswith("nothing got measurably faster (--strict)\n")


def test_version_and_help() -> None:
    """Both exit 0 and name the commands."""
    assert run("--version").exit_code == 0
    text = run("--help").stdout
    assert all(command in text for command in ("find", "optimize", "check"))


def test_the_unforeseen_is_not_taken_for_a_difference(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw: one line and exit 3, for 1 means not equivalent."""

    def breaks(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(commands, "judge_graph", breaks)
    result = run("find", f"{source}:shared")
    assert result.exit_code == 3
    assert result.stderr.endswith("unexpected ZeroDivisionError: planted (--verbose shows where)\n")


def test_json_has_no_infinity() -> None:
    """Not a number in JSON: null."""
    assert terminal._finite({"a": [float("inf"), (float("nan"), 1.5)]}) == {"a": [None, [None, 1.5]]}


@dataclass(frozen=True)
class Tuned:
    """A tuning of ``blurs`` on a clock of our own, by which ``polyphase(phases=8)`` is the fastest."""

    folder: Path
    source: Path
    result: Result

    @property
    def data(self) -> dict[str, Any]:
        return json.loads((self.folder / "out.json").read_text())

    def run(self, model: str, output: Path, *more: object) -> Result:
        """Follow the plan."""
        arguments = ("optimize", f"{self.source}:{model}", "-o", output, "--seconds", 0)
        return run(*arguments, "--plan", self.folder / "plan.json", *more)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    def time_alone(candidates: Candidates, *_: Any) -> dict[str, float]:
        times = {"expand": 9.0, "polyphase(phases=8)": 3.0}
        return {name: times.get(name, 8.0) for name in candidates.names}

    def against_first(files: Sequence[Path], *_: Any) -> list[Ratio]:
        return [Ratio(2.0, (2.0, 2.0))] * (len(files) - 1)

    def measured(*_: Any, **__: Any) -> Timing:
        return Timing((Block((9.0,), (3.0,), (9.0,)),) * 4, 1)

    folder = tmp_path_factory.mktemp("tuned")
    (folder / "models.py").write_text(SOURCE)
    arguments = ("optimize", f"{folder}/models.py:blurs", "-o", folder / "out.onnx", "--seconds", 0)
    with pytest.MonkeyPatch.context() as patch:
        stopwatch = Stopwatch(time_alone, against_first, measured)
        patch.setattr(commands, "Options", partial(Options, stopwatch=stopwatch))
        result = run(*arguments, "--save-plan", folder / "plan.json", "--json", folder / "out.json")
    assert result.exit_code == 0, result.output
    return Tuned(folder, folder / "models.py", result)


def test_optimize_says_what_it_chose(tuned: Tuned) -> None:
    """Each site with its lowering and how exact that is; the verdict; what was timed, on standard error."""
    for site, shape in (("0/conv2d", "3x1x3x3 -> 1x1x3x3"), ("2/conv2d_1", "3x1x5x5 -> 1x1x5x5")):
        (line,) = [line for line in tuned.result.stdout.splitlines() if line.startswith(f"{site} ")]
        assert line.endswith(f"{shape}  polyphase(phases=8) (rounds differently, for finite inputs)")
        assert f"timing {site} (" in tuned.result.stderr
    assert "equivalence: passed, within bounds in 7 cases (float64, " in tuned.result.stdout


def test_json_of_optimize(tuned: Tuned) -> None:
    """For each site: lowering, exactness, and every candidate with its time."""
    assert tuned.data["schema"] == "fx-passes/optimize/1"
    assert [site["id"] for site in tuned.data["sites"]] == ["0/conv2d", "2/conv2d_1"]
    for site in tuned.data["sites"]:
        assert site["lowering"] == "polyphase(phases=8)"
        assert site["exactness"] == "finite"
        assert {"lowering": "expand", "ms": 9.0} in site["candidates"]
        assert {"lowering": "polyphase(phases=8)", "ms": 3.0} in site["candidates"]
        assert {"lowering": "polyphase(phases=32)", "ms": 8.0} in site["candidates"]
    assert tuned.data["equivalence"]["cases"] == 7
    assert tuned.data["equivalence"]["bitwise"] is False


@pytest.mark.slow
def test_a_plan_reproduces_the_tuned_file(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, and nothing is timed to decide; the JSON still has what was timed then."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was timed")

    stopwatch = Stopwatch(refuse, refuse, refuse, refuse)
    monkeypatch.setattr(commands, "Options", partial(Options, stopwatch=stopwatch))
    monkeypatch.setattr("export.tune.fastest.make_candidates", refuse)
    output = tmp_path / "again.onnx"
    result = tuned.run("blurs", output, "--json", "-")
    assert result.exit_code == 0, result.output
    assert output.read_bytes() == (tuned.folder / "out.onnx").read_bytes()
    assert json.loads(result.stdout)["sites"] == tuned.data["sites"]


@pytest.mark.slow
def test_a_plan_that_does_not_fit(tuned: Tuned, tmp_path: Path) -> None:
    """Made for another model, or less exact than is allowed: exit 2, one line, an existing file untouched."""
    output = tmp_path / "out.onnx"
    output.write_text("before")
    cases = {
        ("shared", "finite"): "the plan does not fit this model: 1 site.* differ.*`2/conv2d_1`",
        ("other_blurs", "finite"): "the plan does not fit this model: kernel or shapes of `0/conv2d` are not",
        ("blurs", "reordered"): "the plan is finite, and only reordered is allowed",
    }
    for (model, exactness), said in cases.items():
        result = tuned.run(model, output, "--exactness", exactness)
        assert result.exit_code == 2, result.output
        (error,) = [line for line in result.stderr.splitlines() if not line.endswith(" ...")]
        assert re.match(f"fx-passes: {said}", error)
        assert result.stdout == ""
    assert output.read_text() == "before"
    assert os.listdir(tmp_path) == ["out.onnx"]


@pytest.mark.slow
def test_a_faulty_lowering_is_exit_1(tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the output and the site, and the existing file is untouched."""
    polyphase = MODULES["polyphase"].Module
    prepare = polyphase.prepare

    def faulty(self: Any, kernel: Any) -> None:
        prepare(self, kernel * 1.001 if kernel.shape[-1] == 5 else kernel)

    monkeypatch.setattr(polyphase, "prepare", faulty)
    output = tmp_path / "out.onnx"
    output.write_text("before")
    result = tuned.run("blurs", output)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("fx-passes: not equivalent: output `conv2d_1` at [0, ")
    assert last.endswith("; caused by site 2/conv2d_1")
    assert output.read_text() == "before"
    assert os.listdir(tmp_path) == ["out.onnx"]


@pytest.mark.parametrize("model", ["noise", "dropout"])
def test_random_numbers_are_exit_3(model: str, source: Path, tmp_path: Path) -> None:
    """A model that is another each time is not taken for one that is not equivalent."""
    result = run("optimize", f"{source}:{model}", "-o", tmp_path / "out.onnx", "--seconds", 0)
    assert result.exit_code == 3
    last = result.stderr.splitlines()[-1]
    assert last.startswith("fx-passes: the original gives another output `")
    assert last.endswith("; does it draw random numbers?")
    assert not (tmp_path / "out.onnx").exists()
