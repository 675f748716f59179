"""The command ``explain``: why a site is rewritten or not, in sentences that hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import run

from export.job.explain import explain_site
from export.job.source import Source, export_original
from export.report.explanation import Explanation, sentences
from export.stages import Stages
from fx_passes.choose.static_rules import MARGIN, static_gain, static_plan
from fx_passes.errors import UsageError
from fx_passes.lowerings import MODULES, propose
from fx_passes.records import Refusal

MODEL = '''
import torch
import torch.nn.functional as F
from torch import nn

def repeated(*taps, channels=3):
    numbers = torch.arange(1.0, 1.0 + torch.Size(taps).numel()).reshape(taps)
    return nn.Buffer((numbers / numbers.sum()).repeat(channels, 1, *[1] * len(taps)))

class Net(nn.Module):
    """A blur behind a Pad, one in two steps, two alike, one of other groups, one without groups."""

    def __init__(self):
        super().__init__()
        self.window, self.row, self.column = repeated(9, 9), repeated(1, 9), repeated(9, 1)
        self.twice = repeated(5, 5)
        self.other = nn.Conv2d(3, 3, 3, groups=3)
        self.mix = nn.Conv2d(3, 16, 3)

    def forward(self, x):
        a = F.conv2d(F.pad(x, (4, 4, 4, 4), mode="reflect"), self.window, groups=3)
        b = F.conv2d(F.conv2d(a.relu(), self.row, groups=3), self.column, groups=3)
        c = F.conv2d(x, self.twice, groups=3) + F.conv2d(x * x, self.twice, groups=3)
        return self.mix(self.other(b.relu())), c

def build():
    torch.manual_seed(0)
    return Net().eval(), (torch.rand(1, 3, 64, 64),)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file of the model."""
    made = tmp_path_factory.mktemp("explain")
    (made / "net.py").write_text(MODEL)
    return made


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    """The exported model."""
    names: dict[str, object] = {}
    exec(compile(MODEL, "net.py", "exec"), names)
    model, inputs = names["build"]()  # type: ignore[operator]
    return export_original(model, inputs, None, folder, "net.onnx", Stages())


def text(explained: Explanation) -> str:
    """All sentences."""
    return "\n".join("  " * depth + line for depth, line in sentences(explained))


def test_a_site_that_is_lowered(source: Source) -> None:
    """What it is, what is computed with it, what each lowering costs, what the rules choose."""
    explained = explain_site(source, "conv2d", "net")
    said = text(explained)
    assert "conv2d: conv2d, 9x9 taps\n  It has 3 groups. Its weight, 3x1x9x9, is the buffer `window`." in said
    assert "Every group repeats one kernel of 1x1x9x9: the numbers are equal." in said
    assert "1x3x64x64 -> 1x3x64x64. The input is padded (reflect)." in said
    assert "In front of it, this is computed with it: a Pad." in said
    assert f"The static rules choose {explained.chosen}: about " in said
    assert "fold_batch: the batch has one item." in said


def test_costs_are_those_of_the_rules(source: Source) -> None:
    """Every lowering is there, proposed or refused; the work is as the rules count it. So is the choice."""
    sites, _ = source.found.sites(source.workloads)
    site = next(one for one in sites if one.id == "conv2d")
    explained = explain_site(source, "conv2d", "net")
    assert {way.lowering for way in explained.ways} == set(MODULES)
    proposals, refusals = propose(site.resample, site.kernel)
    gains = {p.name: static_gain(site, p) for p in proposals}
    assert {w.name: 1 / w.work for w in explained.ways if w.work} == pytest.approx(
        {name: gain for name, gain in gains.items() if gain}
    )
    assert {w.name: w.refusal for w in explained.ways if w.refusal} == {
        name: refusal for name, refusal in refusals.items() if name not in {p.lowering for p in proposals}
    }
    choice = static_plan(sites).choices["conv2d"].proposal
    assert choice is not None and explained.chosen == choice.name
    assert gains[choice.name] >= MARGIN


def test_sites_in_a_row(source: Source) -> None:
    """Each says of which whole it is a part; the whole can be asked for as well."""
    sites, _ = source.found.sites(source.workloads)
    (whole,) = [site for site in sites if site.parts]
    said = text(explain_site(source, whole.ids[0], "net"))
    assert f"It is also a part of `{whole.id}`, 2 in a row that can be one." in said
    explained = explain_site(source, whole.id, "net")
    said = text(explained)
    assert f"{whole.id}: conv2d, 1x9 taps and then conv2d, 9x1 taps, as one" in said
    assert "9x9 taps" in said
    chosen = {one.id: static_plan(sites).choices[one.id].proposal for one in (whole, *whole.parts)}
    for name, proposal in chosen.items():
        assert explain_site(source, name, "net").chosen == (proposal.name if proposal else None)
    as_one = chosen[whole.id] is not None
    said = f"compute it as a part of `{whole.id}`" if as_one else "compute its parts by themselves"
    others = whole.ids if as_one else (whole.id,)
    assert all(said in text(explain_site(source, name, "net")) for name in others)


