"""Private names of torch stand in one file, and each of them does what this project relies on.

A new torch that renames or changes one shows here, in one red file: a test for each, named after it.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes
from torch.fx import GraphModule, Node
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.overrides import TorchFunctionMode

from fx_passes.graph import operators
from fx_passes.graph import torch_internals as internals

ROOT = Path(__file__).parents[3]
PLACE = Path(internals.__file__).relative_to(ROOT)

# --- No other file touches one ---------------------------------------------------------------------------


def _private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _torchs_own() -> frozenset[str]:
    """The private attributes of what we derive from and are given: ours have other names."""
    graph_module = torch.fx.symbolic_trace(nn.Conv2d(1, 1, 1))
    holders = (graph_module, nn.ConvTranspose2d(1, 1, 1), torch.fx.Tracer(), graph_module.graph)
    return frozenset(name for holder in holders for name in dir(holder) if _private(name))


TORCHS_OWN = _torchs_own()


def _from_elsewhere(tree: ast.AST) -> set[str]:
    """The names that a file imports, but for those of torch."""
    found: set[str] = set()
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            module = node.module if isinstance(node, ast.ImportFrom) else alias.name
            if (module or "").partition(".")[0] != "torch":
                found.add(alias.asname or alias.name.partition(".")[0])
    return found


def _root(node: ast.expr) -> str:
    """``torch`` of ``torch.ops.aten``, ``super`` of ``super()``."""
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def private_uses(text: str) -> list[str]:
    """The lines of a file that touch private names of torch: imports, attributes, overrides, texts."""
    tree = ast.parse(text)
    ours = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    ours |= {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store)
    }
    others = _from_elsewhere(tree)
    lines = text.splitlines()
    methods = [inner for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for inner in node.body]
    found = {m.lineno for m in methods if isinstance(m, ast.FunctionDef) and m.name in TORCHS_OWN}
    found |= {getattr(n, "lineno", 0) for n in ast.walk(tree) if _touches(n, ours - TORCHS_OWN, others)}
    return [lines[number - 1].strip() for number in sorted(found)]


def _touches(node: Any, ours: set[str], others: set[str]) -> bool:
    """Whether a node touches a private name; ``ours``: defined here, ``others``: imported from elsewhere."""
    if isinstance(node, ast.Import):
        modules = [alias.name.split(".") for alias in node.names]
        return any(parts[0] == "torch" and any(map(_private, parts)) for parts in modules)
    if isinstance(node, ast.ImportFrom):
        parts = (node.module or "").split(".")
        return parts[0] == "torch" and any(map(_private, [*parts, *(alias.name for alias in node.names)]))
    if isinstance(node, ast.Constant):
        return node.value in TORCHS_OWN if isinstance(node.value, str) else False
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
        name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
        return node.func.id in ("getattr", "hasattr", "setattr") and isinstance(name, str) and _private(name)
    if isinstance(node, ast.Attribute) and _private(node.attr):
        root = _root(node.value)
        if root in others and isinstance(node.value, ast.Name | ast.Attribute):
            return False
        return root not in ("self", "cls", "super") or node.attr not in ours
    return False


FILES = sorted(
    file.relative_to(ROOT)
    for package in ("fx_passes", "export", "benchmarks", "examples")
    for file in (ROOT / package).rglob("*.py")
)


@pytest.mark.parametrize("file", [f for f in FILES if f.parts[0] in ("fx_passes", "export")], ids=str)
def test_no_other_file_touches_them(file: Path) -> None:
    """Imports, attributes, overridden methods and names as texts; onnx and python have private names, too."""
    found = private_uses((ROOT / file).read_text())
    assert (found == []) is (file != PLACE), found


@pytest.mark.parametrize(
    "text",
    [
        "import torch._dynamo",
        "import torch.utils._pytree as pytree",
        "from torch._subclasses import FakeTensorMode",
        "from torch.utils import _pytree",
        "def f():\n    from torch.fx.graph_module import _assign_attr",
        "torch._assert_async(x)",
        "torch.ops.aten._convolution.default",
        "nn.modules.conv._ConvNd",
        "aten._convolution",
        "module._parameters",
        "node.target._schema.arguments",
        "self.module()._buffers",
        "class A(nn.Module):\n    def f(self):\n        return self._parameters",
        "class A(nn.Module):\n    def f(self):\n        return self._unknown",
        "class A(nn.Module):\n    def f(self):\n        return super()._unknown",
        "class A(nn.Module):\n    def _load_from_state_dict(self, *args): ...",
        "vars(module)['_modules']",
        "getattr(program, '_guards_fn', None)",
    ],
)
def test_a_use_is_found(text: str) -> None:
    """Negative control: each way to touch one."""
    header = "import torch\nfrom torch import nn\n"
    assert private_uses(header) == []
    assert private_uses(header + text) == [text.splitlines()[-1].strip()]


def test_what_is_not_torchs_is_none() -> None:
    """Our own names, python's, onnx's, and names with two underscores."""
    text = """
