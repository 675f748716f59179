"""Graphs drawn at random are rewritten: what they compute stays, and so does everything that is no site."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from drawn_convolutions import Drawn
from drawn_graphs import drawn_graphs
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto

from export.read_onnx.model import OnnxModel, read_by, read_model
from export.read_onnx.sites import Analysis, analyse
from export.runtime.session import Array, open_session, run
from export.write_onnx.kernels_once import repeated_in, store_once
from export.write_onnx.lowered_sites import lower_sites
from export.write_onnx.surgery import PREFIX
from export.write_onnx.written_file import write_file
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan

# The proposals of a site, by their number; beyond the last, the site stays.
picks = st.lists(st.integers(0, 30), min_size=6, max_size=6)

# How far outputs may be apart, in units of rounding of the largest number. Those seen are one unit apart.
UNITS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn")


@given(graph=drawn_graphs())
def test_kernels_are_stored_once(graph: Drawn, folder: Path) -> None:
    """With lowering "expand": the outputs have the same bits."""
    found = analyse(_written(graph, folder))
    _require_kinds(graph, found)
    _require_right(graph, found, Plan({}), always=True, exact=True)


@settings(max_examples=6)
@given(graph=drawn_graphs(), numbers=picks)
def test_sites_are_lowered(graph: Drawn, numbers: list[int], folder: Path) -> None:
    """With any of the lowerings that are proposed: the same, but for another order of sums."""
    _require_lowered(graph, numbers, folder)


@pytest.mark.slow
@given(graph=drawn_graphs(), numbers=picks)
def test_many_sites_are_lowered(graph: Drawn, numbers: list[int], folder: Path) -> None:
    """The same, with more graphs: the exporter takes a second for each."""
    _require_lowered(graph, numbers, folder)


@settings(max_examples=4)
@given(graph=drawn_graphs("siblings"), numbers=picks)
def test_siblings_are_computed_together(graph: Drawn, numbers: list[int], folder: Path) -> None:
    """Equal sites that do not depend on each other, by one call."""
    _require_merged(graph, numbers, folder)


@pytest.mark.slow
@given(graph=drawn_graphs("siblings"), numbers=picks)
def test_many_siblings_are_computed_together(graph: Drawn, numbers: list[int], folder: Path) -> None:
    """The same, with more graphs."""
    _require_merged(graph, numbers, folder)


@pytest.mark.slow
@given(graph=drawn_graphs("open"), numbers=picks)
def test_open_sizes_are_lowered(graph: Drawn, numbers: list[int], folder: Path) -> None:
    """The same, where all sizes but the channels are open; it is run at three of each."""
    assume(_require_lowered(graph, numbers, folder))


def _require_lowered(graph: Drawn, numbers: list[int], folder: Path) -> bool:
    """Returns whether there was a site that was lowered."""
    found = analyse(_written(graph, folder))
    plan = _plan(found, numbers)
    exact = graph.integers and plan.exactness == "bitwise"
    return bool(_require_right(graph, found, plan, always=False, exact=exact))


def _require_merged(graph: Drawn, numbers: list[int], folder: Path) -> None:
    found = analyse(_written(graph, folder))
    plan = _plan(found, numbers, merged=True)
    merged = {name for name, choice in plan.choices.items() if choice.proposal is not None}
    assume(merged)
    together = _require_right(graph, found, plan, always=False, exact=False)
    assert all(len(names) > 1 for names in together)
    assert {name for names in together for name in names} == merged


def _written(graph: Drawn, folder: Path) -> OnnxModel:
    """The graph as a file. If its weights are in another file, only their places are in its message."""
    path = _empty(folder / "before") / "drawn.onnx"
    onnx.save(graph.proto, path, save_as_external_data=graph.external, location="w.bin", size_threshold=0)
    onnx.checker.check_model(str(path), full_check=True)
    graph.proto = onnx.load(path, load_external_data=False)
    stored = [tensor for tensor in graph.proto.graph.initializer if tensor.data_type != TensorProto.INT64]
    assert all(bool(tensor.external_data) == graph.external for tensor in stored)
    return read_model(path)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _require_kinds(graph: Drawn, found: Analysis) -> None:
    """What is drawn as shared is found to be, and nothing else has the bits of one kernel. (A weight that is
    off by an ulp may be one kernel with factors, which is never stored once.)"""
    repeated = {one.output for one in repeated_in(found)}
    assert repeated == {name for name, kind in graph.kinds.items() if kind == "shared"} - graph.refused


def _plan(found: Analysis, numbers: list[int], *, merged: bool = False) -> Plan:
    """One of the proposals for each key, or none; if ``merged``, one of those for siblings."""
    chosen: dict[str, Choice] = {}
    choices = {}
    for site in found.sites()[0]:
        if site.key not in chosen:
            proposals, _ = propose(site.resample, site.kernel, siblings=site.siblings)
            offered = [p for p in proposals if p.merged] if merged else [*proposals, None]
            number = numbers[len(chosen) % len(numbers)] % max(1, len(offered))
            chosen[site.key] = Choice(site.key, offered[number] if offered else None)
        choices[site.id] = chosen[site.key]
    return Plan(choices)


def _require_right(
    graph: Drawn, found: Analysis, plan: Plan, *, always: bool, exact: bool
) -> list[tuple[str, ...]]:
    """Rewrite as ``export/job/rewrite.py`` does, and compare. Returns the sites of each call."""
    arrays = graph.inputs()
    sites, _ = found.sites([arrays[:1]])
    given = Plan({site.id: plan.choices.get(site.id, Choice(site.key, None)) for site in sites})
    parts = lower_sites(found.model, sites, found.values(), given)
    proto, _ = parts.applied()
    repeated = repeated_in(found, {name for call in parts.calls for name in call.ids})
    once = store_once(proto, repeated, always=always)
    ends = {end for call in parts.calls for end in call.replacement.ends}
    ends |= {found.convolutions[name].node.output[0] for name in once}
    path = _empty(found.model.path.parents[1] / "after") / "drawn.onnx"
    write_file(proto, path, found.model)
    onnx.checker.check_model(str(path), full_check=True)
    _require_rest(graph.proto, onnx.load(path, load_external_data=False), ends)
    _require_outputs(found.model.path, path, arrays, exact=exact)
    return [call.ids for call in parts.calls]


def _require_rest(before: ModelProto, after: ModelProto, ends: set[str]) -> None:
    """Only nodes of ``ends`` are new, and only what no node reads any longer is gone."""
    assert _bytes(after.graph.input) == _bytes(before.graph.input)
    assert _bytes(after.graph.output) == _bytes(before.graph.output)
    old, new = _bytes(before.graph.node), _bytes(after.graph.node)
    for node in after.graph.node:
        if node.SerializeToString() not in old:
            assert all(name in ends or name.startswith(PREFIX) for name in node.output)
    gone = [node for node in before.graph.node if node.SerializeToString() not in new]
    kept = [node for node in before.graph.node if node.SerializeToString() in new]
    needed = {name for node in kept for name in read_by(node)}
    needed.update(value.name for value in before.graph.output)
    once_read = {name for node in gone for name in read_by(node)}
    for node in gone:
        unread = not needed & set(node.output) and bool(once_read & set(node.output))
        assert ends & set(node.output) or unread
    left = _bytes(after.graph.initializer)
    for tensor in before.graph.initializer:
        if tensor.SerializeToString() not in left:
            assert tensor.name not in needed
            assert tensor.name in once_read


def _bytes(messages: Iterable[onnx.NodeProto | onnx.TensorProto | onnx.ValueInfoProto]) -> list[bytes]:
    return [message.SerializeToString() for message in messages]


def _require_outputs(before: Path, after: Path, arrays: list[Array], *, exact: bool) -> None:
    """With the optimizations of onnxruntime, and without."""
    for optimized in (True, False):
        original, rewritten = (open_session(path, optimized=optimized) for path in (before, after))
        for array in arrays:
            for one, other in zip(run(rewritten, [array]), run(original, [array]), strict=True):
                assert (one.shape, one.dtype) == (other.shape, other.dtype)
                assert np.isfinite(other).all()
                if exact:
                    assert one.tobytes() == other.tobytes()
                else:
                    _require_close(one, other)


def _require_close(found: Array, expected: Array) -> None:
    """As close as sums in another order are, in units of rounding of the largest number."""
    found, expected, kind = found.astype(np.float64), expected.astype(np.float64), np.finfo(found.dtype)
    allowed = UNITS * float(kind.eps) * float(np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed + 1e-30)
