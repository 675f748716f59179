"""The main job on real models, through the command line, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import real_models
import torch
from click.testing import CliRunner
from real_models import EXPECTED

from export.cli import main
from fx_passes.capture import capture
from fx_passes.find import judge
from fx_passes.sites import find_calls

MODELS = Path(real_models.__file__)


@pytest.mark.parametrize("name", EXPECTED)
def test_optimize_keeps_every_bit_and_finds_every_site(name: str, tmp_path: Path) -> None:
    """``optimize --lowering expand`` exits 0; its own check has compared the files bit for bit."""
    output, report_file = tmp_path / "out.onnx", tmp_path / "report.json"
    arguments = ["optimize", f"{MODELS}:{name}", "-o", str(output), "--lowering", "expand"]
    result = CliRunner().invoke(main, [*arguments, "--seconds", "0", "--json", str(report_file)])
    assert result.exit_code == 0, result.output
    report = json.loads(report_file.read_text())
    assert report["equivalence"]["bitwise"] is True
    # The example, six kinds of numbers, and Inf and NaN; none was skipped.
    assert report["equivalence"]["cases"] == 8
    sites, expected = report["sites"], EXPECTED[name]
    assert sum(s["shared"] and s["groups"] > 1 for s in sites) == expected.shared
    assert sum(s["shared"] and s["groups"] == 1 for s in sites) == expected.single
    assert sum(not s["shared"] for s in sites) == expected.refused
    assert all(s["reason"] for s in sites if not s["shared"])
    _require_kernels_stored_once(onnx.load(output), sites)


# How many sites of each model the rules lower; the others are too small, or fast as they are. Canny compares
# with thresholds, and other rounding moves edges: its Gaussian is lowered, found out, and put back.
LOWERED = {
    "gaussian_blur": 1,
    "blur_pool": 0,
    "canny": 0,
    "ssim": 1,
    "k_downsample": 0,
    "k_upsample": 1,
    "fir_downsample": 1,
    "resnetblur50": 0,
    "vocoder": 218,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_static_lowering_is_equivalent(name: str, tmp_path: Path) -> None:
    """``optimize --lowering static`` exits 0, within the bound of float64."""
    output, report_file = tmp_path / "out.onnx", tmp_path / "report.json"
    arguments = ["optimize", f"{MODELS}:{name}", "-o", str(output), "--lowering", "static"]
    result = CliRunner().invoke(main, [*arguments, "--seconds", "0", "--json", str(report_file)])
    assert result.exit_code == 0, result.output
    report = json.loads(report_file.read_text())
    assert report["equivalence"]["passed"]
    assert report["equivalence"]["cases"] >= 7
    lowered = [s for s in report["sites"] if s["lowering"] not in (None, "expand")]
    assert len(lowered) == LOWERED[name], [s["lowering"] for s in report["sites"]]


def _require_kernels_stored_once(model: onnx.ModelProto, sites: list[dict]) -> None:
    """No initializer holds the repeats of a shared weight; every weight comes out of an Expand."""
    repeated = {tuple(s["weight_shape"]) for s in sites if s["shared"] and s["groups"] > 1}
    stored = {tuple(i.dims) for i in model.graph.initializer}
    assert not repeated & stored
    producers = {name: node for node in model.graph.node for name in node.output}
    expanded = 0
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        source = producers.get(node.input[1])
        while source is not None and source.op_type in ("Reshape", "Where"):
            source = producers.get(source.input[source.op_type == "Where"])
        in_groups = any(a.name == "group" and a.i > 1 for a in node.attribute)
        assert source is not None or not in_groups
        expanded += source is not None and source.op_type == "Expand"
    # onnxscript merges equal nodes on equal inputs, which two sites with one kernel may have become.
    shared = sum(s["shared"] and s["groups"] > 1 for s in sites)
    assert (expanded > 0) == (shared > 0)
    assert expanded <= shared


@pytest.mark.parametrize("name", EXPECTED)
def test_find_explains_every_convolution_in_groups(name: str) -> None:
    """Every convolution with groups > 1 in the graph has a finding: shared, or with a reason."""
    model, inputs = getattr(real_models, name)()
    graph_module = capture(model, inputs).graph_module
    found = {verdict.finding.site.node: verdict.finding for verdict in judge(graph_module)}
    grouped = [call for call in find_calls(graph_module) if call.groups != 1]
    assert all(call.node.name in found for call in grouped)
    assert all(f.shared or f.reason for f in found.values())


def test_vocoder_has_as_many_transposed_sites_as_ordinary_ones() -> None:
    """Half of the 218 convolutions in groups upsample, half downsample."""
    model, inputs = real_models.vocoder()
    graph_module = capture(model, inputs).graph_module
    ops = [call.op for call in find_calls(graph_module) if call.groups != 1]
    assert ops.count("conv_transpose1d") == ops.count("conv1d") == 109


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"vocoder", "resnetblur50"}))
def test_shared_model_computes_the_same_bits_in_pytorch(name: str) -> None:
    """The trainable graph module, too, computes what the model does, bit for bit."""
    import fx_passes

    model, inputs = getattr(real_models, name)()
    expected = model(*inputs)
    found = fx_passes.share_kernels(model, inputs)(*inputs)
    pairs = zip(expected, found, strict=True) if isinstance(expected, tuple) else [(expected, found)]
    assert all(torch.equal(a, b) for a, b in pairs)
