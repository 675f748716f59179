"""A lowered site between two convolutions: no Reshape comes between them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from lowered_sites import lowered, product
from torch import nn

from export import to_onnx


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grouped", "separable"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_chain_of_convolutions_is_not_broken(name: str, batch: int, tmp_path: Path) -> None:
    """onnxruntime keeps the tensors between convolutions in blocks of channels.

    A Reshape to the same shape would end that. So there is none.
    """
    conv = nn.Conv2d(8, 8, 3, padding=1, groups=1 if name == "grouped" else 8, bias=False)
    kernel = product(3, 3)
    if name == "grouped":
        nn.init.zeros_(conv.weight)
        for channel in range(8):
            conv.weight.data[channel, channel] = kernel
    else:
        conv.weight.data = kernel.expand(8, 1, 3, 3).contiguous()
    model = nn.Sequential(nn.Conv2d(3, 8, 1), conv, nn.Conv2d(8, 4, 1)).eval()
    x = torch.rand(batch, 3, 12, 10)
    graph_module, _ = lowered(model, (x,), [name])
    file = onnx.load(to_onnx(graph_module, (x,), tmp_path / "chain.onnx"))
    operators = {node.op_type for node in file.graph.node}
    assert operators == {"Conv", "Expand"}
