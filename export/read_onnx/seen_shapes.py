"""Does a file have the shapes that it states? One run tells.

Converters leave shapes in a file that its graph no longer has. Runtimes warn, and go on. A rewrite that
believes in them would compute something else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from onnx import ModelProto, ValueInfoProto
from onnxruntime import InferenceSession
from torch import SymInt, Tensor

from export.read_onnx.mirror import VALUE
from export.read_onnx.sites import Analysis
from export.runtime.session import Array, open_session, run
from fx_passes.errors import ExportError

log = logging.getLogger(__name__)


def wrong_shape(found: Analysis, examples: Sequence[Sequence[Array]]) -> str | None:
    """The first value around a site that has another shape than is stated or inferred, in words.

    Args:
        found: the file, and the sites in it.
        examples: inputs in their order, at several sizes if sizes are open. Those on which the file does not
            run say nothing.
    """
    expected = dict(_expected(found))
    if not expected:
        return None
    session = _session(found, list(expected))
    for arrays in examples:
        given = dict(zip(found.model.inputs, arrays, strict=True))
        try:
            values = run(session, [given[slot.name] for slot in session.get_inputs()])
        except ExportError as error:
            log.info("no shapes at %s: %s", [array.shape for array in arrays], error)
            continue
        sizes: dict[str, int] = {}
        for (name, shape), array in zip(expected.items(), values, strict=True):
            if not _fits(shape, array.shape, sizes):
                stated = ", ".join(map(str, shape))
                return f"the shape of value `{name}` is said to be [{stated}], and is {list(array.shape)}"
    return None


def _fits(shape: Sequence[int | SymInt], seen: Sequence[int], sizes: dict[str, int]) -> bool:
    """Whether a shape is what was seen. Open sizes of one name are equal; ``sizes`` has them by name."""
    return len(shape) == len(seen) and all(
        here == (size if isinstance(size, int) else sizes.setdefault(str(size), here))
        for size, here in zip(shape, seen, strict=True)
    )


def _expected(found: Analysis) -> Iterator[tuple[str, Sequence[int | SymInt]]]:
    """By name, the shapes of the values around each site, and of its convolution."""
    around = {name for site in found.sites()[0] for name in (site.source, site.end, site.conv)}
    values = found.values()
    for node in found.graph_module.graph.nodes:
        if node.op == "placeholder" or node.name not in around & values.keys():
            continue
        if isinstance(node.meta.get("val"), Tensor):
            yield node.meta[VALUE], node.meta["val"].shape


def _session(found: Analysis, names: Sequence[str]) -> InferenceSession:
    """A session of the file that gives only these values."""
    proto = ModelProto()
    proto.CopyFrom(found.model.proto)
    del proto.graph.output[:]
    proto.graph.output.extend(ValueInfoProto(name=name) for name in names)
    return open_session(proto.SerializeToString(), optimized=False, folder=found.model.path.parent)
