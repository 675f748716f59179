"""``lower()`` of models in other types than float32, and of models that convert."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from two_sites import Model, image, lowerings

from fx_passes.lower import lower

pytestmark = pytest.mark.usefixtures("simple_rules")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    """Integers this small are exact in each of these types."""
    model, x = Model(lambda m, x: m.two(x.clamp(-1, 1))).to(dtype), image().to(dtype)
    lowered = lower(model, "static", (x,))
    assert lowerings(lowered) == ["polyphase"]
    assert lowered(x).dtype == dtype
    assert torch.equal(lowered(x), model(x))


def test_two_dtypes() -> None:
    """The model keeps the kernel in float64 and uses it in float32. The lowering takes it as it is used."""
    model, x = Model(lambda m, x: F.conv2d(x, m.second.double().to(x), groups=4)), image()
    model.second = model.second.double()
    lowered = lower(model, "static", (x,))
    assert lowerings(lowered) == ["polyphase"]
    assert torch.equal(lowered(x), model(x))


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_kernel_that_is_rounded(part: str) -> None:
    """The model converts the kernel, or the bias, to half precision and back. The lowering takes the rounded
    numbers."""

    def rounded(m: Model, x: Tensor) -> Tensor:
        if part == "weight":
            return F.conv2d(x, m.second.half().float(), groups=4)
        return F.conv2d(x, m.second, m.bias.half().float(), groups=4)

    model, x = Model(rounded), image()
    with torch.no_grad():
        model.second /= 3
        model.bias /= 3
    lowered = lower(model, "static", (x,))
    assert lowerings(lowered) == ["polyphase"]
    torch.testing.assert_close(lowered(x), model(x), rtol=1e-6, atol=1e-5)
