"""Fixtures of the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import write_models


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with models for the command line."""
    return write_models(tmp_path)
