"""A graph with lowered sites, of which any may be put back, without exporting it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from torch import Tensor, nn
from torch.fx import GraphModule

from export.candidates import in_frame, original_of
from export.onnx_export import export_program, fold_constants
from export.splice import Library, hide_lowered, open_sizes, splice
from fx_passes.lowerable import Site


@dataclass(frozen=True)
class Trial:
    """The graph around its lowered sites, and a library with both forms of each.

    Args:
        skeleton: the graph, an opaque node for each call of a lowered module.
        library: the lowered form of every index, then the original of each in ``originals``.
        keys: the key of the sites that each index stands for.
        originals: the index in the library of the original, by key; sites of open sizes have none.
    """

    skeleton: ir.Model
    library: ir.Model
    keys: tuple[str, ...]
    originals: dict[str, int]

    def model(self, without: frozenset[str]) -> bytes:
        """The graph as a serialised model, the sites of the keys in ``without`` as they were."""
        model = self.skeleton.clone()
        entries = [self.originals[key] if key in without else i for i, key in enumerate(self.keys)]
        splice(model, self.library, entries)
        return bytes(ir.to_proto(model).SerializeToString())


def make_trial(
    lowered: GraphModule,
    original: GraphModule,
    sites: Sequence[Site],
    inputs: tuple[Any, ...],
    dynamic_shapes: Any,
) -> Trial:
    """A trial of ``lowered``.

    Args:
        lowered: the graph with its sites lowered.
        original: the graph they were lowered from; ``sites`` are of this one.
        inputs, dynamic_shapes: as for the export of the model.

    Raises:
        ExportError: torch cannot export the graph.
    """
    hidden = hide_lowered(lowered)
    skeleton = export_program(hidden.model, inputs, dynamic_shapes).model
    fold_constants(skeleton)
    keys = tuple(module.key for module in hidden.modules)
    by_key = {site.key: site for site in sites}
    modules: list[nn.Module] = list(hidden.modules)
    examples = list(hidden.inputs)
    originals: dict[str, int] = {}
    sizes = open_sizes(hidden.modules)
    if sizes is None:
        for key, example in zip(keys, hidden.inputs, strict=True):
            originals[key] = len(modules)
            one = original_of(original, by_key[key])
            modules.append(in_frame(by_key[key], "expand", one) if _is_merged(example, by_key[key]) else one)
            examples.append(example.clone())  # one that is given twice would be one input
    library = export_program(Library(modules), examples, sizes).model
    fold_constants(library)
    return Trial(skeleton, library, keys, originals)


def _is_merged(example: Tensor, site: Site) -> bool:
    """Whether the module of a site takes the inputs of all its siblings at once."""
    return example.shape[0] != site.resample.in_shape[0]
