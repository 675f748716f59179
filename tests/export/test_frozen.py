"""What an export freezes is shared and lowered in the file; and what a report says of what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from export import optimize
from export.cli import main
from export.report.result import Report
from export.report.text import summary_lines

pytestmark = pytest.mark.usefixtures("simple_rules")

X = torch.randn(1, 32, 400)


def repeated() -> nn.ConvTranspose1d:
    conv = nn.ConvTranspose1d(32, 32, 12, stride=2, groups=32, padding=5)
    conv.weight.data = torch.rand(1, 1, 12).repeat(32, 1, 1)
    return conv


def lowered(report: Report) -> int:
    return sum(choice.proposal is not None for choice in report.plan.choices.values())


NORMS = (nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS, ids=["old", "new", "spectral"])
@pytest.mark.parametrize("lowering", ["static", "expand"])
def test_a_weight_norm_is_a_constant_in_the_file(
    norm: Callable[[nn.Module], nn.Module], lowering: str, tmp_path: Path
) -> None:
    """Lowered; or one kernel and an Expand, with the bits of the original."""
    model = nn.Sequential(norm(repeated())).eval()
    report = optimize(model, (X,), tmp_path / "o.onnx", lowering=lowering, seconds=0)
    assert lowered(report) == (lowering == "static")
    (finding,) = report.findings
    assert finding.shared
    file = onnx.load(tmp_path / "o.onnx")
    stored = [tuple(i.dims) for i in file.graph.initializer]
    assert (32, 1, 12) not in stored
    if lowering == "expand":
        assert report.equivalence.bitwise
        assert (1, 1, 12) in stored


def text(report: Report) -> str:
    return "\n".join(summary_lines(report))


@pytest.mark.slow
def test_a_batch_norm_behind_is_said_as_it_is(tmp_path: Path) -> None:
    """In the file, the kernel repeats up to a factor. That is not bitwise: then nothing is rewritten."""
    conv = nn.Conv2d(3, 3, 9, groups=3, bias=False)
    conv.weight.data = torch.rand(1, 1, 9, 9).repeat(3, 1, 1, 1)
    norm = nn.BatchNorm2d(3)
    nn.init.uniform_(norm.weight)
    model = nn.Sequential(conv, norm).eval()
    report = optimize(model, (torch.rand(1, 3, 64, 64),), tmp_path / "o.onnx", lowering="expand", seconds=0)
    assert report.shared_count == 1
    assert not report.rewritten
    assert "no convolution was rewritten: the output is the plain export" in text(report)
    assert report.to_json()["sites"][0]["lowering"] is None


MODELS = """
import torch
from torch import nn

def single():
    return nn.Sequential(nn.Conv2d(1, 1, 9)), (torch.rand(1, 1, 64, 64),)

def different():
    return nn.Sequential(nn.Conv2d(3, 3, 9, groups=3)), (torch.rand(1, 3, 64, 64),)

def normed():
    conv = nn.Conv2d(3, 3, 9, groups=3)
    conv.weight.data = torch.rand(1, 1, 9, 9).repeat(3, 1, 1, 1)
    return nn.Sequential(nn.utils.weight_norm(conv)), (torch.rand(1, 3, 64, 64),)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "says"), [("single", "already one kernel"), ("different", "not shared: ")])
def test_no_row_says_shared_where_nothing_was(name: str, says: str, tmp_path: Path) -> None:
    """With ``expand``, the rows and the line below them agree."""
    source = tmp_path / "models.py"
    source.write_text(MODELS)
    out = tmp_path / "o.onnx"
    arguments = ["optimize", f"{source}:{name}", "-o", str(out), "--lowering", "expand", "--seconds", "0"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "nothing was shared: the output is the plain export" in result.stdout
    assert says in " ".join(result.stdout.split())
    rows = result.stdout.split("equivalence")[0]
    assert "shared" not in rows.replace("not shared", "").replace("nothing was shared", "")


def test_find_judges_for_an_export(tmp_path: Path) -> None:
    """A weight norm, which ``optimize`` freezes, is found shared by ``find`` as well."""
    source = tmp_path / "models.py"
    source.write_text(MODELS)
    result = CliRunner().invoke(main, ["find", f"{source}:normed"])
    assert result.exit_code == 0, result.output
    assert "1 of 1 candidate convolutions share a kernel" in result.stdout


def test_find_says_what_can_be_faster(tmp_path: Path) -> None:
    """A convolution of one channel shares nothing. ``optimize`` may still compute it faster."""
    source = tmp_path / "models.py"
    source.write_text(MODELS)
    result = CliRunner().invoke(main, ["find", f"{source}:single"])
    assert result.exit_code == 0, result.output
    assert "one input channel: already one kernel; optimize may compute it faster" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith(
        "0 of 1 candidate convolutions share a kernel; 1 with one kernel already: optimize may"
    )
