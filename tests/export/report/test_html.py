"""The page for people: what it says, what it escapes, what it never does."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import made_reports as made
import numpy as np
import pytest

from export.report.details import Details, Operators
from export.report.html import html_of, write_html
from export.report.result import Report
from export.verify.difference import Difference
from export.verify.equivalence import Equivalence
from export.verify.level import Level
from fx_passes.errors import ExportError
from fx_passes.plan import Choice, Plan

EVIL = '<script>alert("1")</script>\'"&'
BUILT = (made.finding("a"), made.finding("b", taps=(12,)), made.finding("c", taps=(3, 3, 3)))


def test_names_are_escaped() -> None:
    """Whatever a model calls itself, its sites and its tensors, it is text, never markup."""
    one = made.finding(EVIL, taps=(3,))
    refused = made.finding("x", reason=EVIL)
    found = made.report([one], [refused], speed=made.timing(2.0), model=EVIL)
    assert found.details is not None
    found = replace(
        found, details=replace(found.details, before={EVIL: 1}, operators=Operators(why_not=EVIL))
    )
    page = html_of(found, command=EVIL)
    assert "alert(" in page
    assert "<script>alert" not in page
    assert page.count("<script") == 1
    assert not re.search(r'="[^"<>]*<script', page)


def test_the_page_loads_nothing() -> None:
    """No address, no import: links lead into the page, pictures are in it, the policy forbids the rest."""
    page = html_of(made.report(BUILT, speed=made.timing(2.0)))
    addresses = re.findall(r"""(?:href|src|action|data|poster|srcset)\s*=\s*["']([^"']*)["']""", page)
    assert len(addresses) > 10
    assert [one for one in addresses if not one.startswith(("#", "data:image/png;base64,"))] == []
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"url\(|@import|<link|<iframe|fetch\(|XMLHttp", page)
    assert "default-src 'none'" in html.unescape(page)


def test_every_anchor_is_there() -> None:
    """Each link of the page has its target, and no id is used twice."""
    page = html_of(made.report(BUILT, [made.finding("r", reason="differs")], speed=made.timing(2.0)))
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)


def test_every_reason_is_shown() -> None:
    """Of each site that is not shared, cannot be lowered, or keeps something beside it."""
    refused = [made.finding(f"r{i}", reason=f"group {i} differs by 1e-{i}") for i in range(5)]
    shared = [made.finding(f"s{i}", taps=(3, 3 + i)) for i in range(3)]
    kept = {"s0": "it reads an open size", "s1": "its input is an integer"}
    plan = Plan({"s2": Choice("k", made.WAY)})
    found = made.report(
        (), [*refused, *shared], kept=kept, plan=plan, outside={"s2": ["the Pad has two users"]}
    )
    page = html_of(found)
    for said in [*(str(one.reason) for one in refused), *kept.values(), "the Pad has two users"]:
        assert said in page


def test_a_kept_site_says_who_decided() -> None:
    """A site that could be lowered and is not has a reason too, whatever decided."""
    for lowering, said in (
        ("tuned", "both by itself and in"),
        ("static", "the rules"),
        ("plan", "the plan keeps"),
    ):
        found = made.report((), [made.finding("a")], lowering=lowering, plan=Plan({"a": Choice("k", None)}))
        assert said in html_of(found)


def test_the_chosen_candidate_is_marked() -> None:
    """Exactly one of the three, and it is the one that the plan has."""
    page = html_of(made.report([made.finding("a")]))
    (row,) = re.findall(r'<tr class="chosen">(.*?)</tr>', page, re.S)
    assert "separable" in row
    assert page.count("✓ chosen") == 1
    assert page.count('<td class="room">') == 3 + 2  # candidates and operators


def test_many_sites_stay_small() -> None:
    """218 sites, each of its own kind with pictures and candidates, take less than 3 MB."""
    sites = [made.finding(f"layers.{i}.conv", taps=((12,), (11, 11), (5, 5, 5))[i % 3]) for i in range(218)]
    page = html_of(made.report(sites, speed=made.timing(1.5, blocks=24)))
    assert page.count('class="kind"') == 218
    assert len(page.encode()) < 3_000_000


def test_equal_sites_share_one_kind() -> None:
    """Sites with one key have one section of details, and a row each."""
    sites = [made.finding(f"s{i}", taps=(12,)) for i in range(50)]
    plan = Plan({one.id: Choice("same", made.WAY) for one in sites})
    page = html_of(made.report(sites, plan=plan))
    assert page.count('class="kind"') == 1
    assert page.count("<tr data-status=") == 50


@pytest.mark.parametrize(
    ("found", "said", "tone"),
    [
        (made.report(BUILT, speed=made.timing(2.5)), "2.5x faster (95 % interval", "good"),
        (made.report(BUILT, speed=made.timing(0.5)), "slower: 0.500x", "bad"),
        (made.report(BUILT, speed=made.timing(1.0)), "no measurable difference: 1.000x", "plain"),
        (made.report(BUILT, speed=made.timing(3.0, blocks=1)), "3x in one block, which allows no", "plain"),
        (made.report(BUILT), "speed not measured", "plain"),
        (made.report((), BUILT), "speed not measured, as nothing was rewritten", "plain"),
    ],
)
def test_the_line_on_top_is_honest(found: Report, said: str, tone: str) -> None:
    """It claims what the measurement allows, and nothing where there is none."""
    page = html_of(found)
    (line,) = re.findall(rf'<h1 class="verdict {tone}">(.*?)</h1>', page)
    assert said in line
    assert "Equivalent to the original: within bounds in 7 cases (float64)" in line


def test_a_file_that_is_wrong_is_never_good() -> None:
    """The line on top names the difference, however fast the file is."""
    wrong = Equivalence(False, 3, False, "float64", (), Difference("y", "zeros", Level(), detail="no number"))
    page = html_of(made.report(BUILT, speed=made.timing(9.0), equivalence=wrong))
    (line,) = re.findall(r'<h1 class="verdict bad">(.*?)</h1>', page)
    assert "Not equivalent: output" in line


def test_several_settings_are_all_shown() -> None:
    """One plot each; the line on top does not hide that one of them is slower."""
    speed = made.timing(2.0), made.timing(0.5)
    at = tuple((((n, 3, 8, 8),), one) for n, one in enumerate(speed, 1))
    page = html_of(made.report(BUILT, speed=speed[0], speed_at=at))
    assert "of 2 settings: 1 faster, 1 slower" in page
    assert page.count('class="timings"') == 2
    assert '<h1 class="verdict bad">' in page


def test_what_is_missing_says_why() -> None:
    """A profile that failed, kernels without numbers, and a report without details."""
    why = Details(operators=Operators(why_not="the profile of onnxruntime cannot be read"))
    assert "Not shown: the profile of onnxruntime cannot be read." in html_of(made.report(BUILT, details=why))
    broken = {"a": np.full((1, 1, 5, 5), np.nan)}
    assert 'id="kernel-1"' not in html_of(made.report(BUILT[:1], kernels=broken))
    assert "Time by operator" not in html_of(made.report(BUILT, details=None))


def test_a_reader_who_does_not_see_gets_words() -> None:
    """Drawings are images with a title, tables have captions, sortable headers are buttons."""
    page = html_of(made.report(BUILT, speed=made.timing(2.0)))
    drawings = re.findall(r"<svg(?![^>]*aria-hidden)([^>]*)>\s*(<title>[^<]+</title>)?", page)
    assert len(drawings) >= 8
    assert all('role="img"' in attributes and title for attributes, title in drawings)
    assert page.count("<table") == page.count("<caption>") >= 7
    assert page.count('aria-sort="none"') == page.count('<button type="button" data-type=') == 8
    for landmark in ("<main", "<header", "<nav aria-label", "<footer", '<html lang="en"'):
        assert page.count(landmark) == 1


def test_the_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If writing fails, the file of before stays, and no part of the new one."""
    file = tmp_path / "r.html"
    write_html(made.report(BUILT), file)
    before = file.read_bytes()

    def full(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(text[:100].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ExportError, match=r"cannot write .*r.html: No space left"):
        write_html(made.report(BUILT, model="other"), file)
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["r.html"]
