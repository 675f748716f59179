"""Drawings of what each lowering becomes: the nodes of its file, with the shapes between them.

    PYTHONPATH=tests/support:tests/lowerings python docs/hooks/drawings.py    writes docs/hooks/drawings.json

The example is that of the tests of the lowering (``tests/lowerings/NAME.py``).
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("drawings.json")
_ROW, _WIDTH, _LEFT = 40, 460, 60


def drawing(nodes: list[dict[str, Any]], title: str) -> str:
    """Nodes from top to bottom as SVG. A line at the left leads to a node that is not the next one.

    Args:
        nodes: of each node ``op``, ``weight`` (a shape, or nothing), ``out`` (a shape), and ``reads``: the
            places of the nodes whose results it reads.
    """
    height = _ROW * len(nodes) + 8
    lines = [
        f'<svg class="drawing" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">',
        f"<title>{html.escape(title)}</title>",
    ]
    for place, node in enumerate(nodes):
        top = 4 + place * _ROW
        said = node["op"] + (f" {node['weight']}" if node["weight"] else "")
        lines.append(f'<rect x="{_LEFT}" y="{top}" width="240" height="26" rx="5"/>')
        lines.append(f'<text x="{_LEFT + 10}" y="{top + 18}">{html.escape(said)}</text>')
        lines.append(
            f'<text class="shape" x="{_LEFT + 252}" y="{top + 18}">{html.escape(node["out"])}</text>'
        )
        for read in node["reads"]:
            start = 4 + read * _ROW + 26
            if read == place - 1:
                lines.append(f'<path d="M{_LEFT + 120} {start}V{top}"/>')
            else:
                bend = _LEFT - 12 - 8 * (place - read - 2)
                lines.append(f'<path d="M{_LEFT} {start - 13}H{bend}V{top + 13}H{_LEFT}"/>')
    return "\n".join([*lines, "</svg>"])


def drawn(name: str) -> str:
    """The drawings of a lowering: before and after. A lowering may be so new that it has none."""
    both = json.loads(FILE.read_text()).get(name)
    if both is None:
        return "It has no drawing yet: `python docs/hooks/drawings.py` makes one."
    return "\n\n".join(
        f"{when.capitalize()}:\n\n{drawing(both[when], f'{name}, {when}')}" for when in ("before", "after")
    )


def nodes_of(file: Path) -> list[dict[str, Any]]:
    """The nodes of an ONNX file, as ``drawing`` takes them."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(file)).graph
    known = [*graph.input, *graph.value_info, *graph.output]
    shapes = {v.name: "x".join(str(d.dim_value) for d in v.type.tensor_type.shape.dim) for v in known}
    stored = {t.name: "x".join(map(str, t.dims)) for t in graph.initializer if t.data_type == t.FLOAT}
    constants = {t.name for t in graph.initializer}
    rows: list[dict[str, Any]] = [
        {"op": "input", "weight": "", "out": shapes[graph.input[0].name], "reads": []}
    ]
    places = {graph.input[0].name: 0}
    for node in graph.node:
        read = [places[name] for name in node.input if name in places]
        if not read:  # it computes a weight or a shape
            inner = [stored[name] for name in node.input if name in stored]
            said = f"{inner[0].removesuffix(', expanded')}, expanded" if inner and inner[0] else ""
            stored |= dict.fromkeys(node.output, said)
            constants |= set(node.output)
            continue
        weights = [stored[name] for name in node.input if stored.get(name)]
        weight = weights[0] if node.op_type in ("Conv", "ConvTranspose", "MatMul") and weights else ""
        places |= dict.fromkeys(node.output, len(rows))
        rows.append({"op": node.op_type, "weight": weight, "out": shapes[node.output[0]], "reads": read})
    return rows


def examples(folder: Path, wanted: Sequence[str] = ()) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The nodes of the wanted lowerings, or of all of them, before and after, by name."""
    import torch
    from nets import Net
    from oracle import of
    from test_onnx import becomes, site_of, usual

    from export import to_onnx
    from fx_passes import Choice, Plan, lower
    from fx_passes.lowerings import MODULES

    found = {}
    for name in wanted or MODULES:
        case = becomes(name).case
        x, net = case.input(torch.float32, False), Net(case).eval()
        site = site_of(net, x)
        proposal = usual(of(name, site.resample, site.kernel))
        ways = {"before": net, "after": lower(net, Plan({site.id: Choice(site.key, proposal)}), (x,))}
        found[name] = {
            when: nodes_of(Path(to_onnx(way, (x,), folder / f"{name}_{when}.onnx")))
            for when, way in ways.items()
        }
    return found


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        FILE.write_text(json.dumps(examples(Path(place)), indent=1) + "\n")
