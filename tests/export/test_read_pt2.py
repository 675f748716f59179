"""A .pt2 of somebody else: what torch saves opens as before; whatever would run code or lies is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch.export import Dim
from torch.utils import _pytree as pytree

from export.cli import main
from export.loading import load_model
from export.read_pt2 import read_pt2
from export.read_pt2.expressions import require_expression, require_guard
from export.read_pt2.tensors import strided
from export.read_pt2.values import read_values
from fx_passes.errors import LoadError

Change = Callable[[bytes], bytes]


class Everything(nn.Module):
    """Buffers of every kind, a constant, an expanded weight, ``no_grad``, sizes, nested inputs, keywords."""

    expanded: Tensor
    volatile: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, groups=4)
        self.tied = self.conv
        self.register_buffer("expanded", torch.rand(4, 1, 1, 1).expand(4, 1, 3, 3))
        self.register_buffer("volatile", torch.ones(3), persistent=False)
        self.constant = torch.ones(2)
        self.odd = nn.ParameterDict({"a-b c": nn.Parameter(torch.ones(2))})

    def forward(self, x: Tensor, more: dict[str, list[Tensor]], *, k: int = 3, name: str = "a") -> Any:
        with torch.no_grad():
            y = self.conv(x)
        rest = self.volatile.sum() + self.constant.sum() + torch.tensor([1.0, 2.0]).sum() * k
        rest = rest + torch.einsum("ij->i", more["a"][1]).sum() + self.odd["a-b c"].sum()
        half = x[:, :, : x.shape[2] // 2] * 2.5
        doubled = torch.vmap(lambda row: row * 2)(x)
        z = torch.nn.functional.conv2d(x, self.expanded, groups=4) + more["a"][0].sum()
        return {"y": y, "z": (z + rest, half, doubled, x.reshape(2, -1))}


def everything() -> torch.export.ExportedProgram:
    more = {"a": [torch.ones(2).expand(3, 2), torch.ones(2, 3, dtype=torch.bfloat16).T]}
    sizes = {
        "x": {0: Dim.AUTO, 2: Dim.DYNAMIC},
        "more": {"a": [None, None]},
        "k": None,
        "name": None,
    }
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    return torch.export.export(Everything(), (x, more), {"k": 5, "name": "b"}, dynamic_shapes=sizes)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file with one convolution."""
    file = tmp_path_factory.mktemp("good") / "good.pt2"

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, groups=4)
            self.scale = torch.ones(1)

        def forward(self, x: Tensor, k: str = "plain") -> Tensor:
            return self.conv(x) * self.scale

    sizes = {"x": {2: Dim.AUTO}, "k": None}
    program = torch.export.export(Small(), (torch.randn(1, 4, 8, 8), "plain"), dynamic_shapes=sizes)
    torch.export.save(program, file)
    return file


def changed(good: Path, to: Path, changes: dict[str, Change], more: dict[str, bytes] | None = None) -> Path:
    """A copy of a file, with the members that ``changes`` names replaced."""
    source = zipfile.ZipFile(good)
    root = source.namelist()[0].partition("/")[0]
    with zipfile.ZipFile(to, "w") as target:
        for name in source.namelist():
            change = changes.get(name.partition("/")[2], lambda data: data)
            target.writestr(name, change(source.read(name)))
        for name, data in (more or {}).items():
            target.writestr(f"{root}/{name}", data)
    return to


def in_program(edit: Callable[[dict[str, Any]], None]) -> dict[str, Change]:
    """A change of the JSON of the program."""

    def change(data: bytes) -> bytes:
        program = json.loads(data)
        edit(program)
        return json.dumps(program).encode()

    return {"models/model.json": change}


def in_config(kind: str, edit: Callable[[dict[str, Any]], None]) -> dict[str, Change]:
    """A change of each entry of the JSON that describes weights or constants."""

    def change(data: bytes) -> bytes:
        config = json.loads(data)
        for entry in config["config"].values():
            edit(entry)
        return json.dumps(config).encode()

    return {f"data/{kind}/model_{kind}_config.json": change}


def everywhere(key: str, new: Callable[[Any], Any]) -> dict[str, Change]:
    """A change of all that stands under ``key`` in the program."""

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for name in value:
                if name == key:
                    value[name] = new(value[name])
                else:
                    walk(value[name])
        elif isinstance(value, list):
            for item in value:
                walk(item)

    return in_program(walk)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def repacked(data: bytes, how: Callable[[str, bytes], bytes] = lambda _, data: data, **options: Any) -> bytes:
    """A zip file with the same members, written in another way."""
    source, buffer = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as target:
        for name in source.namelist():
            target.writestr(name, how(name, source.read(name)))
    return buffer.getvalue()


