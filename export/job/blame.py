"""Which lowered site makes the rewritten file differ? Files with one of them at a time tell."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from export.job.rewrite import Rewritten
from export.job.source import Source
from export.runtime.session import Array, open_session, run
from export.verify.distances import same_bits
from export.verify.equivalence import Equivalence
from export.write_onnx.lowered_sites import LoweredCall
from fx_passes.errors import ExportError

log = logging.getLogger(__name__)


def blame_site(source: Source, rewritten: Rewritten, equivalence: Equivalence) -> str | None:
    """The id of the site with which alone the file differs most on the input that showed the difference.

    First all sites of one key are tried together, then each site of the worst key. None: with no site alone
    the file differs by more than is allowed.
    """
    mismatch, inputs = equivalence.mismatch, equivalence.failing_inputs
    assert mismatch is not None and inputs is not None
    original = _outputs(source, None, inputs, mismatch.optimized_session)
    if original is None:
        return None
    groups = [[call for call in rewritten.parts.calls if call.key == key] for key in rewritten.parts.keys]
    for narrowed in range(2):
        level = mismatch.optimized_session
        distances = [_distance(source, rewritten, calls, inputs, original, level) for calls in groups]
        if not distances or max(distances) <= mismatch.allowed:
            return None
        worst = groups[int(np.argmax(distances))]
        if len(worst) == 1 or narrowed:
            return worst[0].ids[0]
        groups = [[call] for call in worst]
    return None


def _distance(
    source: Source,
    rewritten: Rewritten,
    calls: Sequence[LoweredCall],
    inputs: Sequence[Array],
    original: Sequence[Array],
    optimized_session: bool,
) -> float:
    """How far the outputs are from those of the original, if only ``calls`` are lowered."""
    proto, _ = rewritten.parts.only(calls)
    found = _outputs(source, proto.SerializeToString(), inputs, optimized_session)
    return np.inf if found is None else max(map(_apart, original, found), default=0.0)


def _outputs(
    source: Source, model: bytes | None, inputs: Sequence[Array], optimized_session: bool
) -> list[Array] | None:
    try:
        session = (
            open_session(source.baseline, optimized=optimized_session)
            if model is None
            else open_session(model, optimized=optimized_session, folder=source.baseline.parent)
        )
        return run(session, inputs)
    except ExportError as error:
        log.info("looking for the site to blame: %s", error)
        return None


def _apart(first: Array, second: Array) -> float:
    """The largest difference of two arrays; infinite where one has no number, or another shape."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return np.inf
    other = ~same_bits(first, second)
    if not other.any():
        return 0.0
    apart = np.abs(first[other].astype(np.float64) - second[other].astype(np.float64))
    return float(np.nan_to_num(apart, nan=np.inf).max())
