"""Removes what torch's exporter tells of the machine: stack traces, and other notes with its paths."""

from __future__ import annotations

import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir

_TRACE = "stack_trace"  # the end of the key


def remove_traces(model: ir.Model) -> None:
    """Remove stack traces, and each note and doc string with a path of this machine, in place."""
    paths = _paths()
    for one in _noted(model):
        for key in list(one.metadata_props):
            if key.endswith(_TRACE) or _has(paths, one.metadata_props[key]):
                del one.metadata_props[key]
        if _has(paths, getattr(one, "doc_string", None)):
            one.doc_string = None


def _paths() -> set[str]:
    """Where this process runs, keeps its packages and its unfinished files, and whose it is."""
    try:
        home = [Path.home()]
    except RuntimeError:  # nobody's
        home = []
    known = [*home, Path.cwd(), Path(tempfile.gettempdir()), *map(Path, sysconfig.get_paths().values())]
    return {str(form) for path in known for form in (path, path.resolve()) if len(path.parts) > 1}


def _has(paths: set[str], text: str | None) -> bool:
    return text is not None and any(path in text for path in paths)


def _noted(model: ir.Model) -> Iterator[Any]:
    """Everything in a model that has notes."""
    yield model
    bodies: list[Any] = [model.graph, *model.functions.values()]
    for graph in bodies:
        yield graph
        yield from (value for value in (*graph.inputs, *graph.outputs) if value is not None)
        for node in graph.all_nodes():
            yield node
            yield from node.outputs
        for inner in graph.subgraphs():
            yield inner
            yield from inner.inputs
    for graph in model.graphs():
        yield from graph.initializers.values()
