"""Draws the speed of ten known modules as SVG, from what ``speed.py`` measured: a light and a dark picture.

    python benchmarks/picture.py FILE [FILE ...] -o docs/pictures

A bar is the time of the stock export in onnxruntime over that of the lowered file, at one thread. The axis
is logarithmic and begins at 1x: a module that gains nothing has no bar; one that loses has a bar to the left.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

# The modules of the picture, by their names in `graphs.py`. The last two gain nothing, and say so.
PICTURED = (
    "blur31",
    "kdown256",
    "blur11",
    "ssim",
    "firdown64",
    "firup64",
    "pyrdown",
    "vocoder",
    "resnetblur50",
    "blurpool",
)
_LABELS, _WIDTH, _ROW, _TOP, _BOTTOM, _VALUES = 330, 900, 30, 62, 66, 60
_TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Colours:
    """The colours of one picture. Each pair of text and background has a contrast of at least 4.5."""

    ground: str
    text: str
    faint: str
    line: str
    gain: str
    loss: str


THEMES = {
    "light": Colours("#ffffff", "#1f2328", "#59636e", "#d1d9e0", "#0969da", "#bc4c00"),
    "dark": Colours("#0d1117", "#f0f6fc", "#9198a1", "#3d444d", "#4493f8", "#f0883e"),
}


@dataclass(frozen=True)
class Bar:
    """One module: its title, the sizes of its inputs, and how many times as fast its file is."""

    title: str
    sizes: str
    ratio: float


def bars(results: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """The pictured modules at one thread, the largest gain first. One that was not measured is an error."""
    rows = {row["name"]: row for result in results for row in result["rows"] if row["threads"] == 1}
    if missing := [name for name in PICTURED if "ours" not in rows.get(name, {}).get("columns", ())]:
        raise SystemExit(f"not measured at one thread: {', '.join(missing)}")
    drawn = []
    for row in (rows[name] for name in PICTURED):
        if "failed" in row["columns"]["ours"]:
            raise SystemExit(f"{row['name']} failed: {row['columns']['ours']['failed']}")
        sizes = "x".join(map(str, row["inputs"][0]))
        drawn.append(Bar(row["title"], sizes, row["columns"]["ours"]["ratio"]))
    return sorted(drawn, key=lambda bar: -bar.ratio)


def shown(ratio: float) -> str:
    """A ratio with as many digits as the tables have."""
    return f"{ratio:.{2 if ratio < 10 else 1}f}x"


def picture(drawn: Sequence[Bar], machine: str, colours: Colours) -> str:
    """The SVG: text alternatives first, then the axis, then a row for each module."""
    low = min(1.0, *(bar.ratio for bar in drawn)) / (1.0 if all(b.ratio >= 0.95 for b in drawn) else 1.2)
    high = max(bar.ratio for bar in drawn)
    scale = (_WIDTH - _LABELS - _VALUES) / math.log(high / low)
    height = _TOP + _ROW * len(drawn) + _BOTTOM

    def place(ratio: float) -> float:
        return _LABELS + scale * math.log(ratio / low)

    said = "; ".join(f"{bar.title} {shown(bar.ratio)}" for bar in drawn)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-labelledby="t d" font-family="system-ui, sans-serif" font-size="14">',
        f'<title id="t">How many times as fast</title><desc id="d">{escape(said)}</desc>',
        f'<rect width="{_WIDTH}" height="{height}" fill="{colours.ground}"/>',
        _text(
            16, 26, "How many times as fast as the file that torch.onnx.export writes", colours.text, size=17
        ),
        _text(16, 46, "equivalent results, in onnxruntime, on one thread", colours.faint),
    ]
    bottom = _TOP + _ROW * len(drawn)
    for tick in (tick for tick in _TICKS if low <= tick <= high):
        x = place(tick)
        parts.append(f'<path d="M{x:.1f} {_TOP}V{bottom + 4}" stroke="{colours.line}"/>')
        parts.append(_text(x, bottom + 20, f"{tick:g}x", colours.faint, anchor="middle"))
    parts += [row for i, bar in enumerate(drawn) for row in _row(bar, _TOP + _ROW * i, place, colours)]
    note = f"Logarithmic axis. {machine}. Sizes are those of the input."
    parts += [_text(16, bottom + 50, note, colours.faint), "</svg>"]
    return "\n".join(parts) + "\n"


def _row(bar: Bar, top: float, place: Any, colours: Colours) -> list[str]:
    start, end = sorted((place(1.0), place(bar.ratio)))
    colour = colours.gain if bar.ratio >= 1 else colours.loss
    middle = top + _ROW / 2 + 5
    label = (
        f'<text x="{_LABELS - 12}" y="{middle}" text-anchor="end" fill="{colours.text}">{escape(bar.title)} '
        f'<tspan fill="{colours.faint}" font-size="11">{bar.sizes}</tspan></text>'
    )
    drawn = f'<rect x="{start:.1f}" y="{top + 6}" width="{max(end - start, 2):.1f}" height="{_ROW - 12}" '
    return [
        label,
        f'{drawn}rx="2" fill="{colour}"/>',
        _text(max(end, start + 2) + 7, middle, shown(bar.ratio), colours.text),
    ]


def _text(x: float, y: float, text: str, colour: str, *, size: int = 13, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(text)}</text>"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON that speed.py wrote")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="where it writes")
    options = parser.parse_args()
    results = [json.loads(file.read_text()) for file in options.files]
    told = results[0]["environment"]
    named = ("cpu", "onnxruntime", "torch")
    if any(result["environment"][name] != told[name] for result in results for name in named):
        parser.error("the files were measured on different machines, or with different versions")
    machine = f"{told['cpu']}, onnxruntime {told['onnxruntime']}, torch {told['torch'].partition('+')[0]}"
    options.out.mkdir(parents=True, exist_ok=True)
    for name, colours in THEMES.items():
        (options.out / f"speed-{name}.svg").write_text(picture(bars(results), machine, colours))


if __name__ == "__main__":
    main()