def _call_system(program: dict[str, Any], command: str, target: str) -> None:
    argument = {"name": "", "arg": {"as_string": command}, "kind": 1}
    outputs = [{"as_tensor": {"name": "evil"}}]
    node = {"target": target, "inputs": [argument], "outputs": outputs, "metadata": {}, "name": "evil"}
    graph = program["graph_module"]["graph"]
    program["verifiers"] = []  # which torch leaves to the file
    graph["nodes"].insert(0, node)
    graph["tensor_values"]["evil"] = next(iter(graph["tensor_values"].values()))


def _import_by_structure(spec: str) -> str:
    context = json.dumps(
        {"default_factory_module": "evil_module", "default_factory_name": "x", "dict_context": []}
    )
    node = {"type": "collections.defaultdict", "context": context, "children_spec": []}
    return json.dumps([1, {**json.loads(spec)[1], "children_spec": [node]}])


def _import_by_enum(spec: str) -> str:
    keys = json.dumps([{"__enum__": True, "fqn": "evil_module:x", "name": "x"}])
    node = {"type": "builtins.dict", "context": keys, "children_spec": []}
    return json.dumps([1, {**json.loads(spec)[1], "children_spec": [node]}])


def _keyword(spec: str, code: str) -> str:
    tree = json.loads(spec)
    tree[1]["children_spec"][1] = {
        "type": "builtins.dict",
        "context": json.dumps([f"k={code}"]),
        "children_spec": [tree[1]["children_spec"][0]["children_spec"].pop()],
    }
    return json.dumps(tree)


