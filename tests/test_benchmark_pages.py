"""What the benchmarks draw and write for the pages."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import lowering_pages
import pytest

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


def benchmark(name: str) -> ModuleType:
    """A file of the benchmarks, which are no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


picture, by_lowering = benchmark("picture"), benchmark("by_lowering")


def measured(ratios: dict[str, float]) -> dict[str, Any]:
    """A result of the benchmark, with these gains, and 2x for all others in the picture."""
    rows = [
        {
            "name": name,
            "title": f"<{name}>",
            "threads": 1,
            "inputs": [[1, 3, 8, 8]],
            "columns": {"ours": {"ratio": ratios.get(name, 2.0)}},
        }
        for name in picture.PICTURED
    ]
    return {"environment": {"cpu": "a & b", "onnxruntime": "1", "torch": "2+cpu"}, "rows": rows}


def drawn(result: dict[str, Any]) -> ElementTree.Element:
    """The light picture of a result."""
    return ElementTree.fromstring(picture.picture(picture.bars([result]), "a & b", picture.THEMES["light"]))


def bars_of(svg: ElementTree.Element) -> list[ElementTree.Element]:
    """The bars, without the background."""
    return svg.findall(f"{SVG}rect")[1:]


def test_the_picture_says_what_was_measured() -> None:
    """Ten modules, the largest gain first, each with its number; in words, too."""
    svg = drawn(measured({"ssim": 8.654, "blur31": 60.64}))
    texts = ["".join(text.itertext()) for text in svg.iter(f"{SVG}text")]
    assert [text for text in texts if re.fullmatch(r"[\d.]+x", text)].count("2.00x") == 8
    assert texts.index("60.6x") < texts.index("8.65x") < texts.index("2.00x")
    said = svg.findtext(f"{SVG}desc")
    assert said is not None
    assert said.startswith("<blur31> 60.6x; <ssim> 8.65x; ")
    widths = [float(bar.attrib["width"]) for bar in bars_of(svg)]
    assert len(widths) == len(picture.PICTURED) == 10
    assert widths == sorted(widths, reverse=True)


def test_a_loss_is_drawn_to_the_left_of_one() -> None:
    """In another colour. What gains nothing has a line at 1x."""
    svg = drawn(measured({"blurpool": 0.5, "vocoder": 1.0}))
    *_, one, loss = bars_of(svg)
    assert float(one.attrib["width"]) == 2
    assert float(loss.attrib["x"]) + float(loss.attrib["width"]) == pytest.approx(
        float(one.attrib["x"]), abs=0.2
    )
    assert loss.attrib["fill"] != one.attrib["fill"]


def test_what_was_not_measured_is_an_error() -> None:
    """The picture never leaves out a module without a word."""
    result = measured({})
    result["rows"].pop()
    with pytest.raises(SystemExit, match=picture.PICTURED[-1]):
        picture.bars([result])
    result["rows"][0]["columns"]["ours"] = {"failed": "too slow"}
    result["rows"].append({**result["rows"][0], "name": picture.PICTURED[-1]})
    with pytest.raises(SystemExit, match="too slow"):
        picture.bars([result])


def test_the_command_writes_both_pictures(tmp_path: Path) -> None:
    """A light and a dark one, which differ in their colours alone."""
    (tmp_path / "speed.json").write_text(json.dumps(measured({})))
    file, out = ROOT / "benchmarks/picture.py", tmp_path / "speed.json"
    subprocess.run([sys.executable, str(file), str(out), "-o", str(tmp_path)], check=True)
    light, dark = ((tmp_path / f"speed-{name}.svg").read_text() for name in picture.THEMES)
    assert light != dark
    assert re.sub("#[0-9a-f]{6}", "", light) == re.sub("#[0-9a-f]{6}", "", dark)


@pytest.mark.parametrize("name", picture.THEMES)
def test_text_can_be_read(name: str) -> None:
    """The contrast of each colour of text is at least 4.5, that of a bar at least 3."""
    colours = picture.THEMES[name]
    for colour, least in ((colours.text, 4.5), (colours.faint, 4.5), (colours.gain, 3), (colours.loss, 3)):
        low, high = sorted((_light(colour), _light(colours.ground)))
        assert (high + 0.05) / (low + 0.05) >= least


def _light(colour: str) -> float:
    """The relative luminance, as in the guidelines for accessible pages."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_numbers_of_the_picture_are_in_the_table() -> None:
    """The picture of README was drawn from the results that the page on speed shows."""
    svg = ElementTree.parse(ROOT / "docs/pictures/speed-light.svg").getroot()
    table = (ROOT / "docs/speed.md").read_text()
    said = svg.findtext(f"{SVG}desc")
    assert said is not None
    for module in said.split("; "):
        title, _, ratio = module.rpartition(" ")
        assert re.search(rf"^\| {re.escape(title)} \| .* ms \| (▼ )?{re.escape(ratio)}", table, re.M), module
    readme = (ROOT / "README.md").read_text()
    assert f"from {said.split('; ')[0].rpartition(' ')[2]} " in readme


def test_what_a_lowering_gains_on_the_grid() -> None:
    """The fastest parameters count; siblings that are merged count for what computes them."""
    rows = [
        {"title": "one", "ms": {"expand": 4.0, "polyphase(phases=8)": 2.0, "polyphase(phases=16)": 1.0}},
        {
            "title": "two",
            "ms": {"expand": 4.0, "sibling_merge(lowering=lift)": 8.0, "polyphase(phases=8)": 5.0},
        },
    ]
    found = by_lowering.sections(rows)
    assert set(found) == {"lift", "polyphase"}
    assert (
        "Possible at 2 points. It is the fastest way at 1 of them, and slower than the original at 1."
        in (found["polyphase"])
    )
    assert "| one | 4.000 ms | `polyphase(phases=16)` | 4.00x |" in found["polyphase"]
    assert "It is the fastest way at 0 of them" in found["lift"]
    assert "| two |" not in found["lift"]


def test_measured_sections_are_of_lowerings() -> None:
    """A lowering that was renamed does not keep its old section."""
    titles = re.findall(r"^## (.*)$", lowering_pages.MEASURED.read_text(), re.M)
    assert titles
    assert set(titles) <= set(lowering_pages.names())
