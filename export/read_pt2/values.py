"""The example inputs in a ``.pt2``: a pickle of tensors, numbers and plain containers. It is read without
pickle's power to call functions.

``torch.load(weights_only=True)`` believes the sizes that a pickle states, and unpacks compressed members.
Here the directory of the zip file is checked first (``archive.py``), and sizes are compared with bytes
(``tensors.py``).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export.read_pt2.archive import Archive
from export.read_pt2.tensors import strided
from fx_passes.errors import LoadError

# No model has more inputs. A few bytes of pickle can put one list into itself many times.
_MOST_VALUES = 100_000


@dataclass(frozen=True, slots=True)
class _Call:
    """Stands for a function in the pickle. It has slots and is frozen, so the pickle can give it no state."""

    does: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.does(*args)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A storage: its member in the archive, the type of its elements (None: plain bytes), its device."""

    key: str
    dtype: torch.dtype | None
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor that does not exist yet."""

    storage: _Stored
    dtype: torch.dtype
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool
    parameter: bool = False


def _tensor(storage: Any, offset: Any, sizes: Any, strides: Any, grad: Any, _: Any, *more: Any) -> _View:
    # A storage without a type of its own is followed by the type (``_rebuild_tensor_v3``).
    dtype = storage.dtype if storage.dtype is not None else more[0]
    if any(more if storage.dtype is not None else more[1:]) or not isinstance(dtype, torch.dtype):
        raise LoadError("a tensor in it has more than sizes and strides")
    return _View(storage, dtype, offset, tuple(sizes), tuple(strides), bool(grad))


def _parameter(data: _View, grad: Any, _: Any) -> _View:
    return _View(data.storage, data.dtype, data.offset, data.sizes, data.strides, bool(grad), True)


def _with_attributes(rebuild: Any, kind: Any, args: Any, _: Any) -> _View:
    # torch marks tensors by attributes. The program has the same information.
    if kind != _TENSOR or not isinstance(rebuild, _Call) or rebuild.does not in (_tensor, _parameter):
        raise LoadError("a tensor in it is of a class of its own, which is not opened")
    return rebuild(*args)  # type: ignore[no-any-return]


def _plain(*_: Any) -> Any:
    raise LoadError("it makes an object, which is not opened")


_TENSOR = _Call(_plain)
_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _with_attributes,
    ("torch", "Tensor"): _plain,
    ("torch.nn.parameter", "Parameter"): _plain,
    ("__builtin__", "set"): tuple,
    ("builtins", "set"): tuple,
    ("collections", "OrderedDict"): lambda *items: dict(*items),
    ("torch", "Size"): tuple,
    ("__builtin__", "complex"): complex,
    ("builtins", "complex"): complex,
}
_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
    }.items()
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]  # noqa: SLF001
    # The one in Python: the one in C reserves as much memory as a number in the pickle says.

    def find_class(self, module: str, name: str) -> Any:
        if function := _FUNCTIONS.get((module, name)):
            return _Call(function)
        if module in ("torch", "torch.storage") and name in (*_STORAGES, "UntypedStorage"):
            return _Stored(name, _STORAGES.get(name))
        dtype = getattr(torch, name, None) if module == "torch" else None
        if isinstance(dtype, torch.dtype):
            return dtype
        raise LoadError(f"they hold a pickled object ({module}.{name}), which is not opened")

    def persistent_load(self, pid: Any) -> _Stored:
        kind, element, key, device, _ = pid
        texts = isinstance(key, str) and isinstance(device, str)
        if kind != "storage" or not isinstance(element, _Stored) or not texts:
            raise LoadError("they refer to something that is no storage")
        return _Stored(key, element.dtype, device)


def read_values(data: bytes, what: str) -> Any:
    """What ``torch.save`` wrote: tensors and numbers, texts, None, and tuples, lists and dicts of them.

    Raises:
        LoadError: it holds anything else. Nothing of it has been run.
    """
    archive = Archive(io.BytesIO(data), what)
    try:
        pickled = _Unpickler(io.BytesIO(archive.bytes_of("data.pkl"))).load()
        return _Values(archive).of(pickled)
    except LoadError as error:
        said = str(error)
        raise LoadError(said if said.startswith(what) else f"{what}: {said}") from error
    except Exception as error:  # a pickle can be wrong in any way
        raise LoadError(f"{what} cannot be read: {type(error).__name__}: {error}") from error


class _Values:
    """The real values of what was unpickled. Tensors that share a storage still share it."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.storages: dict[str, Tensor] = {}
        self.tensors: dict[int, Tensor] = {}
        self.count = 0

    def of(self, value: Any) -> Any:
        self.count += 1
        if self.count > _MOST_VALUES:
            raise LoadError(f"they are more than {_MOST_VALUES} values")
        if isinstance(value, _View):
            if id(value) not in self.tensors:  # one object in two places stays one
                self.tensors[id(value)] = self._tensor(value)
            return self.tensors[id(value)]
        if type(value) in (tuple, list):
            return type(value)(self.of(item) for item in value)
        if type(value) is dict:
            return {self.of(key): self.of(item) for key, item in value.items()}
        if value is None or isinstance(value, bool | int | float | complex | str | torch.dtype):
            return value
        raise LoadError(f"they hold a {type(value).__name__}, which is no tensor, number, text or container")

    def _tensor(self, view: _View) -> Tensor:
        key = view.storage.key
        if key not in self.storages:
            self.storages[key] = self.archive.tensor(f"data/{key}")
        what = f"tensor {len(self.tensors)}"
        tensor = strided(self.storages[key], view.dtype, view.sizes, view.strides, view.offset, what)
        tensor = tensor.to(view.storage.device)
        if view.parameter:
            return nn.Parameter(tensor, requires_grad=view.requires_grad)
        return tensor.requires_grad_(view.requires_grad)
