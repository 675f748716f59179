"""The main job on real models, through the command line, as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import real_models
import torch
from click.testing import CliRunner
from onnx import numpy_helper
from planted import plant, spoil
from real_models import EXPECTED

from export import optimize
from export.cli import main
from export.runtime.arrays import tensor_arrays
from export.verify.equivalence import check_equivalence
from export.verify.reference import float64_reference
from export.write_onnx.exporter import stock_export, to_onnx
from export.write_onnx.lowered_sites import Place
from fx_passes.capture.routes import capture
from fx_passes.errors import NotEquivalentError
from fx_passes.find.calls import find_calls
from fx_passes.find.find_kernels import judge_graph
from fx_passes.share.share_kernels import share_kernels

MODELS = Path(real_models.__file__)
QUICK = ("blur_pool",)  # seconds; the others take minutes, all together


def slow(names: Iterable[str]) -> list[Any]:
    """The names, as slow tests but for those in ``QUICK``."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", slow(EXPECTED))
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
    assert sum(s["shared"] and s["groups"] > 1 for s in sites) == expected.shared - expected.merged
    assert sum(s["shared"] and s["groups"] == 1 for s in sites) == expected.single
    assert sum(not s["shared"] for s in sites) == expected.refused
    assert all(s["reason"] for s in sites if not s["shared"])
    _require_kernels_stored_once(onnx.load(output), sites)


# How many sites of each model the rules lower; the others are too small, or fast as they are. Canny compares
# with thresholds, and other rounding moves edges: its Gaussian is kept, on every processor (see below). In
# the file of the vocoder, 16 of 218 sites are merged with an equal one.
LOWERED = {
    "gaussian_blur": 1,
    "blur_pool": 0,
    "canny": 0,
    "ssim": 1,
    "k_downsample": 0,
    "k_upsample": 1,
    "fir_downsample": 1,
    "resnetblur50": 0,
    "vocoder": 202,
    "small_vocoder": 14,
}


@pytest.mark.parametrize("name", slow(EXPECTED))
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


@pytest.mark.slow
def test_canny_is_sensitive_on_every_processor(tmp_path: Path) -> None:
    """Rounding turns its thresholds: that is read off the model; these two files agree in every bit."""
    model, inputs = real_models.canny()
    file = stock_export(model, inputs, tmp_path / "stock.onnx")
    reference = float64_reference(model, inputs)
    result = check_equivalence(
        file, file, example_inputs=tensor_arrays(inputs), reference=reference, require_bitwise=False
    )
    assert result.mismatch is None
    assert result.bitwise
    assert not result.passed
    assert result.sensitive is not None
    assert "jumps where rounding turns a decision" in result.sensitive


KERNELS = 4


@pytest.mark.parametrize("name", slow(EXPECTED))
def test_a_wrong_tap_is_found(name: str, tmp_path: Path) -> None:
    """A ten-thousandth in one tap of one kernel (first, last, those between) is more than rounding."""
    model, inputs = getattr(real_models, name)()
    stock, shared, faulty = (tmp_path / f"{kind}.onnx" for kind in ("stock", "shared", "faulty"))
    stock_export(model, inputs, stock)
    to_onnx(share_kernels(model, inputs), inputs, shared)
    reference = float64_reference(model, inputs)
    kernels = _kernels(onnx.load(shared))
    assert kernels
    for kernel in kernels[:: max(1, len(kernels) // KERNELS)]:
        file = onnx.load(shared)
        (tensor,) = [i for i in file.graph.initializer if i.name == kernel]
        taps = numpy_helper.to_array(tensor).copy()
        taps.reshape(-1)[taps.size // 3] += 1e-4
        tensor.CopyFrom(numpy_helper.from_array(taps, kernel))
        onnx.save(file, faulty)
        result = check_equivalence(
            stock, faulty, example_inputs=tensor_arrays(inputs), reference=reference, require_bitwise=False
        )
        assert result.mismatch is not None, kernel


def spoil_at(at: float, model: onnx.ModelProto, places: Sequence[Place]) -> None:
    """The site that is ``at`` of the way from the first to the last."""
    spoil(model, places[round(at * (len(places) - 1))], 1e-4)


@pytest.mark.parametrize("name", slow([name for name, count in LOWERED.items() if count]))
def test_a_wrong_tap_of_one_site_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one among hundreds, the first, the last or one between: the error names a site, no file is left."""
    model, inputs = getattr(real_models, name)()
    for at in (0.5,) if "vocoder" in name else (0.0, 0.5, 1.0):
        with monkeypatch.context() as patch:
            plant(patch, partial(spoil_at, at))
            with pytest.raises(NotEquivalentError, match="caused by site"):
                optimize(model, inputs, tmp_path / "out.onnx", lowering="static", seconds=0)
    assert list(tmp_path.iterdir()) == []


def _kernels(model: onnx.ModelProto) -> list[str]:
    """The initializers that weights of shared convolutions are made of."""
    stored = {tensor.name for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        name, expanded = node.input[1], False
        while name not in stored and name in producers:
            source = producers[name]
            expanded |= source.op_type == "Expand"
            name = source.input[source.op_type == "Where"]
        if name in stored and name not in found and (expanded or _is_single(model, name)):
            found.append(name)
    return found


def _is_single(model: onnx.ModelProto, name: str) -> bool:
    return any(list(i.dims[:2]) == [1, 1] for i in model.graph.initializer if i.name == name)


def _require_kernels_stored_once(model: onnx.ModelProto, sites: list[dict]) -> None:
    """No initializer holds the repeats of a shared weight; every weight is computed from its kernel."""
    repeated = {tuple(s["weight_shape"]) for s in sites if s["shared"] and s["groups"] > 1}
    stored = {tuple(i.dims) for i in model.graph.initializer}
    assert not repeated & stored
    producers = {name: node for node in model.graph.node for name in node.output}
    computed = 0
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        source = producers.get(node.input[1])
        in_groups = any(a.name == "group" and a.i > 1 for a in node.attribute)
        assert source is not None or not in_groups
        computed += source is not None
    assert computed == sum(s["shared"] and s["groups"] > 1 for s in sites)


@pytest.mark.parametrize("name", slow(EXPECTED))
def test_find_explains_every_convolution_in_groups(name: str) -> None:
    """Every convolution with groups > 1 in the graph has a finding: shared, or with a reason."""
    model, inputs = getattr(real_models, name)()
    graph_module = capture(model, inputs).graph_module
    found = {verdict.finding.site.node: verdict.finding for verdict in judge_graph(graph_module)}
    grouped = [call for call in find_calls(graph_module) if call.groups != 1]
    assert all(call.node.name in found for call in grouped)
    assert all(f.shared or f.reason for f in found.values())


@pytest.mark.slow
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
