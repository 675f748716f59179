"""Faults planted in the files that ``optimize`` is about to verify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.job import rewrite as second_stage
from export.write_onnx.lowered_sites import Place


def plant(monkeypatch: pytest.MonkeyPatch, fault: Callable[[onnx.ModelProto, Sequence[Place]], None]) -> None:
    """From now on, ``fault(model, place)`` spoils every optimized file before it is verified."""

    write = second_stage._write

    def faulty(*arguments: Any) -> Any:
        path, places, once = write(*arguments)
        if places:
            model = onnx.load(path)
            fault(model, places)
            onnx.save(model, path)
        return path, places, once

    monkeypatch.setattr(second_stage, "_write", faulty)


def spoil(model: onnx.ModelProto, place: Place, by: float) -> None:
    """Give the nodes of ``place`` a kernel of their own, one tap of which is off by ``by``."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if node.name in place.nodes and name in stored and stored[name].data_type == 1:
                taps = numpy_helper.to_array(stored[name]).copy()
                taps.reshape(-1)[np.flatnonzero(taps)[-1]] += by
                model.graph.initializer.append(numpy_helper.from_array(taps, f"{name} spoilt"))
                node.input[i] = f"{name} spoilt"
                return
    raise AssertionError("no kernel")
