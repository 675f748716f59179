"""Copies of a good .pt2 file that run code, or that lie about what they hold."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from changed_pt2 import Changes, changed, everywhere, in_config, in_program, repacked, root_of, saved

SAMPLE, PROGRAM, WEIGHT = "data/sample_inputs/model.pt", "models/model.json", "data/weights/weight_0"


class Hostile(NamedTuple):
    """A file, and what the refusal has to say. ``says`` may hold several texts with ``|`` between them."""

    name: str
    says: str
    content: bytes


def hostile(good: bytes, canary: Path) -> Iterator[Hostile]:
    """All hostile files. The code in them makes the file ``canary``."""
    touch = f"touch {canary}"
    code = f"__import__('os').system({touch!r})"
    yield from _pickles(good, touch)
    yield from _expressions(good, code)
    yield from _operators(good, touch, canary)
    yield from _structures(good)
    yield from _names(good, code)
    yield from _lies(good)
    yield from _archives(good)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def _pickles(good: bytes, touch: str) -> Iterator[Hostile]:
    """Pickled objects where values or tensors belong, and compiled code."""
    evil, old = saved(Evil(touch)), pickle.dumps(Evil(touch))
    yield Hostile("evil_inputs", "pickled object", changed(good, _member(SAMPLE, evil)))
    yield Hostile("old_pickle_inputs", "not a zip file", changed(good, _member(SAMPLE, old)))
    yield Hostile("evil_old_weights", "as a pickle", changed(good, {}, {"data/weights/model.pt": evil}))
    weights = _member(WEIGHT, evil) | in_config("weights", _setting(use_pickle=True))
    yield Hostile("evil_weights", "pickled object", changed(good, weights))
    constants = _member("data/constants/tensor_0", evil) | in_config("constants", _setting(use_pickle=True))
    yield Hostile("evil_constants", "pickled object", changed(good, constants))
    for prefix in ("custom_obj_", "opaque_obj_"):
        entry = in_config("constants", _setting(path_name=f"{prefix}0"))
        content = changed(good, entry, {f"data/constants/{prefix}0": old})
        yield Hostile(prefix, "pickled object", content)
    library = {"data/aotinductor/model/model.so": b"\x7fELF"}
    yield Hostile("compiled", "compiled code", changed(good, {}, library))


def _expressions(good: bytes, code: str) -> Iterator[Hostile]:
    """Sizes and guards that run code, or that take for ever to compute."""
    for name, text in (
        ("evil_size", code),
        ("evil_size_inside", f"Max(Integer(1), {code})"),
        ("endless_size", "Pow(Integer(9), Integer(999999999))"),
    ):
        yield Hostile(name, "sizes hold more", changed(good, everywhere("sizes", _first_size(text))))
    guard = in_program(lambda p: p.update(guards_code=[f"{code} == 0"]))
    yield Hostile("evil_guard", "guards hold more", changed(good, guard))


def _first_size(text: str) -> Callable[[Any], Any]:
    return lambda sizes: [{"as_expr": {"expr_str": text, "hint": None}}, *sizes[1:]]


def _operators(good: bytes, touch: str, canary: Path) -> Iterator[Hostile]:
    """Nodes that call functions, or an operator that makes a file."""
    for target in (
        "torch.os.system",
        "torch.serialization.os.system",
        "torch.ops.load_library",
        "_operator.call",
    ):
        call = in_program(partial(_call, text=touch, target=target))
        yield Hostile("call_" + target.replace(".", "_"), "no operator", changed(good, call))
    call = in_program(partial(_call, text=str(canary), target="torch.ops.aten.from_file.default"))
    yield Hostile("file_operator", "no operator", changed(good, call))


def _call(program: dict[str, Any], text: str, target: str) -> None:
    """Insert a node in front that calls ``target`` with ``text``."""
    argument = {"name": "", "arg": {"as_string": text}, "kind": 1}
    outputs = [{"as_tensor": {"name": "evil"}}]
    node = {"target": target, "inputs": [argument], "outputs": outputs, "metadata": {}, "name": "evil"}
    graph = program["graph_module"]["graph"]
    program["verifiers"] = []  # which torch leaves to the file
    graph["nodes"].insert(0, node)
    graph["tensor_values"]["evil"] = next(iter(graph["tensor_values"].values()))


def _structures(good: bytes) -> Iterator[Hostile]:
    """Structures of the inputs that import a module."""
    factory = {"default_factory_module": "evil_module", "default_factory_name": "x", "dict_context": []}
    node = {"type": "collections.defaultdict", "context": json.dumps(factory), "children_spec": []}
    structure = everywhere("in_spec", partial(_with_child, node=node))
    yield Hostile("evil_structure", "is not opened", changed(good, structure))
    keys = json.dumps([{"__enum__": True, "fqn": "evil_module:x", "name": "x"}])
    node = {"type": "builtins.dict", "context": keys, "children_spec": []}
    yield Hostile(
        "evil_enum", "structure", changed(good, everywhere("in_spec", partial(_with_child, node=node)))
    )


def _with_child(spec: str, node: dict[str, Any]) -> str:
    return json.dumps([1, {**json.loads(spec)[1], "children_spec": [node]}])


def _names(good: bytes, code: str) -> Iterator[Hostile]:
    """Names and texts that are code. They would run if Python source were made of them."""
    keyword = everywhere("in_spec", partial(_keyword, code=code))
    yield Hostile("evil_keyword", "is none|is no name", changed(good, keyword))
    text = everywhere("as_string", lambda s: f"' or {code} or '" if s == "plain" else s)
    yield Hostile("evil_text_input", "is none", changed(good, text))
    rename: Changes = {PROGRAM: lambda data: json.dumps(_renamed(json.loads(data), f"x={code}")).encode()}
    yield Hostile("evil_name", "is none", changed(good, rename))
    quoted = f'conv.a", {code}) or getattr(self, "weight'
    yield Hostile("evil_parameter", "is none", changed(good, everywhere("parameter_name", lambda _: quoted)))


def _keyword(spec: str, code: str) -> str:
    """The structure in which the last input by position is a keyword whose name ends in ``code``."""
    tree = json.loads(spec)
    tree[1]["children_spec"][1] = {
        "type": "builtins.dict",
        "context": json.dumps([f"k={code}"]),
        "children_spec": [tree[1]["children_spec"][0]["children_spec"].pop()],
    }
    return json.dumps(tree)


def _renamed(value: Any, new: str) -> Any:
    """The program with its input ``x`` called ``new`` wherever it is named."""
    if isinstance(value, dict):
        return {new if key == "x" else key: _renamed(item, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, new) for item in value]
    return new if value == "x" else value


def _lies(good: bytes) -> Iterator[Hostile]:
    """Members that are not what they should be: too deep, too short, too large or missing."""
    yield Hostile("deep", "cannot be read", changed(good, _member(PROGRAM, b"[" * 100_000)))
    short: Changes = {WEIGHT: lambda data: data[:7]}
    yield Hostile("no_weights", "ends after|values up to|no whole", changed(good, short))
    far = _weights_with(storage_offset={"as_int": 10**12})
    yield Hostile("far_weights", "values up to", changed(good, far))
    many = _weights_with(strides=[{"as_int": 0}] * 4, sizes=[{"as_int": 10**6}] * 4)
    yield Hostile("many_weights", "elements", changed(good, many))
    bomb: Changes = {SAMPLE: lambda data: repacked(data, compression=zipfile.ZIP_DEFLATED)}
    yield Hostile("bomb_in_inputs", "compressed", changed(good, bomb))
    missing: Changes = {SAMPLE: lambda data: repacked(data, _other_storage)}
    yield Hostile("missing_storage", "no `data/7`", changed(good, missing))


def _weights_with(**new: Any) -> Changes:
    return in_config("weights", lambda entry: entry["tensor_meta"].update(new))


def _other_storage(name: str, data: bytes) -> bytes:
    """The values name the storage 7 in place of 0."""
    return data.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x007") if name.endswith("data.pkl") else data


def _archives(good: bytes) -> Iterator[Hostile]:
    """The file itself is broken or is no archive, or its list of members is wrong."""
    yield Hostile("truncated", "not a zip file", good[: len(good) // 2])
    yield Hostile("no_zip", "not a zip file", b"no zip file at all")
    yield Hostile("empty", "not a zip file", b"")
    yield Hostile("compressed", "compressed", repacked(good, compression=zipfile.ZIP_DEFLATED))
    yield Hostile("flipped", "cannot be read", _flipped(good))
    lie = _declared(good, f"{root_of(good)}/{WEIGHT}", 1 << 30)
    yield Hostile("declared", "stored|but the file has", lie)
    older = repacked(good, lambda name, data: b"old" if name.endswith("archive_format") else data)
    yield Hostile("older", "save the model anew", older)
    yield Hostile("duplicate", "same name", changed(good, {}, {PROGRAM: b"{}"}))
    yield Hostile("escaping", "leaves the archive", changed(good, {}, {"../../x": b""}))


def _flipped(good: bytes) -> bytes:
    """One bit of the first member is another one."""
    archive, data = zipfile.ZipFile(io.BytesIO(good)), bytearray(good)
    member = archive.read(archive.namelist()[0])
    data[data.index(member[:8])] ^= 1
    return bytes(data)


def _declared(good: bytes, name: str, size: int) -> bytes:
    """The directory of the archive gives a member another size."""
    at = good.rindex(b"PK\x01\x02", 0, good.rindex(name.encode()))
    return good[: at + 20] + size.to_bytes(4, "little") * 2 + good[at + 28 :]


def _member(name: str, content: bytes) -> Changes:
    return {name: lambda _: content}


def _setting(**new: Any) -> Callable[[dict[str, Any]], None]:
    """A change that gives an entry other values."""
    return lambda entry: entry.update(new)
