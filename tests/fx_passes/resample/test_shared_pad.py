"""One movement of data with several readers: each convolution takes it in, and it goes with the last."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from surroundings import Function, Model, image, left, lower_all, require_equal

from fx_passes.capture.routes import capture

TAKEN: dict[str, Function] = {
    "a pad": lambda m, x: (m.conv(y := F.pad(x, (1, 1, 1, 1))), m.conv(y)),
    "a reflected pad": lambda m, x: m.conv(y := F.pad(x, (1, 1, 1, 1), mode="reflect")) * m.conv(y),
    "a pad in front of a slice": lambda m, x: (m.conv(y := F.pad(x, (1, 1, 1, 1))), m.conv(y[..., 1:])),
    "a pad in front of two pads": lambda m, x: (m.conv(F.pad(y := F.pad(x, (1, 1)), (2, 0))), m.conv(y)),
}
KEPT: dict[str, Function] = {
    "an output": lambda m, x: (m.conv(y := F.pad(x, (1, 1))), m.conv(y), y),
    "another operator": lambda m, x: (m.conv(y := F.pad(x, (1, 1))), m.conv(y), y.exp()),
    "a slice that is an output": lambda m, x: (m.conv(y := F.pad(x, (1, 1))), y[..., 1:]),
}


@pytest.mark.parametrize("name", TAKEN)
def test_it_goes_with_the_last_reader(name: str) -> None:
    """Every convolution reads the input itself. The numbers are the same."""
    model, x = Model(TAKEN[name]), image()
    graph_module = capture(model, (x,)).graph_module
    sites = lower_all(graph_module)
    assert {site.source for site in sites} == {"x"}
    assert not {"pad", "slice", "constant_pad_nd"} & set(left(graph_module))
    require_equal(model, graph_module, x)


@pytest.mark.parametrize("name", KEPT)
def test_it_stays_for_any_other_reader(name: str) -> None:
    """It has to be computed for the other one. So the convolutions read what it gives."""
    model, x = Model(KEPT[name]), image()
    graph_module = capture(model, (x,)).graph_module
    assert {site.source for site in lower_all(graph_module)} == {"pad"}
    assert "pad" in left(graph_module)
    require_equal(model, graph_module, x)
