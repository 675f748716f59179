"""A graph with lowered sites. Any of them can be put back without another export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch import Tensor, nn
from torch.fx import GraphModule

from export.runtime.files import is_large
from export.tune.candidates import in_frame, original_of
from export.write_onnx.exporter import export_program, fold_constants
from export.write_onnx.library import Library, hide_lowered, open_sizes, splice
from fx_passes.resample.site import Site

# Initializers of a large graph that its files hold themselves.
_SMALL_BYTES = 1 << 20


@dataclass(frozen=True)
class Trial:
    """The graph around its lowered sites, and a library with both forms of each site.

    Args:
        skeleton: the graph, with an opaque node for each call of a lowered module.
        library: the lowered form of every index, then the original of each key in ``originals``.
        keys: for each index, the key of its sites.
        originals: by key, the index of the original in the library. Sites with open sizes have none.
        folder: where files are written. Large weights are stored there once, for all files.
    """

    skeleton: ir.Model
    library: ir.Model
    keys: tuple[str, ...]
    originals: dict[str, int]
    folder: Path

    def write(self, without: frozenset[str]) -> Path:
        """The graph as a file. The sites with keys in ``without`` are as they were."""
        model = self.skeleton.clone()
        entries = [self.originals[key] if key in without else i for i, key in enumerate(self.keys)]
        splice(model, self.library, entries)
        path = self.folder / f"{len(list(self.folder.iterdir()))}.onnx"
        ir.save(model, path)
        return path


def make_trial(
    lowered: GraphModule,
    original: GraphModule,
    sites: Sequence[Site],
    inputs: tuple[Any, ...],
    dynamic_shapes: Any,
    folder: Path,
) -> Trial:
    """A trial of ``lowered``.

    Args:
        lowered: the graph with its sites lowered.
        original: the graph before that; ``sites`` belong to it.
        inputs, dynamic_shapes: as for the export of the model.
        folder: an empty folder for its files.

    Raises:
        ExportError: torch cannot export the graph.
    """
    hidden = hide_lowered(lowered)
    skeleton = export_program(hidden.model, inputs, dynamic_shapes).model
    fold_constants(skeleton)
    if is_large(skeleton):
        ir.external_data.unload_from_model(
            skeleton, folder, "weights.data", size_threshold_bytes=_SMALL_BYTES
        )
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
            modules.append(
                in_frame(by_key[key], one, merged=False) if _is_merged(example, by_key[key]) else one
            )
            examples.append(example.clone())  # one that is given twice would be one input
    library = export_program(Library(modules), examples, sizes).model
    fold_constants(library)
    return Trial(skeleton, library, keys, originals, folder)


def _is_merged(example: Tensor, site: Site) -> bool:
    """Whether the module of a site takes the inputs of all its siblings at once."""
    return example.shape[0] != site.resample.in_shape[0]
