"""Which convolutions the exporter multiplies the scale of a batch norm into."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace

from export.write_onnx.batch_norm import before_batch_norm, folded_sites
from fx_passes.capture.routes import capture
from fx_passes.find.find_kernels import judge_graph

X = torch.rand(1, 4, 12, 12)


def model() -> nn.Sequential:
    conv = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    conv.weight.data = conv.weight.data[:1].repeat(4, 1, 1, 1)
    return nn.Sequential(conv, nn.BatchNorm2d(4))


def before(graph_module: GraphModule) -> list[bool]:
    """For each convolution of the graph."""
    found = [n for n in graph_module.graph.nodes if "conv" in str(n.target) or str(n.target) == "0"]
    return [before_batch_norm(node, graph_module) for node in found]


def test_in_evaluation_mode_in_any_form() -> None:
    """As a module, as torch.export writes it, and as it is decomposed."""
    evaluated = model().eval()
    assert before(symbolic_trace(evaluated)) == [True]
    program = torch.export.export(evaluated, (X,))
    assert before(capture(program).graph_module) == [True]
    assert before(capture(program.run_decompositions()).graph_module) == [True]


def test_not_in_training_nor_where_others_read_the_convolution() -> None:
    """The statistics of the batch are not known; and what others read must not be scaled."""
    assert before(symbolic_trace(model().train())) == [False]

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.inner[0](x)
            return self.inner[1](y), y

    graph_module = capture(Both().eval(), (X,)).graph_module
    assert before(graph_module) == [False]
    assert folded_sites(graph_module, [v.finding for v in judge_graph(graph_module)]) == frozenset()


def test_folded_sites_are_the_shared_ones() -> None:
    """By their ids."""
    graph_module = capture(model().eval(), (X,)).graph_module
    findings = [verdict.finding for verdict in judge_graph(graph_module)]
    assert folded_sites(graph_module, findings) == {findings[0].id}
