"""Graphs drawn at random are rewritten: what they compute stays, and so does everything that is no site."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from drawn_graphs import Drawn, drawn_graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from export.read_onnx.model import OnnxModel, read_by, read_model
from export.read_onnx.sites import Analysis, analyse
from export.runtime.session import open_session, run
from export.write_onnx.kernels_once import repeated_in, store_once
from export.write_onnx.lowered_sites import lower_sites
from export.write_onnx.surgery import PREFIX
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan

# The proposals of a site, by their number; beyond the last, the site stays.
picks = st.lists(st.integers(0, 30), min_size=6, max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn")


@given(graph=drawn_graphs())
def test_kernels_are_stored_once(graph: Drawn, folder: Path) -> None:
    """With lowering "expand": the outputs have the same bits."""
    model = _written(graph, folder)
    found = analyse(model)
    _require_kinds(graph, found)
    after, ends = _rewritten(found, Plan({}), graph, always=True)
    _require_rest(graph.proto, after, ends)
    _require_outputs(graph, after, exact=True)


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


def _require_lowered(graph: Drawn, numbers: list[int], folder: Path) -> None:
    found = analyse(_written(graph, folder))
    plan = _plan(found, numbers)
    after, ends = _rewritten(found, plan, graph, always=False)
    _require_rest(graph.proto, after, ends)
    _require_outputs(graph, after, exact=graph.integers and plan.exactness == "bitwise")


def _written(graph: Drawn, folder: Path) -> OnnxModel:
    path = folder / "drawn.onnx"
    path.write_bytes(graph.proto.SerializeToString())
    onnx.checker.check_model(str(path), full_check=True)
    return read_model(path)


def _require_kinds(graph: Drawn, found: Analysis) -> None:
    """What is drawn as shared is found to be, and nothing else has the bits of one kernel. (A weight that is
    off by an ulp may be one kernel with factors, which is never stored once.)"""
    repeated = {one.output for one in repeated_in(found)}
    assert repeated == {name for name, kind in graph.kinds.items() if kind == "shared"}


def _plan(found: Analysis, numbers: list[int]) -> Plan:
    """One of the proposals for each key."""
    chosen: dict[str, Choice] = {}
    choices = {}
    for site in found.sites()[0]:
        if site.key not in chosen:
            proposals, _ = propose(site.resample, site.kernel, siblings=site.siblings)
            number = numbers[len(chosen) % len(numbers)] % (len(proposals) + 1)
            chosen[site.key] = Choice(site.key, [*proposals, None][number])
        choices[site.id] = chosen[site.key]
    return Plan(choices)


def _rewritten(found: Analysis, plan: Plan, graph: Drawn, *, always: bool) -> tuple[ModelProto, set[str]]:
    """The rewritten model, and the values that it computes in another way: as ``export/job/rewrite.py``."""
    sites = found.sites()[0]
    given = Plan({site.id: plan.choices.get(site.id, Choice(site.key, None)) for site in sites})
    parts = lower_sites(found.model, sites, found.values(), given, [graph.x])
    proto, _ = parts.applied()
    repeated = repeated_in(found, {name for call in parts.calls for name in call.ids})
    once = store_once(proto, repeated, always=always)
    ends = {end for call in parts.calls for end in call.replacement.ends}
    return proto, ends | {found.convolutions[name].node.output[0] for name in once}


def _require_rest(before: ModelProto, after: ModelProto, ends: set[str]) -> None:
    """Only nodes of ``ends`` are new, and only what no node reads any longer is gone."""
    onnx.checker.check_model(after.SerializeToString(), full_check=True)
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


def _require_outputs(graph: Drawn, after: ModelProto, *, exact: bool) -> None:
    """With the optimizations of onnxruntime, and without."""
    x = graph.x
    for optimized in (True, False):
        expected, found = (
            run(open_session(proto.SerializeToString(), optimized=optimized), [x])
            for proto in (graph.proto, after)
        )
        for one, other in zip(found, expected, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            if exact:
                assert one.tobytes() == other.tobytes()
            else:
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * float(np.abs(other).max()) + 1e-30)
