"""Pictures of a kernel: a heat map, stems of its taps, and its frequency response.

A heat map is a PNG with one pixel for each tap; the page enlarges it. A kernel of three dimensions is shown
by its three middle planes.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from export.runtime.session import Array

# Kernels of one site that are shown. The others are counted.
SHOWN = 4
# The drawing area of stems and curves, in units of the page.
WIDTH, HEIGHT = 240.0, 90.0
AXES = {1: ("taps",), 2: ("height", "width"), 3: ("depth", "height", "width")}
# A longer kernel is drawn by its extremes in as many steps, without dots.
MOST_STEMS = 96
MOST_PIXELS = 256

_NEGATIVE, _ZERO, _POSITIVE = (np.array(rgb, float) for rgb in ((5, 80, 160), (246, 246, 246), (178, 24, 43)))


@dataclass(frozen=True)
class Heat:
    """A heat map: a PNG as text, its size in taps, and what it shows in words."""

    png: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Stems:
    """Taps as lines from zero: SVG paths of the lines and of the dots."""

    lines: str
    dots: str
    zero: float
    alt: str


@dataclass(frozen=True)
class Response:
    """Curves of the magnitude over the frequency, by the name of the axis, and the largest magnitude."""

    curves: dict[str, str]
    largest: float
    alt: str


@dataclass(frozen=True)
class Pictures:
    """What is shown of a kernel. ``left_out`` counts the kernels that are not shown."""

    kernels: tuple[Heat | Stems, ...]
    response: Response | None
    left_out: int
    largest: float


def pictures_of(kernel: Array) -> Pictures | None:
    """The pictures of a kernel, (rows, columns, *taps). None: it has no taps, or not only numbers."""
    if kernel.ndim not in (3, 4, 5) or not kernel.size or not np.isfinite(kernel).all():
        return None
    largest = float(np.abs(kernel).max())
    planes = kernel.reshape(-1, *kernel.shape[2:])
    places = [(row, column) for row in range(kernel.shape[0]) for column in range(kernel.shape[1])]
    shown: list[Heat | Stems] = []
    for plane, place in list(zip(planes, places, strict=True))[:SHOWN]:
        name = "" if len(planes) == 1 else f" of output {place[0]}, input {place[1]}"
        shown += [_stems(plane, name)] if plane.ndim == 1 else _heats(plane, largest, name)
    return Pictures(tuple(shown), _response(planes), max(len(planes) - SHOWN, 0), largest)


def _heats(plane: Array, largest: float, name: str) -> list[Heat]:
    if plane.ndim == 2:
        return [_heat(plane, largest, f"Heat map of the {_by(plane.shape)} taps{name}")]
    found = []
    for axis, title in enumerate(AXES[3]):
        middle = plane.take(plane.shape[axis] // 2, axis)
        found.append(_heat(middle, largest, f"Heat map of the middle plane along {title}{name}"))
    return found


def _heat(plane: Array, largest: float, alt: str) -> Heat:
    steps = [math.ceil(size / MOST_PIXELS) for size in plane.shape]
    small = plane[:: steps[0], :: steps[1]]
    said = f"{alt}; from {plane.min():.4g} to {plane.max():.4g}"
    return Heat(png_text(_colours(small, largest)), small.shape[1], small.shape[0], said)


def _by(shape: tuple[int, ...]) -> str:
    return " by ".join(map(str, shape))


def _colours(plane: Array, largest: float) -> Array:
    """(height, width) -> (height, width, 3): blue is negative, white is zero, red is positive."""
    share = (plane / largest if largest else plane)[..., None]
    ends = np.where(share < 0, _NEGATIVE, _POSITIVE)
    return np.rint(_ZERO + (ends - _ZERO) * np.abs(share)).astype(np.uint8)


def png_text(pixels: Array) -> str:
    """(height, width, 3), uint8 -> a PNG in base64."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def _stems(taps: Array, name: str) -> Stems:
    low, high = min(float(taps.min()), 0.0), max(float(taps.max()), 0.0)
    scale = (HEIGHT - 12) / ((high - low) or 1.0)

    def y(value: float) -> float:
        return round(HEIGHT - 6 - (value - low) * scale, 1)

    parts = np.array_split(taps, min(len(taps), MOST_STEMS))
    step = (WIDTH - 12) / len(parts)
    lines, dots = [], []
    for number, part in enumerate(parts):
        x = round(6 + (number + 0.5) * step, 1)
        lines.append(f"M{x} {y(min(part.min(), 0.0))}V{y(max(part.max(), 0.0))}")
        if len(parts) == len(taps):
            dots.append(f"M{x} {y(float(part[0]))}h0")
    alt = f"Stems of the {len(taps)} taps{name}; from {taps.min():.4g} to {taps.max():.4g}"
    return Stems("".join(lines), "".join(dots), y(0.0), alt)


def _response(planes: Array) -> Response | None:
    """The magnitude along each axis: at each frequency the largest over the other axes and all kernels."""
    dim = planes.ndim - 1
    points = {1: 256, 2: 64, 3: 32}[dim]
    axes = tuple(range(1, dim + 1))
    sizes = [max(points, taps) for taps in planes.shape[1:]]
    magnitude = np.abs(np.fft.fftn(planes[:64], sizes, axes=axes)).max(axis=0)
    largest = float(magnitude.max())
    if not largest:
        return None
    curves, said = {}, []
    for axis, name in enumerate(AXES[dim]):
        if planes.shape[1 + axis] == 1:
            continue
        others = tuple(other for other in range(dim) if other != axis)
        half = magnitude.max(axis=others)[: sizes[axis] // 2 + 1]
        at = np.linspace(0, len(half) - 1, min(len(half), 65)).round().astype(int)
        x = 2 + (WIDTH - 4) * at / max(len(half) - 1, 1)
        y = 4 + (HEIGHT - 8) * (1 - half[at] / largest)
        curves[name] = " ".join(f"{one:.1f},{other:.1f}" for one, other in zip(x, y, strict=True))
        said.append(f"along {name}: {half[0]:.3g} at frequency 0, {half[-1]:.3g} at the highest")
    return (
        Response(curves, largest, f"Magnitude of the frequency response {'; '.join(said)}") if said else None
    )
