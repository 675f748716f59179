"""A small .pt2 file, and ways to change what such a file holds."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

Change = Callable[[bytes], bytes]
Changes = dict[str, Change]  # by the name of the member, without the root folder of the archive


def save_good(file: Path) -> Path:
    """Save a small program with one convolution."""

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


def changed(good: bytes, changes: Changes, more: dict[str, bytes] | None = None) -> bytes:
    """A copy of a file. ``changes`` replaces members, and ``more`` adds members."""
    source, buffer = zipfile.ZipFile(io.BytesIO(good)), io.BytesIO()
    root = root_of(good)
    with zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            change = changes.get(name.partition("/")[2], lambda data: data)
            target.writestr(name, change(source.read(name)))
        for name, data in (more or {}).items():
            target.writestr(f"{root}/{name}", data)
    return buffer.getvalue()


def root_of(good: bytes) -> str:
    """The folder in the archive that holds all members."""
    return zipfile.ZipFile(io.BytesIO(good)).namelist()[0].partition("/")[0]


def in_program(edit: Callable[[dict[str, Any]], None]) -> Changes:
    """A change of the JSON of the program."""

    def change(data: bytes) -> bytes:
        program = json.loads(data)
        edit(program)
        return json.dumps(program).encode()

    return {"models/model.json": change}


def in_config(kind: str, edit: Callable[[dict[str, Any]], None]) -> Changes:
    """A change of each entry in the JSON that describes weights or constants."""

    def change(data: bytes) -> bytes:
        config = json.loads(data)
        for entry in config["config"].values():
            edit(entry)
        return json.dumps(config).encode()

    return {f"data/{kind}/model_{kind}_config.json": change}


def everywhere(key: str, new: Callable[[Any], Any]) -> Changes:
    """A change of every value that stands under ``key`` in the program."""

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


def saved(value: Any) -> bytes:
    """What ``torch.save`` writes for a value."""
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
