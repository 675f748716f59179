"""The small model that is tuned. It is captured once for all tests of this folder."""

from __future__ import annotations

import pytest
from desk import Found, found_in


@pytest.fixture(scope="session")
def found() -> Found:
    """The model of blurs, with all candidates of its sites."""
    return found_in()
