"""The original model in float64, as a function of arrays."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from export.runtime.arrays import tensor_arrays, with_arrays
from export.runtime.session import Array
from export.verify.distances import apart_by_output
from export.verify.float64 import Float64
from fx_passes.capture.routes import capture
from fx_passes.errors import one_line
from fx_passes.graph.clone import clone_module
from fx_passes.graph.torch_internals import pytree

log = logging.getLogger(__name__)

# Weights above this are not run in float64: a run holds them three times, and takes minutes.
LARGEST_BYTES = 1_000_000_000
# The size of the noise, in rounding errors: for the bound ...
LEVEL = 2.0
# ... and for the search for decisions that rounding could turn.
FAR = 64.0
# If a free run moves an output so many times farther than a held run, the output jumps.
JUMP = 4.0
# The noise is drawn until an output has about so many elements in all draws, at least once.
DRAWS = 8


class Float64Reference:
    """The original model in float64: its outputs, how far rounding moves them, and whether rounding can turn
    a decision.

    Nothing of the model is copied or written to, see ``float64.py``.

    Args:
        make: gives a module to run once, around the tensors of the model.
        example_inputs: the arguments, also those that are no tensors.
    """

    def __init__(self, make: Callable[[], nn.Module], example_inputs: Sequence[Any]) -> None:
        self.make, self.example_inputs = make, example_inputs
        self._clean: tuple[Any, list[Array], Float64] | None = None
        self.seconds = 0.0  # that the last run without noise took

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        """The outputs, for inputs in the order of an ONNX file."""
        return self._known(arrays)[0]

    def spread(self, arrays: Sequence[Array]) -> list[float]:
        """For each output, the farthest that rounding of ``LEVEL`` times its size moves any element."""
        clean, mode = self._known(arrays)
        smallest = min((output.size for output in clean if output.size), default=1)
        farthest = [0.0] * len(clean)
        for seed in range(max(1, -(-DRAWS // smallest))):
            found, _ = self._run(arrays, _noisy(LEVEL, seed, mode, held=True))
            farthest = [max(pair) for pair in zip(farthest, apart_by_output(clean, found), strict=True)]
        return farthest

    def decides(self, arrays: Sequence[Array], draws: int = 1) -> list[bool]:
        """For each output, whether it jumps if rounding turns a decision of the model.

        Args:
            arrays: the inputs.
            draws: how often noise is drawn. One draw does not move every number.
        """
        clean, mode = self._known(arrays)
        jumps = [False] * len(clean)
        # Each with its mirror image: half of the noise is common.
        levels = [(seed, level) for seed in range(draws) for level in (FAR, -FAR)] if mode.decisions else []
        for seed, level in levels:
            if all(jumps):
                break
            free, noisy = self._run(arrays, _noisy(level, seed, mode, held=False))
            if not noisy.flipped:
                continue
            held, _ = self._run(arrays, _noisy(level, seed, mode, held=True))
            pairs = zip(clean, apart_by_output(clean, free), apart_by_output(clean, held), strict=True)
            here = [far > (JUMP * near if c.dtype.kind == "f" else 0.0) for c, far, near in pairs]
            jumps = [a or b for a, b in zip(jumps, here, strict=True)]
        return jumps

    def takes_decisions(self, arrays: Sequence[Array]) -> bool:
        """Whether the model computes anything that is no floating-point number from its inputs."""
        return bool(self._known(arrays)[1].decisions)

    def _known(self, arrays: Sequence[Array]) -> tuple[list[Array], Float64]:
        if self._clean is None or not same_arrays(self._clean[0], arrays):
            self._clean, start = None, time.perf_counter()
            self._clean = (arrays, *self._run(arrays, Float64()))
            self.seconds = time.perf_counter() - start
        return self._clean[1:]

    def _run(self, arrays: Sequence[Array], mode: Float64) -> tuple[list[Array], Float64]:
        with torch.no_grad(), mode:
            outputs = self.make()(*with_arrays(self.example_inputs, arrays))
        mode.forget()
        leaves = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
        return [leaf.detach().numpy() for leaf in leaves], mode


def same_arrays(first: Sequence[Array], second: Sequence[Array]) -> bool:
    """Whether the arrays are the same numbers, so that a result can be kept."""
    pairs = zip(first, second, strict=True)
    return len(first) == len(second) and all(
        a is b or (a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()) for a, b in pairs
    )


def float64_reference(
    model: nn.Module | ExportedProgram, example_inputs: Sequence[Any], *, notes: list[str] | None = None
) -> Float64Reference | None:
    """The original model in float64, as a function of arrays.

    The model itself is tried first. Then its graph is tried, in which questions about types are answered
    already.

    Args:
        model, example_inputs: the model and its positional arguments.
        notes: a list that receives the reason if there is none.

    Returns:
        None if neither runs on the example, or if the weights are larger than ``LARGEST_BYTES``.
    """
    notes = [] if notes is None else notes
    size = _weight_bytes(model)
    if size > LARGEST_BYTES:
        notes.append(
            f"not compared in float64: the weights have {size / 1e9:.1f} GB, more than "
            f"{LARGEST_BYTES / 1e9:.1f} GB; compared with the original file"
        )
        return None
    reasons = []
    for kind, make in _kinds(model, example_inputs).items():
        try:
            reference = Float64Reference(partial(_own, make()), example_inputs)
            reference(tensor_arrays(example_inputs))
            return reference
        except Exception as error:  # the model's own code, in a type that it may not be made for
            reasons.append(f"{kind}: {type(error).__name__}: {one_line(error, 160)}")
            log.debug("no float64 by the %s", kind, exc_info=True)
    notes.append(
        f"the original cannot be run in float64 ({'; '.join(reasons)}); compared with the original file"
    )
    return None


def _kinds(
    model: nn.Module | ExportedProgram, example_inputs: Sequence[Any]
) -> dict[str, Callable[[], nn.Module]]:
    kinds: dict[str, Callable[[], nn.Module]] = {}
    if isinstance(model, nn.Module):
        kinds["model"] = lambda: model
    kinds["graph"] = lambda: capture(model, example_inputs).graph_module
    return kinds


def _own(model: nn.Module) -> Any:
    """A copy of ``model`` around the very same tensors. Its code may change everything else."""
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    # Tensors of any kind: one that was computed from parameters cannot be copied.
    for module in model.modules():
        tensors += [value for value in vars(module).values() if isinstance(value, Tensor)]
    try:
        return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except Exception:  # noqa: BLE001 - an attribute that cannot be copied
        return clone_module(model)


def _noisy(level: float, seed: int, clean: Float64, *, held: bool) -> Float64:
    return Float64(level, seed=seed, unit=clean.unit, decisions=clean.decisions, held=held)


def _weight_bytes(model: nn.Module | ExportedProgram) -> int:
    stored = model.state_dict.values() if isinstance(model, ExportedProgram) else model.state_dict().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in stored if isinstance(tensor, Tensor))
