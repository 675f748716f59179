"""A weight that the model computes from a parameter, a buffer or constants."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from models_to_share import passed
from torch import Tensor, nn

from fx_passes import ShareKernels, share_kernels


def test_repeat_becomes_expand_and_its_source_stays() -> None:
    """An expansion of the same parameter replaces ``repeat`` of a trainable kernel."""

    class Repeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            channels = x.shape[1]
            return F.conv2d(x, self.kernel[None, None].repeat(channels, 1, 1, 1), groups=channels)

    model = Repeats()
    x = torch.randn(1, 4, 8, 8)
    shared = share_kernels(model, (x,))
    assert torch.equal(shared(x), model(x))
    assert shared.kernel is model.kernel
    assert not any("repeat" in str(node.target) for node in shared.graph.nodes)


def test_constants_are_folded_into_a_buffer_outside_the_state_dict() -> None:
    """A window computed from constants becomes a buffer of one kernel. Its computation is gone."""

    class Window(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            line = torch.exp(-((torch.arange(5.0, device=x.device) - 2) ** 2))
            weight = (torch.outer(line, line) / line.sum() ** 2).expand(3, 1, 5, 5)
            return F.conv2d(x, weight, groups=3)

    model, x = Window(), torch.randn(1, 3, 8, 8)
    shared = share_kernels(torch.export.export(model, (x,)))
    assert torch.equal(shared(x), model(x))
    assert shared.state_dict() == {}
    assert [tuple(b.shape) for b in shared.buffers()] == [(1, 1, 5, 5)]
    assert not any("exp.default" in str(node.target) for node in shared.graph.nodes)
    kept = passed(ShareKernels(fold_constants=False), torch.export.export(model, (x,)).module())
    assert not kept.modified


def test_folded_kernels_are_only_those_that_nobody_can_load() -> None:
    """A kernel is computed from the state_dict. After a load, it is computed from the new values."""

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Buffer(torch.rand(1, 1, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, (self.k / self.k.sum()).repeat(4, 1, 1, 1), groups=4)

    model, x = Normalised(), torch.randn(1, 4, 8, 8)
    shared = share_kernels(model, (x,))
    for each in (model, shared):
        each.load_state_dict({"k": torch.ones(1, 1, 3, 3)})
    assert torch.equal(shared(x), model(x))


def test_a_computed_weight_that_may_change_is_not_shared_for_training() -> None:
    """Only the values of the weight repeat. Those of a checkpoint or of a training step may not."""

    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.rand(1, 1, 3, 3).repeat(4, 1, 1, 1), requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.k * 0.5, groups=4)

    model, other, x = Halved(), Halved(), torch.rand(1, 4, 8, 8)
    other.k.data = torch.rand(4, 1, 3, 3)
    shared = share_kernels(model)
    shared.load_state_dict(other.state_dict())
    torch.testing.assert_close(shared(x), other(x))
    shared.requires_grad_(True)(x).sum().backward()
    assert bool((shared.get_parameter("k").grad.abs().sum((1, 2, 3)) > 0).all())  # type: ignore[union-attr]