def _renamed(program: dict[str, Any], new: str) -> dict[str, Any]:
    """The program with its input ``x`` called ``new`` wherever it is named."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {new if k == "x" else k: walk(item) for k, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return new if value == "x" else value

    return walk(program)


def hostile(good: Path, to: Path, canary: Path) -> Iterator[tuple[str, Path, str]]:
    """Files that run code, or lie: their name, the file, and what the refusal has to say."""
    touch = f"touch {canary}"
    code = f"__import__('os').system({touch!r})"
    evil = {"*": saved(Evil(touch)), "pickle": pickle.dumps(Evil(touch))}

    def case(
        name: str, says: str, *changes: dict[str, Change], more: dict[str, bytes] | None = None
    ) -> tuple[str, Path, str]:
        merged = {k: v for change in changes for k, v in change.items()}
        return name, changed(good, to / f"{name}.pt2", merged, more), says

    sample, program = "data/sample_inputs/model.pt", "models/model.json"
    yield case("evil_inputs", "pickled object", {sample: lambda _: evil["*"]})
    yield case("old_pickle_inputs", "not a zip file", {sample: lambda _: evil["pickle"]})
    yield case("evil_old_weights", "as a pickle", more={"data/weights/model.pt": evil["*"]})
    weights, weight = {"data/weights/weight_0": lambda _: evil["*"]}, "weights"
    yield case(
        "evil_weights", "pickled object", weights, in_config(weight, lambda e: e.update(use_pickle=True))
    )
    constant: dict[str, Change] = {"data/constants/tensor_0": lambda _: evil["*"]}
    picked = in_config("constants", lambda e: e.update(use_pickle=True))
    yield case("evil_constants", "pickled object", constant, picked)
    for prefix in ("custom_obj_", "opaque_obj_"):
        entry = in_config("constants", lambda e, p=prefix: e.update(path_name=f"{p}0"))  # type: ignore[misc]
        yield case(prefix, "pickled object", entry, more={f"data/constants/{prefix}0": evil["pickle"]})
    yield case("compiled", "compiled code", more={"data/aotinductor/model/model.so": b"\x7fELF"})
    sizes = everywhere("sizes", lambda s: [{"as_expr": {"expr_str": code, "hint": None}}, *s[1:]])
    yield case("evil_size", "sizes hold more", sizes)
    nested = f"Max(Integer(1), {code})"
    sizes = everywhere("sizes", lambda s: [{"as_expr": {"expr_str": nested, "hint": None}}, *s[1:]])
    yield case("evil_size_inside", "sizes hold more", sizes)
    huge = "Pow(Integer(9), Integer(999999999))"
    sizes = everywhere("sizes", lambda s: [{"as_expr": {"expr_str": huge, "hint": None}}, *s[1:]])
    yield case("endless_size", "sizes hold more", sizes)
    yield case("evil_guard", "guards hold more", in_program(lambda p: p.update(guards_code=[f"{code} == 0"])))
    for target in (
        "torch.os.system",
        "torch.serialization.os.system",
        "torch.ops.load_library",
        "_operator.call",
    ):
        name = "call_" + target.replace(".", "_")
        yield case(name, "no operator", in_program(lambda p, t=target: _call_system(p, touch, t)))  # type: ignore[misc]
    file = "torch.ops.aten.from_file.default"
    yield case("file_operator", "no operator", in_program(lambda p: _call_system(p, str(canary), file)))
    yield case("evil_structure", "is not opened", everywhere("in_spec", _import_by_structure))
    yield case("evil_enum", "structure", everywhere("in_spec", _import_by_enum))
    yield case("evil_keyword", "is none|is no name", everywhere("in_spec", lambda s: _keyword(s, code)))
    text = f"' or {code} or '"
    names = everywhere("as_string", lambda s: text if s == "plain" else s)
    yield case("evil_text_input", "is none", names)
    rename: dict[str, Change] = {
        program: lambda data: json.dumps(_renamed(json.loads(data), f"x={code}")).encode()
    }
    yield case("evil_name", "is none", rename)
    quoted = f'conv.a", {code}) or getattr(self, "weight'
    yield case("evil_parameter", "is none", everywhere("parameter_name", lambda n: quoted))
    yield case("deep", "cannot be read", {program: lambda _: b"[" * 100_000})
    yield case("no_weights", "ends after|values up to|no whole", {"data/weights/weight_0": lambda d: d[:7]})
    far = in_config("weights", lambda e: e["tensor_meta"].update(storage_offset={"as_int": 10**12}))
    yield case("far_weights", "values up to", far)
    many = in_config(
        "weights",
        lambda e: e["tensor_meta"].update(strides=[{"as_int": 0}] * 4, sizes=[{"as_int": 10**6}] * 4),
    )
    yield case("many_weights", "elements", many)
    yield case(
        "bomb_in_inputs", "compressed", {sample: lambda d: repacked(d, compression=zipfile.ZIP_DEFLATED)}
    )

    def lying(name: str, data: bytes) -> bytes:
        return (
            data.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x007") if name.endswith("data.pkl") else data
        )

    yield case("missing_storage", "no `data/7`", {sample: lambda d: repacked(d, lying)})
    # Of the file itself.
    data = good.read_bytes()
    root = zipfile.ZipFile(good).namelist()[0].partition("/")[0]
    for name, content, says in (
        ("truncated", data[: len(data) // 2], "not a zip file"),
        ("no_zip", b"no zip file at all", "not a zip file"),
        ("empty", b"", "not a zip file"),
        ("compressed", repacked(data, compression=zipfile.ZIP_DEFLATED), "compressed"),
        ("flipped", _flipped(good), "cannot be read"),
        ("declared", _declared(data, f"{root}/data/weights/weight_0", 1 << 30), "stored|but the file has"),
        (
            "older",
            repacked(data, lambda n, d: b"old" if n.endswith("archive_format") else d),
            "save the model anew",
        ),
    ):
        path = to / f"{name}.pt2"
        path.write_bytes(content)
        yield name, path, says
    yield "duplicate", changed(good, to / "duplicate.pt2", {}, {"models/model.json": b"{}"}), "same name"
    yield "escaping", changed(good, to / "escaping.pt2", {}, {"../../x": b""}), "leaves the archive"


def _flipped(good: Path) -> bytes:
    """One bit of a weight is another one."""
    data = bytearray(good.read_bytes())
    weight = zipfile.ZipFile(good).read(f"{zipfile.ZipFile(good).namelist()[0]}")
    data[data.index(weight[:8])] ^= 1
    return bytes(data)


def _declared(data: bytes, name: str, size: int) -> bytes:
    """A directory that gives a member another size."""
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
    return data[: at + 20] + size.to_bytes(4, "little") * 2 + data[at + 28 :]


NAMES = """
evil_inputs old_pickle_inputs evil_old_weights evil_weights evil_constants custom_obj_ opaque_obj_ compiled
evil_size evil_size_inside endless_size evil_guard call_torch_os_system call_torch_serialization_os_system
call_torch_ops_load_library call__operator_call file_operator evil_structure evil_enum evil_keyword
evil_text_input evil_name evil_parameter deep no_weights far_weights many_weights bomb_in_inputs
missing_storage truncated no_zip empty compressed flipped declared older duplicate escaping
""".split()


@pytest.fixture(scope="module")
def folder(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder with all hostile files, and a module that leaves a trace where it is imported."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "evil_module.py").write_text(f"open({str(folder / 'canary')!r}, 'w')\nx = int\n")
    with pytest.warns(UserWarning, match="Duplicate name"):
        made = {name: says for name, _, says in hostile(good, folder, folder / "canary")}
    assert list(made) == NAMES
    (folder / "says.json").write_text(json.dumps(made))
    return folder


@pytest.mark.parametrize("command", ["find", "optimize"])
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_file_is_refused(
    name: str, command: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, one line that names the file and says why, nothing run and nothing written."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    output = tmp_path / "out.onnx"
    more = ["-o", str(output), "--seconds", "0"] if command == "optimize" else []
    result = CliRunner().invoke(main, [command, f"{name}.pt2", *more])
    assert result.exit_code == 3, result.output
    lines = [line for line in result.output.splitlines() if not line.startswith("loading ")]
    assert len(lines) == 1
    assert lines[0].startswith("fx-passes: ")
    assert f"{name}.pt2" in lines[0]
    assert any(said in lines[0] for said in json.loads(Path("says.json").read_text())[name].split("|")), lines
    assert not Path("canary").exists()
    assert not output.exists()
    assert "evil_module" not in sys.modules


# torch saves the expanded weight as it is, and says so.
@pytest.mark.filterwarnings("ignore:No complete tensor found:UserWarning:torch.export.pt2_archive")
def test_what_torch_saves_opens_as_torch_opens_it(tmp_path: Path) -> None:
    """The same graph, weights, guards and inputs; the same outputs, bit for bit."""
    file = tmp_path / "everything.pt2"
    torch.export.save(everything(), file, extra_files={"notes.txt": "x"})
    ours, theirs = read_pt2(file), torch.export.load(file)
    assert str(ours.graph) == str(theirs.graph)
    assert str(ours.graph_signature) == str(theirs.graph_signature)
    assert str(ours.range_constraints) == str(theirs.range_constraints)
    assert ours._guards_code == theirs._guards_code != []
    assert list(ours.state_dict) == list(theirs.state_dict)
    for name, tensor in theirs.state_dict.items():
        mine = ours.state_dict[name]
        assert torch.equal(mine, tensor)
        assert (type(mine), mine.stride(), mine.requires_grad) == (
            type(tensor),
            tensor.stride(),
            tensor.requires_grad,
        )
    assert pytree.tree_structure(ours.example_inputs) == pytree.tree_structure(theirs.example_inputs)
    for mine, tensor in zip(
        *map(pytree.tree_leaves, (ours.example_inputs, theirs.example_inputs)), strict=True
    ):
        if isinstance(tensor, Tensor):
            assert (mine.dtype, mine.stride()) == (tensor.dtype, tensor.stride())
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(tensor)) if mine is not tensor else True
    args, kwargs = theirs.example_inputs
    outputs = [pytree.tree_leaves(p.module()(*args, **kwargs)) for p in (ours, theirs)]
    assert all(torch.equal(first, second) for first, second in zip(*outputs, strict=True))


def test_tensors_that_share_memory_share_it_again(tmp_path: Path) -> None:
    """A weight under two names lies in memory once."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    torch.export.save(torch.export.export(model, (torch.ones(1, 3),)), tmp_path / "m.pt2")
    first, second = read_pt2(tmp_path / "m.pt2").state_dict.values()
    assert first.data_ptr() == second.data_ptr()