import onnx, pickle
import torch
class A(torch.nn.Module):
    _kept = 1
    def __init__(self):
        self._copies = {}
    def _own(self):
        return self._copies, self._own(), self.__class__, type(self).__name__, self._kept
pickle._Unpickler, onnx._custom
"""
    assert private_uses(text) == []


# --- Each of them has a canary ---------------------------------------------------------------------------


def _public_names(text: str) -> Iterator[str]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if alias.asname == alias.name)


def test_each_has_a_canary() -> None:
    """``test_conv_nd`` for ``ConvNd``, and so on: who adds one adds a test."""
    names = [name for name in _public_names((ROOT / PLACE).read_text()) if not name.startswith("_")]
    tests = {name: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in names}
    assert [name for name, test in tests.items() if f"test_{test}" not in globals()] == []
    assert len(names) > 40


def test_each_is_used() -> None:
    """One that nobody uses any more goes away, with its canary."""
    texts = [(ROOT / file).read_text() for file in FILES if file != PLACE]
    names = [name for name in _public_names((ROOT / PLACE).read_text()) if not name.startswith("_")]
    used = [name for name in names if any(re.search(rf"\b{name}\b", text) for text in texts)]
    assert used == names


# --- What the canaries share -----------------------------------------------------------------------------


class Plus(nn.Module):
    """(n,) and (m,) with n = m, and a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * self.weight + y


def program(model: nn.Module | None = None, *inputs: Any, **options: Any) -> ExportedProgram:
    if model is None:
        model, inputs = Plus(), (torch.rand(3), torch.rand(3))
    return torch.export.export(model, inputs, **options)


def graph_of(function: Callable[..., Any], *inputs: Tensor) -> list[GraphModule]:
    """The graphs that dynamo makes of a function."""
    torch.compiler.reset()
    graphs: list[GraphModule] = []

    def backend(graph_module: GraphModule, _: Any) -> Any:
        graphs.append(graph_module)
        return graph_module

    torch.compile(function, backend=backend)(*inputs)
    return graphs


def targets(graph_module: GraphModule) -> list[Any]:
    return [node.target for node in graph_module.graph.nodes]


@dataclass
class Pair:
    """A container of a user."""

    first: Tensor
    second: Tensor


torch.export.register_dataclass(Pair, serialized_type_name="test_torch_internals.Pair")

# --- Classes and modules that are passed on --------------------------------------------------------------


def test_user_error() -> None:
    """A size that the model fixes: the message has what torch reads its own suggestions from."""

    class Even(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones(4)

    with pytest.raises(internals.UserError) as caught:
        program(Even(), torch.rand(4), dynamic_shapes=({0: Dim("n")},))
    fixed = refine_dynamic_shapes_from_suggested_fixes(caught.value.msg, ({0: Dim("n")},))
    assert fixed == ({0: 4},)


def test_op_overload() -> None:
    """Targets of exported graphs are some, with their name; functions and packets are none."""
    found = [t for t in targets(program().module()) if isinstance(t, internals.OpOverload)]
    assert [t.name() for t in found] == ["aten::mul.Tensor", "aten::add.Tensor"]
    assert torch.ops.aten.conv2d.default.name() == "aten::conv2d"
    assert not isinstance(torch.add, internals.OpOverload)


def test_op_overload_packet() -> None:
    """All overloads of an operator, and the way from one to it."""
    packet = torch.ops.aten.conv2d
    assert isinstance(packet, internals.OpOverloadPacket)
    assert not isinstance(packet.default, internals.OpOverloadPacket)
    assert packet.default.overloadpacket is packet


def test_fake_tensor_mode() -> None:
    """Shapes pass through a graph that holds real tensors, whose numbers stay what they are."""
    graph_module = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 5)))
    before = graph_module.get_parameter("0.weight").clone()
    fake = internals.FakeTensorMode(allow_non_fake_inputs=True)
    FakeTensorProp(graph_module, fake).propagate(torch.rand(2, 3))
    shapes = [tuple(node.meta["val"].shape) for node in graph_module.graph.nodes]
    assert shapes == [(2, 3), (2, 5), (2, 5)]
    assert torch.equal(graph_module.get_parameter("0.weight"), before)


