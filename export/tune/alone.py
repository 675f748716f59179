"""The time of each candidate of a site by itself, in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx_ir as ir
import torch

from export.runtime.target import Target
from export.tune.candidates import Candidates
from export.write_onnx.library import model_of
from fx_passes.timing.in_turns import Runs, time_in_turns


def time_alone(candidates: Candidates, library: ir.Model, target: Target, seconds: float) -> dict[str, float]:
    """Milliseconds of each candidate, by name.

    Args:
        candidates: the candidates of one site.
        library: the models of all candidates.
        target: where they run.
        seconds: when to stop. Each candidate is timed in one block in any case.
    """
    dtype = torch.zeros((), dtype=candidates.site.kernel.dtype).numpy().dtype
    inputs = [np.random.default_rng(0).standard_normal(candidates.shape).astype(dtype)]
    openers: dict[str, Callable[[], Runs]] = {}
    for offset, name in enumerate(candidates.names):
        model = ir.to_proto(model_of(library, candidates.first + offset))
        openers[name] = partial(target.opened, bytes(model.SerializeToString()), inputs)
    return time_in_turns(openers, seconds)
