"""Every lowering in one ONNX file: its operators, the numbers that are stored, and its outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from lowered_sites import lowered, product, repeated, same
from onnx_checks import RESHAPES, numbers, require_close, require_sound
from torch import Tensor, nn
from torch.export import Dim

from export import to_onnx
from export.runtime.session import open_session, run
from fx_passes.capture.routes import capture
from fx_passes.kernels.expand import expand_block_diagonal
from fx_passes.lowerings import propose
from fx_passes.resample.lowerable import lowerable_sites

Conv = Callable[[Tensor, Tensor], Tensor]


class Sites(nn.Module):
    """One convolution for each input. Each gives an output."""

    def __init__(self, weights: Sequence[Tensor], convs: Sequence[Conv]) -> None:
        super().__init__()
        self.weights = nn.ParameterList([weight.clone() for weight in weights])
        self.convs = list(convs)

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(conv(x, w) for conv, x, w in zip(self.convs, inputs, self.weights, strict=True))


@dataclass(frozen=True)
class Example:
    """A site that a lowering is good for, and what it becomes.

    Args:
        operators: the operators in the file. Those that only give a tensor another shape do not count.
        stored: how many numbers the file has for it.
        sites: how many equal sites the model has.
    """

    weight: Tensor
    conv: Conv
    shape: tuple[int, ...]
    operators: dict[str, int]
    stored: int
    sites: int = 1


def dense(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1)


def doubled(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=3)


torch.manual_seed(0)
KERNEL, OTHER, THIRD = (torch.randn(1, 1, 5, 5) for _ in range(3))
# The widths are multiples of the 16 phases. So nothing is computed only to be cut off.
EXAMPLES = {
    "banded": Example(repeated(product(5, 5)), same, (2, 3, 12, 32), {"MatMul": 2}, 12 * 12 + 32 * 32),
    "lift": Example(repeated(torch.randn(1, 1, 5)), same, (2, 3, 32), {"Conv": 1, "Expand": 1}, 5),
    "grouped": Example(
        expand_block_diagonal(torch.randn(1, 1, 3, 3), 3), dense, (2, 3, 9, 9), {"Conv": 1, "Expand": 1}, 9
    ),
    "fold_batch": Example(repeated(OTHER), same, (2, 3, 12, 32), {"Conv": 1, "Expand": 1}, 25),
    "fold_channels": Example(repeated(torch.randn(2, 2, 3, 3)), same, (2, 6, 9, 9), {"Conv": 1}, 36),
    "separable": Example(repeated(product(5, 5)), same, (2, 3, 12, 32), {"Conv": 2, "Expand": 2}, 5 + 5),
    "polyphase": Example(repeated(KERNEL), same, (2, 3, 12, 32), {"Conv": 1, "Transpose": 1}, 16 * 5 * 20),
    "separable_polyphase": Example(
        repeated(product(5, 5)), same, (2, 3, 12, 32), {"Conv": 2, "Transpose": 1}, 16 * (20 + 5)
    ),
    "column_polyphase": Example(
        repeated(product(5, 5)), same, (2, 3, 32, 12), {"Conv": 2, "Transpose": 1}, 16 * (20 + 5)
    ),
    "transposed_polyphase": Example(
        repeated(KERNEL[..., :4, :4]),
        doubled,
        (2, 3, 12, 16),
        # The two phases of the height are cut apart and put one after the other.
        {"Conv": 1, "Transpose": 1, "Split": 1, "Concat": 1},
        2 * 16 * 3 * 10,
    ),
    "transposed_separable": Example(
        repeated(product(4, 4)),
        doubled,
        (2, 3, 12, 16),
        # The three rows that a block of outputs sees lie side by side. One column is repeated for each group.
        {"Conv": 1, "Transpose": 1, "Slice": 3, "Concat": 1, "Expand": 1, "Tile": 1, "ConvTranspose": 1},
        16 * 10 + 3 * 2,
    ),
    "low_rank": Example(
        repeated(product(13, 13, rank=2)),
        same,
        (2, 3, 20, 32),
        {"Conv": 2, "Split": 1, "Concat": 1, "ReduceSum": 1, "Transpose": 1},
        2 * 16 * (28 + 13),
    ),
    "sibling_merge": Example(
        repeated(THIRD),
        same,
        (2, 3, 12, 32),
        {"Concat": 1, "Conv": 1, "Transpose": 1, "Split": 1},
        16 * 5 * 20,
        sites=2,
    ),
}
# The other lowerings need to know the sizes.
OPEN = [name for name in EXAMPLES if name not in ("banded", "fold_batch", "sibling_merge")]


@dataclass(frozen=True)
class Exported:
    """A file with at least one site for each lowering, and the model that gives the outputs in torch."""

    model: Sites
    file: Path
    names: list[str]
    inputs: list[Tensor]


def export_all(names: list[str], folder: Path, dynamic: bool) -> Exported:
    torch.manual_seed(0)
    names = [name for name in names for _ in range(EXAMPLES[name].sites)]
    chosen = [EXAMPLES[name] for name in names]
    model = Sites([e.weight for e in chosen], [e.conv for e in chosen]).eval()
    inputs = [torch.randn(e.shape) for e in chosen]
    open_sizes = ([{i: Dim.AUTO for i in range(x.ndim) if i != 1} for x in inputs],) if dynamic else None
    program = torch.export.export(model, (inputs,), dynamic_shapes=open_sizes)
    graph_module, _ = lowered(program, (inputs,), names)
    file = to_onnx(graph_module, (inputs,), folder / "all.onnx", dynamic_shapes=open_sizes)
    return Exported(model, file, names, inputs)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_all(list(EXAMPLES), tmp_path_factory.mktemp("fixed"), dynamic=False)


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_all(OPEN, tmp_path_factory.mktemp("dynamic"), dynamic=True)


def behind(graph: onnx.GraphProto, output: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes and the initializers that an output is computed from."""
    producers = {name: node for node in graph.node for name in node.output}
    found: dict[str, onnx.NodeProto] = {}
    names, stack = set(), [output]
    while stack:
        name = stack.pop()
        names.add(name)
        node = producers.get(name)
        if node is not None and node.name not in found:
            found[node.name] = node
            stack.extend(node.input)
    return list(found.values()), [tensor for tensor in graph.initializer if tensor.name in names]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["polyphase", "sibling_merge"])