def test_tree_flatten_spec() -> None:
    """The leaves in the order of the structure."""
    value = {"b": [1, (2, 3)], "a": 4, "c": Pair(torch.ones(1), torch.zeros(1))}
    spec = internals.pytree.tree_structure(value)
    assert internals.tree_flatten_spec(value, spec) == internals.pytree.tree_leaves(value)


def test_torch_dispatch_mode() -> None:
    """Sees the operators that a layer is made of, each an overload, and may change results."""
    seen: list[str] = []

    class Mode(internals.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert isinstance(func, internals.OpOverload)
            seen.append(func.name())
            return func(*args, **(kwargs or {})) + 1

    x, weight = torch.rand(1, 2, 5), torch.rand(2, 1, 3)
    with Mode():
        found = F.conv1d(x, weight, groups=2)
    assert seen == ["aten::convolution"]
    assert torch.equal(found, F.conv1d(x, weight, groups=2) + 1)


def test_pytree() -> None:
    """Leaves, structures, paths, and classes that users registered."""
    pytree, pair = internals.pytree, Pair(torch.ones(1), torch.zeros(1))
    value: tuple[Any, ...] = ([1, {"a": 2}], None, pair)
    leaves, spec = pytree.tree_flatten(value)
    assert leaves == pytree.tree_leaves(value) == [1, 2, None, pair.first, pair.second]
    assert pytree.tree_unflatten(leaves, spec) == value
    assert pytree.tree_map(lambda leaf: (leaf,), [1, {"a": 2}]) == [(1,), {"a": (2,)}]
    paths = pytree.tree_flatten_with_path(value)[0]
    assert [pytree.keystr(path) for path, _ in paths][:3] == ["[0][0]", "[0][1]['a']", "[1]"]
    assert spec.num_leaves == 5
    assert [child.is_leaf() for child in spec.children()] == [False, True, False]
    assert spec.child(0) == pytree.tree_structure(value[0])
    assert spec.child(0).child(1).context == ["a"]
    assert list(pytree.SUPPORTED_NODES[Pair].flatten_fn(pair)[0]) == [pair.first, pair.second]


# --- Operators -------------------------------------------------------------------------------------------


def test_aten_convolution() -> None:
    """The arguments of ``aten.convolution``, and four flags."""
    x, weight = torch.rand(1, 2, 5), torch.rand(2, 1, 3)
    found = internals.ATEN_CONVOLUTION(
        x, weight, None, [1], [0], [1], False, [0], 2, False, False, False, False
    )
    assert torch.equal(found, F.conv1d(x, weight, groups=2))
    names = [a.name for a in internals.schema_of(internals.ATEN_CONVOLUTION).arguments]
    plain = [a.name for a in internals.schema_of(torch.ops.aten.convolution.default).arguments]
    assert names[:9] == plain


def test_torch_convolution() -> None:
    """The same as a function, which symbolic tracing records as it is."""
    weight = torch.rand(2, 1, 3)

    def call(x: Tensor) -> Tensor:
        return torch._convolution(x, weight, None, [1], [0], [1], False, [0], 2, False, False, False, False)

    assert internals.TORCH_CONVOLUTION in targets(torch.fx.symbolic_trace(call))


def test_aten_batch_norm() -> None:
    """What a batch norm becomes when a program for evaluation is decomposed."""
    decomposed = program(nn.BatchNorm1d(2).eval(), torch.rand(1, 2, 3)).run_decompositions()
    assert internals.ATEN_BATCH_NORM in targets(decomposed.module())


def test_aten_assert_scalar() -> None:
    """What a model needs of an open size stands in its graph as an expression of symbols."""
    with internals.sizes_of_one_stay_open():
        exported = program(
            Folds(),
            torch.rand(6),
            dynamic_shapes=({0: Dim.DYNAMIC},),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    nodes = [node for node in exported.graph.nodes if node.target is internals.ATEN_ASSERT_SCALAR]
    (size,) = (n.meta["val"].shape[0].node.expr for n in exported.graph.nodes if n.op == "placeholder")
    conditions = [n.args[0].meta["val"].node.expr for n in nodes if isinstance(n.args[0], Node)]
    assert any(condition.free_symbols == {size} for condition in conditions)


class Folds(nn.Module):
    """(n,) -> (n / 2, 2), n even."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 2)


def test_assert_async() -> None:
    """Raises what it is told where the tensor is false, and breaks no graph."""
    internals.ASSERT_ASYNC(torch.tensor(True), "never said")
    with pytest.raises(RuntimeError, match="said here"):
        internals.ASSERT_ASYNC(torch.tensor(False), "said here")

    def check(x: Tensor) -> Tensor:
        internals.ASSERT_ASYNC(x.sum() > 0, "said here")
        return x + 1

    assert len(graph_of(check, torch.ones(2))) == 1


def test_set_grad_enabled() -> None:
    """What dynamo writes where gradients are switched."""

    def frozen(x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x * 2
        return x + y

    (graph_module,) = graph_of(frozen, torch.ones(2, requires_grad=True))
    assert targets(graph_module).count(internals.SET_GRAD_ENABLED) == 2
    (plain,) = graph_of(torch.sin, torch.ones(2))
    assert internals.SET_GRAD_ENABLED not in targets(plain)


def test_schema_of() -> None:
    """Names, defaults, and what shares memory with an argument or writes to it."""
    conv = internals.schema_of(torch.ops.aten.conv2d.default).arguments
    assert [a.name for a in conv] == "input weight bias stride padding dilation groups".split()
    assert {a.name: a.default_value for a in conv if a.has_default_value()}["groups"] == 1
    written = internals.schema_of(torch.ops.aten.add_.Tensor).arguments
    assert [bool(a.alias_info and a.alias_info.is_write) for a in written] == [True, False, False]
    viewed = internals.schema_of(torch.ops.aten.expand.default).arguments[0].alias_info
    assert viewed is not None
    assert not viewed.is_write
    assert internals.schema_of(torch.ops.aten.clone.default).arguments[0].alias_info is None


def test_names_of_operators() -> None:
    """Names that our tables have as texts: each is an operator or a method of this torch."""
    tables = [operators.LAYOUT, operators.CONVOLUTIONS, operators.SCATTER, operators.RANDOM]
    known = {name for table in tables for name in table if name.startswith("_")}
    known |= {"_assert_tensor_metadata", "_local_scalar_dense"}
    assert {"_to_copy", "_unsafe_view", "_convolution"} <= known
    assert [name for name in sorted(known) if not hasattr(torch.ops.aten, name)] == []
    assert callable(Tensor._is_view)


# --- Modules ---------------------------------------------------------------------------------------------


def test_conv_nd() -> None:
    """All convolutions, lazy and transposed ones as well, and their geometry."""
    for conv in (nn.Conv1d(2, 2, 3), nn.ConvTranspose3d(2, 2, 3), nn.LazyConv2d(2, 3)):
        assert isinstance(conv, internals.ConvNd)
    other = nn.ConvTranspose2d(2, 4, 3, groups=2)
    assert other.transposed
    assert (other.kernel_size, other.groups, other.output_padding) == ((3, 3), 2, (0, 0))
    assert not isinstance(nn.Linear(2, 2), internals.ConvNd)


def test_conv_transpose_nd() -> None:
    """The transposed ones alone, below the class of all."""
    assert isinstance(nn.ConvTranspose1d(2, 2, 3), internals.ConvTransposeNd)
    assert not isinstance(nn.Conv1d(2, 2, 3), internals.ConvTransposeNd)
    assert issubclass(internals.ConvTransposeNd, internals.ConvNd)


def test_batch_norm() -> None:
    """All batch norms, lazy ones as well; other norms are none."""
    for norm in (nn.BatchNorm1d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2), nn.LazyBatchNorm2d()):
        assert isinstance(norm, internals.BatchNorm)
    for other in (nn.InstanceNorm2d(2), nn.LayerNorm(2), nn.GroupNorm(1, 2)):
        assert not isinstance(other, internals.BatchNorm)


@pytest.mark.parametrize("padding", ["same", (1, 2)])
def test_reversed_padding(padding: Any) -> None:
    """As ``F.pad`` takes it: the last dimension first."""
    conv = nn.Conv2d(1, 1, (3, 4), padding=padding, padding_mode="circular", bias=False)
    found = internals.reversed_padding(conv)
    assert list(found) == ([1, 2, 1, 1] if padding == "same" else [2, 2, 1, 1])
    x = torch.rand(1, 1, 6, 6)
    assert torch.equal(conv(x), F.conv2d(F.pad(x, found, mode="circular"), conv.weight))


def test_output_padding() -> None:
    """What makes the output as large as asked, and torch's own error where nothing does."""
    conv, x = nn.ConvTranspose1d(1, 1, 3, stride=2, output_padding=1), torch.rand(1, 1, 4)
    assert list(internals.output_padding(conv, x, None)) == [1]
    assert list(internals.output_padding(conv, x, [9])) == [0]
    with pytest.raises(ValueError, match="requested an output size"):
        internals.output_padding(conv, x, [50])


def test_has_own_forward() -> None:
    """A convolution calls both methods, of itself before those of its class."""
    x = torch.rand(1, 1, 3)
    for name in ("forward", "_conv_forward"):
        conv = nn.Conv1d(1, 1, 1)
        assert not internals.has_own_forward(conv)
        setattr(conv, name, lambda *args: args[0] * 0 + 7)
        assert internals.has_own_forward(conv)
        assert torch.equal(conv(x), torch.full_like(x, 7))


def test_parameters_held() -> None:
    """None among them, and what is put there is what the module uses."""
    linear = nn.Linear(2, 2, bias=False)
    held = internals.parameters_held(linear)
    assert list(held) == ["weight", "bias"]
    assert held["bias"] is None
    held["weight"] = nn.Parameter(torch.zeros(2, 2))
    assert linear.weight is held["weight"]
    assert not linear(torch.ones(2)).any()


def test_buffers_held() -> None:
    """The same for buffers."""
    norm = nn.BatchNorm1d(2)
    norm.register_buffer("none", None)
    held = internals.buffers_held(norm)
    assert list(held) == ["running_mean", "running_var", "num_batches_tracked", "none"]
    held["running_mean"] = torch.ones(2)
    assert norm.running_mean is held["running_mean"]


def test_modules_held() -> None:
    """A module under two names is there twice, and what is put there is called."""
    relu = nn.ReLU()
    model = nn.Sequential(relu, relu)
    held = internals.modules_held(model)
    assert list(held) == ["0", "1"]
    held["1"] = nn.Hardtanh(0, 0.5)
    assert model(torch.ones(1)) == 0.5


def test_own_registries() -> None:
    """After it, a module that shares all attributes of another does not change the other."""
    old = nn.Sequential(nn.BatchNorm1d(2))
    old.register_parameter("weight", nn.Parameter(torch.ones(1)))
    new = nn.Sequential.__new__(nn.Sequential)
    new.__dict__.update(vars(old))
    internals.own_registries(new)
    assert new.weight is old.weight
    new.weight = nn.Parameter(torch.zeros(1))
    new.register_buffer("extra", torch.ones(1))
    new.append(nn.ReLU())
    assert list(old.state_dict()) == [k for k in new.state_dict() if k != "extra"]
    assert old.weight == 1
    assert len(old) == 1


def test_unsaved_buffers() -> None:
    """Not in the state_dict; what is added to them is not, either."""
    module = nn.Module()
    module.register_buffer("saved", torch.ones(1))
    module.register_buffer("lost", torch.ones(1), persistent=False)
    assert internals.unsaved_buffers(module) == {"lost"}
    internals.unsaved_buffers(module).add("saved")
    assert list(module.state_dict()) == []


def test_assign_attribute() -> None:
    """Parameters and buffers by dotted names, with modules on the way."""
    module, parameter, buffer = nn.Module(), nn.Parameter(torch.ones(1)), torch.zeros(1)
    internals.assign_attribute(parameter, module, "a.b.weight")
    internals.assign_attribute(buffer, module, "a.mean")
    assert module.get_parameter("a.b.weight") is parameter
    assert module.get_buffer("a.mean") is buffer


def test_storage_id() -> None:
    """The same for views, another one for other memory, on the meta device as well."""
    for device in ("cpu", "meta"):
        one, other = torch.empty(4, device=device), torch.empty(4, device=device)
        same = one[1:].expand(2, 3).detach()
        assert internals.storage_id(one) == internals.storage_id(same) != internals.storage_id(other)


def test_before_loading() -> None:
    """Called with the prefix of the module before its tensors are loaded; what it changes is loaded."""

    class Doubled(internals.BeforeLoading, nn.Linear):
        def before_loading(self, state_dict: dict[str, Any], prefix: str) -> None:
            assert prefix == "0."
            state_dict[f"{prefix}weight"] = state_dict[f"{prefix}weight"] * 2

    model = nn.Sequential(Doubled(1, 1, bias=False))
    model.load_state_dict({"0.weight": torch.ones(1, 1)})
    assert model[0].weight == 2


# --- Hooks -----------------------------------------------------------------------------------------------


def test_forward_hooks() -> None:
    """Those that are registered, by a key; one that is taken out does not run."""
    relu, x = nn.ReLU(), torch.ones(1)
    handle = relu.register_forward_hook(lambda module, args, output: output + 1)
    assert relu(x) == 2
    assert list(internals.forward_hooks(relu)) == [handle.id]
    internals.forward_hooks(relu).clear()
    assert relu(x) == 1


def test_forward_pre_hooks() -> None:
    """One that is replaced is called in its place, with keywords if the first one was."""
    relu, said = nn.ReLU(), list[str]()
    relu.register_forward_pre_hook(lambda module, args: said.append("first"))
    handle = relu.register_forward_pre_hook(lambda module, args, kwargs: None, with_kwargs=True)
    relu.register_forward_pre_hook(lambda module, args: said.append("last"))
    hooks = internals.forward_pre_hooks(relu)
    hooks[handle.id] = lambda module, args, kwargs: said.append(str(list(kwargs)))
    relu(input=torch.ones(1))
    assert said == ["first", "['input']", "last"]
    hooks.clear()
    relu(torch.ones(1))
    assert len(said) == 3


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_has_backward_hooks(register: str) -> None:
    """Of both kinds."""
    relu = nn.ReLU()
    assert not internals.has_backward_hooks(relu)
    getattr(relu, register)(lambda *args: None)
    assert internals.has_backward_hooks(relu)


REGISTER = [name for name, _ in inspect.getmembers(nn.Module) if re.fullmatch(r"register_.*_hook", name)]


@pytest.mark.parametrize("register", REGISTER)
def test_has_hooks(register: str) -> None:
    """Whatever the kind."""
    assert len(REGISTER) >= 8
    relu = nn.ReLU()
    assert not internals.has_hooks(relu)
    getattr(relu, register)(lambda *args: None)
    assert internals.has_hooks(relu)


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_has_hooks_of_a_parameter(register: str) -> None:
    """Of both kinds."""
    parameter = nn.Parameter(torch.ones(1))
    assert not internals.has_hooks(parameter)
    getattr(parameter, register)(lambda *args: None)
    assert internals.has_hooks(parameter)


def test_load_hooks() -> None:
    """Each knows what was registered; one that is taken out does not run."""
    linear, said = nn.Linear(1, 1), list[str]()

    def hook(*args: Any) -> None:
        said.append("loaded")

    internals.register_load_hook(linear, hook)
    (key, wrapped), *_ = internals.load_hooks(linear).items()
    assert wrapped.hook is hook
    linear.load_state_dict(linear.state_dict())
    del internals.load_hooks(linear)[key]
    linear.load_state_dict(linear.state_dict())
    assert said == ["loaded"]


def test_register_load_hook() -> None:
    """Called with state_dict and prefix, also for a copy of a module that is gone."""
    linear, seen = nn.Linear(1, 1, bias=False), list[Any]()
    internals.register_load_hook(linear, lambda state_dict, prefix, *_: seen.append((*state_dict, prefix)))
    twin = nn.Linear(1, 1, bias=False)
    twin.__dict__.update(vars(linear))
    del linear
    nn.Sequential(twin).load_state_dict({"0.weight": torch.ones(1, 1)})
    assert seen == [("0.weight", "0.")]


# --- Graph modules ---------------------------------------------------------------------------------------


def test_put_graph() -> None:
    """It is the graph of the module at once, and its code when it is compiled."""
    graph_module = torch.fx.symbolic_trace(lambda x: x.sin())
    other = torch.fx.symbolic_trace(lambda x: x.cos())
    internals.put_graph(graph_module, other.graph)
    assert graph_module.graph is other.graph
    assert other.graph.owning_module is graph_module
    x = torch.ones(1)
    assert torch.equal(graph_module(x), x.sin())
    graph_module.recompile()
    assert torch.equal(graph_module(x), x.cos())


def open_program() -> ExportedProgram:
    """One whose two open sizes have to be the same."""
    shapes = ({0: Dim.DYNAMIC}, {0: Dim.DYNAMIC})
    return program(Plus(), torch.rand(3), torch.rand(3), dynamic_shapes=shapes)


def test_guards_fn() -> None:
    """The module that is called in front of a graph with guards."""
    module = open_program().module()
    called = [module.get_submodule(n.target) for n in module.graph.nodes if n.op == "call_module"]
    assert [type(inner) for inner in called] == [internals.GuardsFn]


def test_guards_of() -> None:
    """Takes all inputs, and refuses what torch.export assumed; None for a program without open sizes."""
    guards, x = internals.guards_of(open_program()), torch.rand(5)
    assert guards is not None
    guards(x, x)
    with pytest.raises(AssertionError, match="Guard failed"):
        guards(x, torch.rand(4))
    assert internals.guards_of(program()) is None


def test_input_check() -> None:
    """One of the hooks in front, and it refuses other shapes."""
    module = program().module(check_guards=False)
    hooks = internals.forward_pre_hooks(module)
    (key,) = [key for key, hook in hooks.items() if hook is internals.INPUT_CHECK]
    with pytest.raises(RuntimeError, match="shape"):
        module(torch.rand(4), torch.rand(4))
    del hooks[key]
    assert module(torch.rand(4), torch.rand(4)).shape == (4,)


def test_opens_modules() -> None:
    """One hook in front and one behind; the check is none of them, nor are those of users."""
    module = program().module(check_guards=False)
    module.register_forward_hook(lambda *args: None)
    front = [internals.opens_modules(hook) for hook in internals.forward_pre_hooks(module).values()]
    behind = [internals.opens_modules(hook) for hook in internals.forward_hooks(module).values()]
    assert (front, behind) == ([True, False], [True, False])
    for hooks in (internals.forward_pre_hooks(module), internals.forward_hooks(module)):
        for key in [key for key, hook in hooks.items() if internals.opens_modules(hook)]:
            del hooks[key]
    assert module(torch.ones(3), torch.ones(3)).tolist() == [2.0] * 3


class Nested(nn.Module):
    """(n,) in a list, and a keyword."""

    def forward(self, many: list[Tensor], *, scale: Tensor) -> Tensor:
        return many[0] * scale + many[1]


def nested() -> GraphModule:
    inputs = ([torch.ones(2), torch.ones(2)],)
    exported = torch.export.export(Nested(), inputs, {"scale": torch.ones(1)})
    return exported.module(check_guards=False)


def test_structure_of_inputs() -> None:
    """Arguments and keywords."""
    spec = internals.structure_of_inputs(nested())
    assert spec.child(0) == internals.pytree.tree_structure(([1, 2],))
    assert spec.child(1) == internals.pytree.tree_structure({"scale": 1})


def test_names_of_arguments() -> None:
    """In their order, one for each child of the structure."""
    assert internals.names_of_arguments(nested()) == ["many", "scale"]


# --- Capture ---------------------------------------------------------------------------------------------


def test_guards_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where a strict export logs as errors what it raises as well."""
    said: list[logging.LogRecord] = []
    logger = logging.getLogger(internals.GUARDS_LOG)
    monkeypatch.setattr(logger, "handle", said.append)
    # The command line, in the same process, may have silenced the loggers of torch.
    with pytest.raises(internals.UserError), caplog.at_level("ERROR", internals.GUARDS_LOG):
        program(nn.Conv1d(1, 1, 9), torch.rand(1, 1, 30), dynamic_shapes=({2: Dim("n")},), strict=True)
    assert [record.levelname for record in said][:1] == ["ERROR"]


def test_sizes_of_one_stay_open() -> None:
    """A size that is 1 in the example is a symbol within it, and a number without."""
    shapes = ({0: Dim.AUTO},)

    def size() -> Any:
        exported = program(nn.ReLU(), torch.rand(1, 3), dynamic_shapes=shapes)
        return next(iter(exported.graph.nodes)).meta["val"].shape[0]

    with internals.sizes_of_one_stay_open():
        assert isinstance(size(), torch.SymInt)
    assert size() == 1
    assert isinstance(size(), int)


def test_as_exporting() -> None:
    """``is_in_onnx_export()`` says yes, and then what it said before, also after an error."""

    def fail() -> None:
        with internals.as_exporting():
            assert torch.onnx.is_in_onnx_export()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not torch.onnx.is_in_onnx_export()


def test_no_limit() -> None:
    """``Dim.max`` without a limit is what torch has in its ranges."""
    from torch.utils._sympy.numbers import int_oo

    from fx_passes.capture import asked_sizes

    assert asked_sizes._NO_LIMIT is int_oo
    assert Dim("n").max == int_oo
    assert Dim("n", max=7).max == 7


# --- torch.compile ---------------------------------------------------------------------------------------


def test_is_static_input() -> None:
    """Parameters and buffers of the model, not the inputs of the caller."""
    (graph_module,) = graph_of(nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)).eval(), torch.rand(1, 2))
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    static = [node.name for node in inputs if internals.is_static_input(node)]
    assert [node.name for node in inputs if "parameters" in node.name or "buffers" in node.name] == static
    assert len(static) == len(inputs) - 1 == 6


def test_options_of_mode() -> None:
    """A dict of settings; an unknown mode is an error."""
    assert internals.options_of_mode("max-autotune")["max_autotune"] is True
    assert internals.options_of_mode("default") == {}
    with pytest.raises(RuntimeError, match="nonsense"):
        internals.options_of_mode("nonsense")


@pytest.mark.slow
def test_inductor() -> None:
    """What a backend returns, with settings of inductor."""
    torch.compiler.reset()
    compiled = torch.compile(
        lambda x: x.sin() + 1,
        backend=lambda graph, inputs: internals.inductor(graph, inputs, {"max_autotune": False}),
    )
    x = torch.rand(3)
    torch.testing.assert_close(compiled(x), x.sin() + 1)


# --- Modes -----------------------------------------------------------------------------------------------


def test_disable_torch_dispatch() -> None:
    """Within it, a dispatch mode that is on sees nothing."""
    seen: list[str] = []

    class Mode(internals.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func.name())
            return func(*args, **(kwargs or {}))

    x = torch.ones(1)
    with Mode(), internals.DisableTorchDispatch():
        x + 1
    assert seen == []
    with Mode():
        x + 1
    assert seen == ["aten::add.Tensor"]


def test_disable_torch_function() -> None:
    """Within it, a function mode that is on sees nothing."""
    seen: list[str] = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func.__name__)
            return func(*args, **(kwargs or {}))

    x = torch.ones(1)
    with Mode(), internals.DisableTorchFunction():
        x.sin()
    assert seen == []
    with Mode():
        x.sin()
    assert seen == ["sin"]


# --- Files of torch.export -------------------------------------------------------------------------------


def test_operators_on_sizes() -> None:
    """Names of plain functions on numbers, and nothing that could do more."""
    names = internals.operators_on_sizes()
    assert {"add", "mul", "floordiv", "eq", "ge", "sym_max", "sym_not"} <= names
    assert not names & {"system", "eval", "exec", "getattr", "setattr", "load", "open", "call"}


def described(exported: ExportedProgram) -> Any:
    """What ``torch.export.save`` writes of a program and of its weights."""
    file = io.BytesIO()
    torch.export.save(exported, file)
    archive = zipfile.ZipFile(file)
    read = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    weights = json.loads(read["data/weights/model_weights_config.json"])["config"]
    return json.loads(read["models/model.json"]), weights


# torch finds no whole tensor behind a transposed one, and stores what there is.
@pytest.mark.filterwarnings("ignore:No complete tensor found:UserWarning")
def test_stored_tensor() -> None:
    """Type, sizes, strides, offset, device and gradient of a weight."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 2, dtype=torch.float64).T)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    _, weights = described(program(Model(), torch.rand(1, 2, dtype=torch.float64)))
    found = internals.stored_tensor(weights["weight"]["tensor_meta"])
    device = torch.device("cpu")
    assert found == (torch.float64, [2, 3], [1, 2], 0, device, True)


def test_described_program() -> None:
    """A program from its description and its tensors, that computes what it computed."""
    exported, x = program(), torch.rand(3)
    text, _ = described(exported)
    again = internals.described_program(text, dict(exported.state_dict), {}, exported.example_inputs)
    assert torch.equal(again.module()(x, x), exported.module()(x, x))
