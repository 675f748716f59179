"""What every test of the backend of ``torch.compile`` needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def fresh_compiler(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is compiled yet, and all messages of the backend are recorded."""
    torch.compiler.reset()
    caplog.set_level("INFO", logger="fx_passes.compile_backend")
    yield
    torch.compiler.reset()