def test_siblings(source: Source) -> None:
    """Equal sites that do not need each other are counted. Each lowering is there for all of them, too."""
    sites, _ = source.found.sites(source.workloads)
    site = next(one for one in sites if one.siblings > 1)
    explained = explain_site(source, site.id, "net")
    assert "2 sites, this one included, are equal and do not need each other" in text(explained)
    assert {way.merged for way in explained.ways} == {True, False}
    assert "All siblings are computed by one call." in text(explained)


def test_a_site_that_is_not_shared(source: Source) -> None:
    """The reason with its numbers, and no lowering."""
    (name,) = [finding.id for finding in source.found.findings if not finding.shared]
    explained = explain_site(source, name, "net")
    assert "It is not shared: group 1 differs from group 0 by" in text(explained)
    assert not explained.ways and explained.rules is None


def test_a_site_that_no_lowering_takes(source: Source) -> None:
    """The refusal of all lowerings is a sentence, and in the JSON."""
    finding = source.found.findings[0]
    refusal = Refusal(finding.id, "lower", "dtype", "input and kernel do not both have the type float32")
    explained = Explanation("net", finding.id, (finding,), refusal=refusal)
    assert "No lowering is tried: input and kernel do not both have the type float32." in text(explained)
    assert explained.to_json()["code"] == "dtype"


def test_a_convolution_that_is_no_candidate(source: Source) -> None:
    """It exists, and has one group."""
    said = text(explain_site(source, "mix/conv2d_6", "net"))
    assert "It is no candidate: its groups are one, with a weight 16x3x3x3" in said


def test_unknown_ids(source: Source) -> None:
    """The error names those that are near, or some of all."""
    with pytest.raises(UsageError, match=r"no convolution `mix/conv2d`; did you mean mix/conv2d_6, "):
        explain_site(source, "mix/conv2d", "net")
    with pytest.raises(UsageError, match=r"no convolution `zzz`; it has conv2d, .* and \d more$"):
        explain_site(source, "zzz", "net")


def test_ids_of_the_graph_of_the_model(source: Source) -> None:
    """``find`` may name a site otherwise than the file does: it is the one at the same place."""
    findings = source.found.findings
    renamed = [
        type(f)(type(f.site)(**{**vars(f.site), "id": f"find{i}"}), f.kernel, f.refusal, f.note)
        for i, f in enumerate(findings)
    ]
    explained = explain_site(source, "find1", "net", also=lambda: renamed)
    assert explained.id == findings[1].id
    explained = explain_site(source, "find1", "net", also=lambda: renamed[:-1])
    assert explained.findings == (renamed[1],)
    assert "The exported file, in which `optimize` looks, has no such site" in text(explained)
    assert not explained.ways


def test_lowerings_that_are_asked_for(source: Source) -> None:
    """The others are left out."""
    explained = explain_site(source, "conv2d", "net", lowerings=("polyphase", "lift"))
    assert {way.lowering: way.refusal is None for way in explained.ways} == {"polyphase": True, "lift": False}


def test_times(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidates as ``optimize`` times them; the quickest is the first."""
    from export.job import explain

    monkeypatch.setattr(
        explain,
        "time_alone",
        lambda found, *rest: dict(zip(found.names, [8.0, 4.0, 2.0] + [9.0] * 99, strict=False)),
    )
    explained = explain_site(source, "conv2d", "net", timed=True)
    said = text(explained).splitlines()
    assert explained.original_ms == 8.0
    first = said[said.index("  original: 8 ms by itself.") + 1]
    assert "timed here 2 ms (0.25 of the original)" in first


@pytest.mark.slow
def test_command(folder: Path, source: Source) -> None:
    """Of a torch model and of an ONNX file; the JSON has the same sentences."""
    model = f"{folder / 'net.py'}:build"
    printed = run("explain", model, "conv2d", "--time")
    assert printed.exit_code == 0, printed.output
    assert "original: " in printed.stdout and "timed here" in printed.stdout
    data = json.loads(run("explain", source.baseline, "conv2d", "--json", "-").stdout)
    assert data["schema"] == "fx-passes/explain/1"
    assert data["static"]["lowering"] == explain_site(source, "conv2d", "net").chosen
    assert data["text"][0] == "conv2d: conv2d, 9x9 taps"
    assert all(line.strip() in printed.stdout for line in data["text"][:4] if "window" not in line)
    wrong = run("explain", model, "conv2dd")
    assert (wrong.exit_code, "did you mean conv2d" in wrong.stderr) == (2, True)


@pytest.mark.slow
def test_every_id_of_find_is_explained(folder: Path) -> None:
    """Whatever ``find`` prints, also of a ``.pt2`` file."""
    names: dict[str, object] = {}
    exec(compile(MODEL, "net.py", "exec"), names)
    model, inputs = names["build"]()  # type: ignore[operator]
    torch.export.save(torch.export.export(model, inputs), folder / "net.pt2")
    found = json.loads(run("find", folder / "net.pt2", "--json", "-").stdout)
    for site in found["sites"]:
        assert run("explain", folder / "net.pt2", site["id"], "-q").exit_code == 0