def test_what_siblings_become(name: str, fixed: Exported) -> None:
    """The test counts operators, and numbers that are stored.

    Siblings share one convolution. A site that has no sibling has a convolution of its own.
    """
    graph = onnx.load(fixed.file).graph
    nodes, stored = behind(graph, graph.output[fixed.names.index(name)].name)
    operators = Counter(node.op_type for node in nodes if node.op_type not in RESHAPES)
    assert operators == EXAMPLES[name].operators
    assert numbers(stored) == EXAMPLES[name].stored
    sizes = [onnx.numpy_helper.to_array(tensor).size for tensor in stored]
    assert sum(sizes) - numbers(stored) < 64  # shapes and the like


@pytest.mark.slow
def test_all_of_them_in_one_file(fixed: Exported) -> None:
    """The file is sound.

    In onnxruntime, each output is that of torch, with optimizations and without.
    """
    require_sound(onnx.load(fixed.file))
    expected = fixed.model(fixed.inputs)
    for optimized in (True, False):
        found = run(open_session(fixed.file, optimized=optimized), [x.numpy() for x in fixed.inputs])
        for one, other in zip(found, expected, strict=True):
            require_close(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPEN)
def test_open_batch_and_sizes(name: str, dynamic: Exported) -> None:
    """The file was exported at one size. Its outputs are right at smaller and larger sizes.

    They are also right with more and with fewer items.
    """
    session = open_session(dynamic.file)
    index = dynamic.names.index(name)
    slot = session.get_outputs()[index]
    assert [isinstance(size, str) for size in slot.shape] == [i != 1 for i in range(len(slot.shape))]
    for batch, change in ((1, -2), (3, 0), (2, 1), (4, 9)):
        inputs = [torch.randn(batch, x.shape[1], *(n + change for n in x.shape[2:])) for x in dynamic.inputs]
        found = run(session, [x.numpy() for x in inputs])
        require_close(found[index], dynamic.model(inputs)[index])


@pytest.mark.slow
def test_a_file_with_open_sizes_is_sound(dynamic: Exported) -> None:
    """The file is sound. Each kernel is stored as small as with known sizes."""
    model = onnx.load(dynamic.file)
    require_sound(model)
    assert numbers(model.graph.initializer) == sum(EXAMPLES[name].stored for name in OPEN)


def test_an_open_batch_cannot_be_folded() -> None:
    """``fold_batch`` says itself why it is not among the lowerings with open sizes."""
    example = EXAMPLES["fold_batch"]
    program = torch.export.export(
        Sites([example.weight], [example.conv]).eval(),
        ([torch.randn(example.shape)],),
        dynamic_shapes=([{0: Dim.AUTO}],),
    )
    (site,), _ = lowerable_sites(capture(program, None).graph_module)
    _, refusals = propose(site.resample, site.kernel)
    assert refusals["fold_batch"].reason == "the batch size is open, and the number of groups may not be"
