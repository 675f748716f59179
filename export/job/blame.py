"""Which site makes the rewritten file differ? Files in which only some sites are rewritten tell."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from onnx import ModelProto

from export.job.rewrite import Rewritten
from export.job.source import Source
from export.runtime.session import Array
from export.verify.distances import same_bits
from export.verify.equivalence import Equivalence
from export.verify.level import Level
from export.write_onnx.kernels_once import Repeated, repeated_in, store_once
from export.write_onnx.lowered_sites import LoweredCall, LoweredSites
from fx_passes.errors import ExportError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Edit:
    """The rewrite of one site: its id, and what is done."""

    site: str
    call: LoweredCall | Repeated


def blame_site(source: Source, rewritten: Rewritten, equivalence: Equivalence) -> str | None:
    """The id of the site with which alone the file differs most on the input that showed the difference.

    First all sites of one key are rewritten together, then each site of the worst key. None: with no site
    alone the file differs by more than is allowed.
    """
    mismatch, inputs = equivalence.mismatch, equivalence.failing_inputs
    assert mismatch is not None and inputs is not None
    outputs = partial(_outputs, source, inputs, mismatch.level)
    original = outputs(onnx.load(source.baseline, load_external_data=False))
    if original is None:
        return None
    groups = _groups(source, rewritten)
    for narrowed in (False, True):
        distances = [_distance(original, outputs(_edited(rewritten.parts, edits))) for edits in groups]
        if not distances or max(distances) <= mismatch.allowed:
            return None
        worst = groups[int(np.argmax(distances))]
        if len(worst) == 1 or narrowed:
            return worst[0].site
        groups = [[edit] for edit in worst]
    return None


def _groups(source: Source, rewritten: Rewritten) -> list[list[_Edit]]:
    """The rewritten sites: the lowered ones by their keys, and each whose kernel is stored once."""
    calls = rewritten.parts.calls
    groups = [[_Edit(call.ids[0], call) for call in calls if call.key == key] for key in rewritten.parts.keys]
    return groups + [[_Edit(one.id, one)] for one in repeated_in(source.found) if one.id in rewritten.once]


def _edited(parts: LoweredSites, edits: Sequence[_Edit]) -> ModelProto:
    """The file with only these edits."""
    proto, _ = parts.only([edit.call for edit in edits if isinstance(edit.call, LoweredCall)])
    store_once(proto, [edit.call for edit in edits if isinstance(edit.call, Repeated)], always=True)
    return proto


def _outputs(source: Source, inputs: Sequence[Array], level: Level, proto: ModelProto) -> list[Array] | None:
    """The outputs of a variant of the file; None if it does not run."""
    try:
        model, folder = proto.SerializeToString(), source.baseline.parent
        return level.run(model, folder, inputs)
    except ExportError as error:
        log.info("looking for the site to blame: %s", error)
        return None


def _distance(original: Sequence[Array], found: Sequence[Array] | None) -> float:
    """How far outputs are from those of the original."""
    return np.inf if found is None else max(map(_apart, original, found), default=0.0)


def _apart(first: Array, second: Array) -> float:
    """The largest difference of two arrays; infinite where one has no number, or another shape."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return np.inf
    other = ~same_bits(first, second)
    if not other.any():
        return 0.0
    apart = np.abs(first[other].astype(np.float64) - second[other].astype(np.float64))
    return float(np.nan_to_num(apart, nan=np.inf).max())