def test_a_program_without_inputs_and_one_without_weights(tmp_path: Path) -> None:
    """Nothing to unpickle, nothing to read."""
    program = torch.export.export(nn.ReLU(), (torch.ones(2),))
    program.example_inputs = None
    torch.export.save(program, tmp_path / "m.pt2")
    assert load_model(str(tmp_path / "m.pt2")).example_inputs is None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts memory as Linux does")
def test_large_weights_are_held_once(tmp_path: Path) -> None:
    """Reading takes the memory of the weights, not twice that."""
    size = 256 << 20
    model = nn.Linear(size // 4096, 1024, bias=False)
    torch.export.save(torch.export.export(model, (torch.ones(1, size // 4096),)), tmp_path / "m.pt2")
    code = (
        "import sys; from pathlib import Path; from export.read_pt2 import read_pt2\n"
        "def peak(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) << 10\n"
        "before = peak(); p = read_pt2(Path(sys.argv[1])); print(peak() - before, len(p.state_dict))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.pt2"], capture_output=True, text=True, check=True
    )
    grown, weights = map(int, done.stdout.split())
    assert weights == 1
    assert size * 0.9 < grown < size * 1.5


@pytest.mark.parametrize(
    "value",
    [
        ((torch.ones(2, 3).T,), {"k": 3, "s": "a", "f": float("inf"), "n": None, "b": True, "c": 1j}),
        ([torch.arange(6).reshape(2, 3)[:, ::2], torch.ones(1, dtype=torch.uint16)], {}),
        {1: (torch.ones(0), torch.zeros((), dtype=torch.bool)), "p": nn.Parameter(torch.ones(2))},
        (torch.float16, torch.Size([2, 3]), torch.ones(3, dtype=torch.complex64)),
    ],
)
def test_values_are_what_was_saved(value: Any) -> None:
    """Everything that inputs can be: strides, dtypes, containers and numbers."""
    read = read_values(saved(value), "inputs")
    first, second = pytree.tree_flatten(value), pytree.tree_flatten(read)
    assert len(first[0]) == len(second[0])
    for one, two in zip(first[0], second[0], strict=True):
        if isinstance(one, Tensor):
            assert torch.equal(one, two)
            assert (one.dtype, one.stride(), type(one)) == (two.dtype, two.stride(), type(two))
        else:
            assert one == two


def test_one_list_inside_itself_many_times_ends() -> None:
    """A few bytes of pickle that are more values than memory holds."""
    value: list[Any] = [1]
    for _ in range(60):
        value = [value, value]
    with pytest.raises(LoadError, match="more than 100000 values"):
        read_values(saved(value), "inputs")
    value.append(value)
    with pytest.raises(LoadError, match="inputs"):
        read_values(saved(value), "inputs")


@pytest.mark.parametrize(
    "text",
    [
        "L['x'].size()[0] % 2 == 0",
        "max(1, L['x'].size()[1] // 2) != L['d']['a'][0].size()[0]",
        "not (L['x'].size()[0] == 1 and L['x'].stride()[0] <= 2**31)",
        "math.isnan(L['x'])",
    ],
)
def test_guards_of_torch_pass(text: str) -> None:
    """Comparisons of sizes."""
    require_guard(text)


@pytest.mark.parametrize(
    "text",
    [
        "L.__class__",
        "L['x'].__class__.__init__.__globals__",
        "().__class__",
        "[x for x in (1,)]",
        "(lambda: 1)()",
        "L['x'].size().__class__",
        "math.__loader__",
        "2**(2**64)",
        "(2**64)**64",
        "open('x')",
        "L['x'].numpy()",
        "L[open('x')]",
        "1 if L else 2",
        "f'{1}'",
        "a := 1",
        "1; 2",
        "",
    ],
)
def test_other_guards_do_not(text: str) -> None:
    """Attributes, other calls, and numbers that take for ever."""
    with pytest.raises(LoadError, match="more than comparisons"):
        require_guard(text)


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('__import__')",
        "Symbol('s0', positive=open('x'))",
        "Integer('1)')",
        "Float('1);x')",
        "Function('f')",
        "s0",
        "Integer(1).__class__",
        "Pow(Pow(Integer(9), Integer(60)), Integer(60))",
        "Pow(Integer(2), Mul(Integer(64), Integer(64)))",
        "LShift(Integer(1), Integer(10000000000))",
        "Max(*Integer(1))",
        "lambdify(Integer(1))",
        "Add(Integer(1), **Symbol('s0'))",
        "1" * 30_000,
    ],
)
def test_other_sizes_do_not_pass(text: str) -> None:
    """What is no arithmetic, and what sympy would compute for ever."""
    with pytest.raises(LoadError, match="more than arithmetic"):
        require_expression(text)


def test_a_view_ends_where_its_bytes_end() -> None:
    """The last element may be the last that is stored, not the one behind it."""
    stored = torch.zeros(16, dtype=torch.uint8)
    assert strided(stored, torch.float32, (2, 2), (2, 1), 0, "x").shape == (2, 2)
    assert strided(stored, torch.float32, (0, 9), (9, 1), 0, "x").numel() == 0
    for sizes, strides, offset in (((2, 2), (2, 1), 1), ((5,), (1,), 0), ((2,), (4,), 0), ((1,), (1,), 4)):
        with pytest.raises(LoadError, match="4 are stored"):
            strided(stored, torch.float32, sizes, strides, offset, "x")
    impossible: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((-1,), (1,)),
        ((1,), (-1,)),
        ((1,), ()),
        ((True,), (1,)),
    ]
    for lengths, steps in impossible:
        with pytest.raises(LoadError, match="sizes"):
            strided(stored, torch.float32, lengths, steps, 0, "x")
