"""The reference for the check is the model in float64."""

from __future__ import annotations

import pytest
import torch
from two_blurs import Blurs, X

from export.verify.reference import float64_reference

pytestmark = pytest.mark.usefixtures("simple_rules")


def test_float64_reference_is_the_model_in_float64() -> None:
    """The model may be a module or a program. Neither changes."""
    model = Blurs()
    reference = float64_reference(model, (X,))
    assert reference is not None
    (found,) = reference([X.numpy()])
    assert found.dtype == "float64"
    program = float64_reference(torch.export.export(model, (X,)), (X,))
    assert program is not None
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    exact = model.double()(X.double()).detach()
    torch.testing.assert_close(torch.from_numpy(found), exact)
    torch.testing.assert_close(torch.from_numpy(program([X.numpy()])[0]), exact)
