"""Compares each lowered site of a written file by itself with the float64 truth of the nodes that it
replaced.

The effect of a wrong tap may be lost on the way to the outputs, behind other layers, means, or weights that
are nearly zero. So the nodes of each lowered site are cut out of the file, and run on random numbers. All of
them run side by side in one session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from export.runtime.session import Array, open_session, run
from export.verify.compare_output import ULPS
from export.verify.reference import Float64Reference
from export.write_onnx.lowered_sites import Place
from fx_passes.errors import one_line

# Of the spread of the site: a kernel that is factored is rounded again, factor by factor.
FACTOR = 2.0


@dataclass(frozen=True)
class Wrong:
    """A site that does not compute what it replaced: its id, and how large the error is."""

    site: str
    said: str


@dataclass(frozen=True)
class Replaced:
    """What the lowered sites of one key replaced: a module of those nodes, and the ids in graph order."""

    original: nn.Module
    ids: tuple[str, ...]


@dataclass(frozen=True)
class SiteError:
    """The largest error of the sites of one key, and the one that is allowed."""

    error: float
    allowed: float


class Checked(NamedTuple):
    """What the comparison found.

    Args:
        wrong: the first site that differs by more than rounding can explain.
        notes: on the sites that could not be compared.
        errors: of the sites that were compared, by key.
    """

    wrong: Wrong | None
    notes: list[str]
    errors: dict[str, SiteError]


def check_sites(path: Path, places: Sequence[Place], replaced: Mapping[str, Replaced]) -> Checked:
    """Compare each lowered site with what it replaced.

    Args:
        path: the file.
        places: the lowered sites in it.
        replaced: by key, what the sites replaced.

    Raises:
        ExportError: onnxruntime does not run the nodes.
    """
    truths: dict[str, _Truth] = {}
    notes: list[str] = []
    for place in places:
        if place.key not in truths:
            try:
                truths[place.key] = _truth(replaced[place.key].original, place.example)
            except Exception as error:  # noqa: BLE001 - nodes of the model, in a type they may not be made for
                note = f"site {replaced[place.key].ids[0]} was not compared by itself: {one_line(error, 160)}"
                notes += [] if note in notes else [note]
    known = [place for place in places if place.key in truths]
    errors: dict[str, SiteError] = {}
    wrong = _compare(path, known, truths, replaced, errors) if known else None
    return Checked(wrong, notes, errors)


@dataclass(frozen=True)
class _Truth:
    """The input of a site, its output in float64, and the error that is allowed."""

    given: Array
    ideal: Array
    allowed: float


def _truth(original: nn.Module, example: Tensor) -> _Truth:
    x = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example.dtype)
    reference = Float64Reference(lambda: original, (x,))
    given = [x.numpy()]
    (ideal,), (spread,) = reference(given), reference.spread(given)
    ulp = float(np.spacing(np.abs(ideal).max(initial=0.0).astype(given[0].dtype)))
    return _Truth(given[0], ideal, FACTOR * spread + ULPS * ulp)


def _compare(
    path: Path,
    places: Sequence[Place],
    truths: Mapping[str, _Truth],
    replaced: Mapping[str, Replaced],
    errors: dict[str, SiteError],
) -> Wrong | None:
    """The first site that is wrong. The largest error of each key is put into ``errors``."""
    given = [truths[place.key].given for place in places]
    cut = _cut(path, places)
    for optimized in (True, False):
        session = open_session(cut, optimized=optimized, folder=path.parent)
        passed: Counter[str] = Counter()
        for place, found in zip(places, run(session, given), strict=True):
            same = replaced[place.key].ids
            site = same[min(passed[place.key], len(same) - 1)]
            passed[place.key] += 1
            truth = truths[place.key]
            if (shape := truth.ideal.shape) != found.shape:
                return Wrong(site, f"expected shape {list(shape)}, found {list(found.shape)}")
            apart = np.abs(found.astype(np.float64) - truth.ideal)
            so_far = errors.get(place.key, SiteError(0.0, truth.allowed))
            errors[place.key] = replace(so_far, error=max(float(apart.max(initial=0.0)), so_far.error))
            if said := _fault(truth, found, apart):
                return Wrong(site, said)
    return None


def _fault(truth: _Truth, found: Array, apart: Array) -> str | None:
    if not apart.size or apart.max() <= truth.allowed:
        return None
    place = np.unravel_index(int(np.nan_to_num(apart, nan=np.inf).argmax()), apart.shape)
    return (
        f"at {[int(i) for i in place]} expected {truth.ideal[place]:.9g}, found {found[place]:.9g}; "
        f"a tolerance of {apart[place]:.3g} would be needed, {truth.allowed:.3g} is allowed"
    )


def _cut(path: Path, places: Sequence[Place]) -> bytes:
    """The nodes of all places as one model, with an input and an output for each."""
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    by_node = {name: (f"given {i}", place.source) for i, place in enumerate(places) for name in place.nodes}
    nodes = [node for node in graph.node if node.name in by_node]
    for node in nodes:
        given, source = by_node[node.name]
        node.input[:] = [given if name == source else name for name in node.input]
    read = {name for node in nodes for name in node.input}
    # Where an initializer would have to be an input, the constants of a place are nodes.
    constants = [n for n in graph.node if n.op_type == "Constant" and not read.isdisjoint(n.output)]
    nodes = [*(node for node in constants if node.name not in by_node), *nodes]
    stored = [tensor for tensor in graph.initializer if tensor.name in read]
    kinds = [onnx.helper.np_dtype_to_tensor_dtype(place.example.numpy().dtype) for place in places]
    inputs = [
        onnx.helper.make_tensor_value_info(f"given {i}", kind, list(place.example.shape))
        for i, (place, kind) in enumerate(zip(places, kinds, strict=True))
    ]
    outputs = [
        onnx.helper.make_tensor_value_info(place.end, kind, None)
        for place, kind in zip(places, kinds, strict=True)
    ]
    cut = onnx.helper.make_graph(nodes, "sites", inputs, outputs, stored)
    sites = onnx.helper.make_model(cut, opset_imports=model.opset_import, ir_version=model.ir_version)
    sites.functions.extend(model.functions)
    return bytes(sites.SerializeToString())
