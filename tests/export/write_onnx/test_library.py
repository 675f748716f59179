"""Lowered sites in an ONNX file: the operators each becomes, constants stored once, nothing opaque left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from export import to_onnx
from export.runtime.files import output_names
from export.runtime.session import open_session, run
from export.tune.trial import make_trial
from export.write_onnx.exporter import stock_export
from export.write_onnx.library import entry_of, model_of, splice
from fx_passes import lower
from fx_passes.capture.routes import capture
from fx_passes.kernels.expand import expand_block_diagonal
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan
from fx_passes.records import Proposal
from fx_passes.resample.site import Site, lowerable_sites

Conv = Callable[[Tensor, Tensor], Tensor]


class Sites(nn.Module):
    """One convolution for each input, each an output."""

    def __init__(self, weights: Sequence[Tensor], convs: Sequence[Conv]) -> None:
        super().__init__()
        self.weights = nn.ParameterList([weight.clone() for weight in weights])
        self.convs = list(convs)

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(conv(x, w) for conv, x, w in zip(self.convs, inputs, self.weights, strict=True))


def lowered(
    model: nn.Module | ExportedProgram, inputs: tuple[Any, ...], names: Sequence[str]
) -> tuple[torch.fx.GraphModule, list[Site]]:
    """``model`` with its sites, in order, lowered as named, in 16 phases where it has any."""
    sites, _ = lowerable_sites(capture(model, inputs).graph_module)
    assert len(sites) == len(names)
    plan = Plan({s.id: Choice(s.key, proposal_of(s, name)) for s, name in zip(sites, names, strict=True)})
    return lower(model, plan, inputs), sites


def proposal_of(site: Site, name: str) -> Proposal:
    """In 16 phases, their rows split; siblings in phases."""
    wanted = {"phases": 16, "interleave": "split"}
    found, _ = propose(site.resample, site.kernel, siblings=site.siblings)
    merged = name == "sibling_merge"
    proposals = [p for p in found if p.merged == merged and p.lowering == ("polyphase" if merged else name)]
    return next(p for p in proposals if all(wanted[key] == value for key, value in p.params))


def repeated(kernel: Tensor, groups: int = 3) -> Tensor:
    return torch.cat([kernel] * groups)


def product(height: int, width: int, rank: int = 1) -> Tensor:
    """A kernel of a given rank."""
    terms = [torch.randn(1, 1, height, 1) * torch.randn(1, 1, 1, width) for _ in range(rank)]
    return torch.stack(terms).sum(0)


@dataclass(frozen=True)
class Example:
    """A site that a lowering is good for, and what becomes of it.

    Args:
        operators: in the file, those aside that only give a tensor another shape.
        stored: how many numbers.
        sites: how many there are of it.
    """

    weight: Tensor
    conv: Conv
    shape: tuple[int, ...]
    operators: dict[str, int]
    stored: int
    sites: int = 1


def same(x: Tensor, weight: Tensor) -> Tensor:
    """As large as before, three groups."""
    conv = F.conv1d if x.ndim == 3 else F.conv2d
    return conv(x, weight, padding=(weight.shape[-1] - 1) // 2, groups=3)


def dense(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1)


def doubled(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=3)


torch.manual_seed(0)
KERNEL, OTHER, THIRD = (torch.randn(1, 1, 5, 5) for _ in range(3))
# The widths are multiples of the 16 phases, so that nothing is computed in excess and cut off.
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
        # The three rows that a block of outputs sees, side by side; one column, repeated for each group.
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
RESHAPES = {"Reshape", "Squeeze", "Unsqueeze"}
# The others need to know the sizes.
OPEN = [name for name in EXAMPLES if name not in ("banded", "fold_batch", "sibling_merge")]


@dataclass(frozen=True)
class Exported:
    """One site (or more) for each lowering in one file, and what the model gives in torch."""

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


def names_in(graph: onnx.GraphProto) -> list[str]:
    """Of nodes, then of all values: inputs, initializers, what nodes compute."""
    values = [name for node in graph.node for name in node.output]
    return [
        *(f"node {node.name}" for node in graph.node),
        *(slot.name for slot in (*graph.input, *graph.initializer)),
        *values,
    ]


def require_sound(model: onnx.ModelProto) -> None:
    """Valid, every name once, nothing opaque left, not even the import of its domain."""
    onnx.checker.check_model(model, full_check=True)
    assert [opset.domain for opset in model.opset_import] == [""]
    assert {node.domain for node in model.graph.node} == {""}
    assert [name for name, count in Counter(names_in(model.graph)).items() if count > 1] == []


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


def numbers(tensors: Sequence[onnx.TensorProto]) -> int:
    """How many floating-point numbers are stored."""
    return sum(int(np.prod(t.dims)) for t in tensors if t.data_type == TensorProto.FLOAT)


def require_close(found: np.ndarray, expected: Tensor) -> None:
    """Up to what another order of sums, or a factored kernel, makes of float32."""
    expected = expected.detach()
    scale = float(expected.abs().max())
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["polyphase", "sibling_merge"])
def test_what_siblings_become(name: str, fixed: Exported) -> None:
    """Operators are counted, and numbers stored: one call for both sites, or one for each."""
    graph = onnx.load(fixed.file).graph
    nodes, stored = behind(graph, graph.output[fixed.names.index(name)].name)
    operators = Counter(node.op_type for node in nodes if node.op_type not in RESHAPES)
    assert operators == EXAMPLES[name].operators
    assert numbers(stored) == EXAMPLES[name].stored
    sizes = [onnx.numpy_helper.to_array(tensor).size for tensor in stored]
    assert sum(sizes) - numbers(stored) < 64  # shapes and the like


@pytest.mark.slow
def test_all_of_them_in_one_file(fixed: Exported) -> None:
    """It is sound, and in onnxruntime, whether or not that optimizes, each gives what torch does."""
    require_sound(onnx.load(fixed.file))
    expected = fixed.model(fixed.inputs)
    for optimized in (True, False):
        found = run(open_session(fixed.file, optimized=optimized), [x.numpy() for x in fixed.inputs])
        for one, other in zip(found, expected, strict=True):
            require_close(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPEN)
def test_open_batch_and_sizes(name: str, dynamic: Exported) -> None:
    """What was exported at one size is right at others, smaller and larger, with more items and fewer."""
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
    """Valid, unique names, nothing opaque; and each kernel is stored as small as with known sizes."""
    model = onnx.load(dynamic.file)
    require_sound(model)
    assert numbers(model.graph.initializer) == sum(EXAMPLES[name].stored for name in OPEN)


def test_an_open_batch_cannot_be_folded() -> None:
    """Why ``fold_batch`` is not among those with open sizes: it says so itself."""
    example = EXAMPLES["fold_batch"]
    program = torch.export.export(
        Sites([example.weight], [example.conv]).eval(),
        ([torch.randn(example.shape)],),
        dynamic_shapes=([{0: Dim.AUTO}],),
    )
    (site,), _ = lowerable_sites(capture(program, None).graph_module)
    _, refusals = propose(site.resample, site.kernel)
    assert refusals["fold_batch"].reason == "the batch size is open, and the number of groups may not be"


class Chain(nn.Module):
    """One blur three times, and another one."""

    def __init__(self) -> None:
        super().__init__()
        self.often = nn.Buffer(repeated(torch.randn(1, 1, 5, 5) / 5))
        self.once = nn.Buffer(repeated(torch.randn(1, 1, 3, 3) / 3))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = same(x, self.often).sin()
        return same(x, self.once)


@dataclass(frozen=True)
class Chained:
    """The chain as it was captured, as it was lowered, and its file."""

    model: Chain
    x: Tensor
    original: torch.fx.GraphModule
    graph_module: torch.fx.GraphModule
    sites: list[Site]
    file: Path


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Chained:
    torch.manual_seed(0)
    x, model = torch.randn(1, 3, 9, 32), Chain().eval()
    program = torch.export.export(model, (x,))
    graph_module, _ = lowered(program, (x,), ["polyphase"] * 4)
    file = to_onnx(graph_module, (x,), tmp_path_factory.mktemp("chain") / "chain.onnx")
    original = capture(program, (x,)).graph_module
    return Chained(model, x, original, graph_module, lowerable_sites(original)[0], file)


def test_a_module_that_is_called_often_is_stored_once(chained: Chained) -> None:
    """Three calls of one module and one of another: the constants of two, the operators of four."""
    assert len({site.key for site in chained.sites}) == 2
    stored = onnx.load(chained.file)
    require_sound(stored)
    operators = Counter(node.op_type for node in stored.graph.node if node.op_type not in RESHAPES)
    assert operators == {"Conv": 4, "Transpose": 4, "Sin": 3}
    assert numbers(stored.graph.initializer) == 16 * 5 * 20 + 16 * 3 * 18
    require_close(run(open_session(chained.file), [chained.x.numpy()])[0], chained.model(chained.x))


@pytest.mark.slow
def test_a_trial_puts_sites_back(chained: Chained, tmp_path: Path) -> None:
    """One export gives the graph with any of its sites as they were; without any it is the file itself."""
    trial = make_trial(chained.graph_module, chained.original, chained.sites, (chained.x,), None, tmp_path)
    often, once = dict.fromkeys(site.key for site in chained.sites)
    counts = {}
    for without in (frozenset(), frozenset([often]), frozenset([once]), frozenset([often, once])):
        file = trial.write(without)
        require_sound(onnx.load(file))
        require_close(run(open_session(file), [chained.x.numpy()])[0], chained.model(chained.x))
        counts[without] = Counter(node.op_type for node in onnx.load(file).graph.node)
    assert [count["Transpose"] for count in counts.values()] == [4, 1, 3, 0]
    assert {count["Conv"] for count in counts.values()} == {4}
    assert counts[frozenset()] == Counter(node.op_type for node in onnx.load(chained.file).graph.node)


class Ends(nn.Module):
    """A site and what becomes of its output."""

    def __init__(self, end: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.taps = nn.Buffer(repeated(KERNEL))
        self.end = end

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.end(same(x, self.taps))


ENDS: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "the site itself": lambda y: (y,),
    "used often, returned twice": lambda y: (y, y.relu() + y, y),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_outputs_are_named_as_in_the_stock_export(name: str, tmp_path: Path) -> None:
    """Whatever a lowered site is to the outputs: their names, in order, and their values."""
    x = torch.randn(1, 3, 9, 32)
    model = Ends(ENDS[name]).eval()
    wanted = output_names(stock_export(model, (x,), tmp_path / "stock.onnx"))
    graph_module, _ = lowered(model, (x,), ["polyphase"])
    file = to_onnx(graph_module, (x,), tmp_path / "ours.onnx", output_names=wanted)
    require_sound(onnx.load(file))
    assert output_names(file) == wanted
    for found, expected in zip(run(open_session(file), [x.numpy()]), model(x), strict=True):
        require_close(found, expected)


@pytest.mark.slow
def test_a_value_within_that_has_the_name_of_an_output(tmp_path: Path) -> None:
    """It gives way: the output has the name, and both keep their values."""
    x = torch.randn(1, 3, 9, 32)
    model = Ends(lambda y: ((y.relu() + y).sin(),)).eval()
    plain = onnx.load(to_onnx(model, (x,), tmp_path / "plain.onnx"))
    assert "relu" in names_in(plain.graph)
    file = to_onnx(model, (x,), tmp_path / "ours.onnx", output_names=["relu"])
    require_sound(onnx.load(file))
    assert output_names(file) == ["relu"]
    require_close(run(open_session(file), [x.numpy()])[0], model(x)[0])


# By hand, so that what is spliced is known to the last name: y0 = 3 * x0, y1 = 3 * (x1 + 1).
def a_library() -> ir.Model:
    nodes = [
        oh.make_node("Mul", ["x0", "three"], ["y0"], name="first"),
        oh.make_node("Add", ["x1", "one"], ["t"], name="second"),
        oh.make_node("Mul", ["t", "three"], ["y1"], name="third"),
    ]
    return a_model(nodes, ["x0", "x1"], ["y0", "y1"], three=3.0, one=1.0)


def a_model(nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str], **stored: float) -> ir.Model:
    reads, writes = (
        [oh.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in names]
        for names in (inputs, outputs)
    )
    tensors = [
        onnx.numpy_helper.from_array(np.array(value, np.float32), name) for name, value in stored.items()
    ]
    domains = [oh.make_opsetid("", 20), oh.make_opsetid("fx_passes", 1)]
    graph = oh.make_graph(nodes, "test", reads, writes, tensors)
    return ir.from_proto(oh.make_model(graph, opset_imports=domains, ir_version=10))


def a_skeleton() -> ir.Model:
    """Opaque nodes without names, the first and the last of one index, two of them outputs."""
    ways = [(0, "x", "a"), (1, "a", "b"), (0, "b", "y")]
    nodes = [oh.make_node("Lowered", [i], [o], domain="fx_passes", index=n) for n, i, o in ways]
    return a_model(nodes, ["x"], ["y", "b"])


SPLICED: dict[tuple[int, ...] | None, tuple[float, float, int]] = {
    # entries: what y and b are for x = 1, and how many constants are stored
    None: (36.0, 12.0, 2),
    (0, 1): (36.0, 12.0, 2),
    (1, 0): (57.0, 18.0, 2),
    (1, 1): (66.0, 21.0, 2),
    (0, 0): (27.0, 9.0, 1),
}


@pytest.mark.parametrize("entries", SPLICED)
def test_splice_with_entries(entries: tuple[int, ...] | None) -> None:
    """Each opaque node becomes the entry that its index stands for; of the constants those that are used."""
    model = a_skeleton()
    splice(model, a_library(), entries)
    proto = ir.to_proto(model)
    require_sound(proto)
    y, b, count = SPLICED[entries]
    found = run(open_session(proto.SerializeToString()), [np.ones(2, np.float32)])
    assert [array.tolist() for array in found] == [[y, y], [b, b]]
    assert len(proto.graph.initializer) == count


def test_an_entry_of_a_library() -> None:
    """Its nodes in order, and as a model of its own with one input and one output; the library stays."""
    library = a_library()
    before = ir.to_proto(library).SerializeToString()
    assert [node.op_type for node in entry_of(library.graph, 1).nodes] == ["Add", "Mul"]
    for index, expected in enumerate((6.0, 9.0)):
        model = ir.to_proto(model_of(library, index))
        onnx.checker.check_model(model, full_check=True)
        assert (len(model.graph.input), len(model.graph.output)) == (1, 1)
        (found,) = run(open_session(model.SerializeToString()), [np.full(2, 2, np.float32)])
        assert found.tolist() == [expected, expected]
    assert ir.to_proto(library).SerializeToString() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grouped", "separable"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_chain_of_convolutions_is_not_broken(name: str, batch: int, tmp_path: Path) -> None:
    """A Reshape to the shape that there is would end what onnxruntime keeps in blocks of channels."""
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
