"""Exports of the known models, by both exporters of torch and at many opsets, have the sites of the model."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import real_models
import torch

from export.read_onnx.model import read_model
from export.read_onnx.sites import analyse
from fx_passes.capture.inference import capture_for_inference
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site

# What the older exporter refuses: "convolution for kernel of unknown shape", and aten::outer below opset 12.
REFUSED = {("k_downsample", None), ("k_upsample", None), ("small_vocoder", None), ("fir_downsample", 11)}
# (exporter, opset): the older exporter traces, the newer one has opset 18 and up.
EXPORTS = [(False, 11), (False, 13), (False, 17), (True, 18), (True, 20)]
# Where the newer exporter computes the window, exp differs from torch's in the last bit.
ROUNDED = {"gaussian_blur", "ssim"}
MODELS = [
    "gaussian_blur",
    "blur_pool",
    "canny",
    "ssim",
    "k_downsample",
    "k_upsample",
    "fir_downsample",
    "small_vocoder",
]
CASES = [
    (name, new, opset)
    for name in MODELS
    for new, opset in EXPORTS
    if new or not {(name, None), (name, opset)} & REFUSED
]


def exported(name: str, new: bool, opset: int, path: Path) -> list[Site]:
    """The sites of a model in the file that torch writes."""
    model, inputs = getattr(real_models, name)()
    more: Any = {"external_data": False, "verbose": False} if new else {}
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(model.eval(), inputs, path, dynamo=new, opset_version=opset, **more)
    finally:
        logging.disable(logging.NOTSET)
    sites, refusals = analyse(read_model(path)).sites()
    assert refusals == {}
    return sites


@pytest.mark.slow
@pytest.mark.parametrize(("name", "new", "opset"), CASES)
def test_the_sites_of_the_model(name: str, new: bool, opset: int, tmp_path: Path) -> None:
    """What is chosen depends on the keys of the sites alone, and these are those of the torch model."""
    found = exported(name, new, opset, tmp_path / "model.onnx")
    model, inputs = getattr(real_models, name)()
    expected, _ = lowerable_sites(capture_for_inference(model, inputs).graph_module, any_order=True)
    assert [str(site.resample) for site in found] == [str(site.resample) for site in expected]
    if name not in ROUNDED:
        assert [site.key for site in found] == [site.key for site in expected]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.kernel, theirs.kernel, rtol=2**-22, atol=2**-26)
