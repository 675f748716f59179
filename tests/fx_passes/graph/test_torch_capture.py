"""The private parts of torch that a capture uses: errors, logs and settings of torch.export."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from small_programs import program
from torch import Tensor, nn
from torch.export import Dim
from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes

from fx_passes.graph import torch_internals as internals


def test_user_error() -> None:
    """The model fixes a size. torch reads its own suggestion from the message of the error."""

    class Even(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones(4)

    with pytest.raises(internals.UserError) as caught:
        program(Even(), torch.rand(4), dynamic_shapes=({0: Dim("n")},))
    fixed = refine_dynamic_shapes_from_suggested_fixes(caught.value.msg, ({0: Dim("n")},))
    assert fixed == ({0: 4},)


def test_guards_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A strict export raises its errors. It also logs them here."""
    said: list[logging.LogRecord] = []
    logger = logging.getLogger(internals.GUARDS_LOG)
    monkeypatch.setattr(logger, "handle", said.append)
    # The command line, in the same process, may have silenced the loggers of torch.
    with pytest.raises(internals.UserError), caplog.at_level("ERROR", internals.GUARDS_LOG):
        program(nn.Conv1d(1, 1, 9), torch.rand(1, 1, 30), dynamic_shapes=({2: Dim("n")},), strict=True)
    assert [record.levelname for record in said][:1] == ["ERROR"]


def test_sizes_of_one_stay_open() -> None:
    """A size is 1 in the example. It is a symbol within the context, and a number without."""
    shapes = ({0: Dim.AUTO},)

    def size() -> Any:
        exported = program(nn.ReLU(), torch.rand(1, 3), dynamic_shapes=shapes)
        return next(iter(exported.graph.nodes)).meta["val"].shape[0]

    with internals.sizes_of_one_stay_open():
        assert isinstance(size(), torch.SymInt)
    assert size() == 1
    assert isinstance(size(), int)


def test_as_exporting() -> None:
    """``is_in_onnx_export()`` is true within it. Afterwards it is as before, also after an error."""

    def fail() -> None:
        with internals.as_exporting():
            assert torch.onnx.is_in_onnx_export()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not torch.onnx.is_in_onnx_export()


def test_no_limit() -> None:
    """``Dim.max`` without a limit is the infinity of torch's ranges."""
    from torch.utils._sympy.numbers import int_oo

    from fx_passes.capture import asked_sizes

    assert asked_sizes._NO_LIMIT is int_oo
    assert Dim("n").max == int_oo
    assert Dim("n", max=7).max == 7
