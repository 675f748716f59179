"""The sites on a terminal of any width: those that are alike are one, and nothing is cut."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from export.report.site_lines import print_sites
from fx_passes.records import ConvGeometry, ConvSite, Finding, Refusal, SharedKernel, WeightOrigin

WIDTHS = (60, 61, 80, 99, 120, 200)
LONG = "the groups differ: group 1 differs from group 0 by 0.123 at [0, 0, 1, 2], which is more than 0.0"


def finding(name: str, groups: int, taps: int = 12, stride: int = 1, reason: str | None = None) -> Finding:
    """A convolution of one dimension, shared or not."""
    one = (1,)
    geometry = ConvGeometry("conv1d", groups, groups, groups, (taps,), (stride,), (0,), one, (0,))
    site = ConvSite(name, "aten", name, geometry, (groups, 1, taps), WeightOrigin("buffer"))
    if reason is not None:
        return Finding(site, refusal=Refusal(name, "repeats", "differ", reason))
    return Finding(site, SharedKernel(groups, (1, 1, taps)))


FOUND = [
    finding("blocks.0.a[red].down/conv1d", 8, stride=2),
    finding("blocks.0.a[red].up/conv1d", 8),
    finding("blocks.1.down/conv1d", 256, stride=2),
    finding("mixed/conv1d", 4, taps=3, reason=LONG),
    finding("mixed.again/conv1d", 4, taps=3, reason=LONG.replace("0.123", "7.5")),
]


def lines(width: int, *, every: bool = False, color: bool = False) -> list[str]:
    """What is printed on a terminal of a width."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=color, color_system="standard" if color else None
    )
    print_sites(console, FOUND, every=every)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def words(printed: list[str]) -> str:
    """The text without the places where lines end."""
    return re.sub(r"\s", "", "".join(printed))


def test_alike() -> None:
    """One line for those of one form and one fate, in the order of the first of each."""
    head, *rows = lines(300)
    assert head.split() == "sites op groups weight -> kernel first site verdict".split()
    assert [re.split(r"\s{2,}", row.strip()) for row in rows] == [
        ["2 x", "conv1d, 12 taps, stride 2", "8 to 256", "several -> 1x1x12", FOUND[0].id, "shared"],
        ["1 x", "conv1d, 12 taps", "8", "8x1x12 -> 1x1x12", FOUND[1].id, "shared"],
        ["2 x", "conv1d, 3 taps", "4", "4x1x3", FOUND[3].id, rows[2].strip().rpartition("  ")[2]],
    ]
    assert rows[2].endswith(f"not shared: {LONG} (this is the first; the numbers of the others differ)")


def test_every_site() -> None:
    """``--sites`` gives each one its line, and its own reason."""
    rows = lines(300, every=True)[1:]
    assert len(rows) == len(FOUND)
    assert all(one.id in row for one, row in zip(FOUND, rows, strict=True))
    assert rows[4].endswith(FOUND[4].reason or "?")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("every", [False, True])
def test_nothing_is_cut(width: int, every: bool) -> None:
    """Whatever is printed on a wide terminal is printed on a narrow one, in lines that fit it."""
    printed = lines(width, every=every)
    assert max(map(len, printed)) <= width
    said = words(printed)
    for row in lines(300, every=every)[1:]:
        assert all(words([part]) in said for part in re.split(r"\s{2,}", row.strip()))
    assert "…" not in said


def test_narrow() -> None:
    """Where a table would leave the reasons no room: what it is, what became of it, the first site."""
    assert lines(60)[:6] == [
        "2 x conv1d, 12 taps, stride 2, 8 to 256 groups, several ->",
        "    1x1x12",
        "    shared",
        "    first site: blocks.0.a[red].down/conv1d",
        "1 x conv1d, 12 taps, 8 groups, 8x1x12 -> 1x1x12",
        "    shared",
    ]


def test_wide() -> None:
    """A table: the last column alone is more than one line."""
    printed = lines(120)
    assert len(printed) > 4
    assert {line.startswith((" " * 60, "sites", "  1 x", "  2 x")) for line in printed} == {True}


def test_color_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets a bold head; with NO_COLOR, no color."""
    assert "\x1b[" in lines(120, color=True)[0]
    assert not any("\x1b[" in line for line in lines(120))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[(3|4|9|10)\d", "".join(lines(120, color=True)))
