"""What the benchmark with open sizes prints: its table, missed goals, and why sites are not lowered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphs import NO_LOSS
from open_graphs import NO_SHARE, OpenGraph
from tables import ENOUGH, cell, header, line

from export.read_onnx.model import read_model
from export.read_onnx.sites import analyse
from export.report.result import Report
from fx_passes.choose.static_rules import MARGIN, preferred, static_gain
from fx_passes.lowerings import propose
from fx_passes.resample.site import Site

Row = Mapping[str, Any]


def reasons_of(stock: Path, report: Report) -> dict[str, str]:
    """By id, why a convolution in the file ``stock`` is not lowered."""
    sites = {site.id: site for site in analyse(read_model(stock), "aten").sites()[0]}
    reasons = {}
    for finding in report.findings:
        if report.lowering_of(finding) not in (None, "expand"):
            continue
        if not finding.shared:
            reasons[finding.id] = f"not shared: {finding.reason}"
        elif finding.id in report.kept:
            reasons[finding.id] = report.kept[finding.id]
        else:
            reasons[finding.id] = f"not chosen: {_proposals_of(sites[finding.id])}"
    return reasons


def chosen(report: Report) -> Counter[str]:
    """The lowerings of a report with their parameters, and how many sites each has."""
    return Counter(choice.proposal.name for choice in report.plan.choices.values() if choice.proposal)


def _proposals_of(site: Site) -> str:
    """What the rules count of the best proposal for a site, and the refusal of each lowering."""
    proposals, refusals = propose(site.resample, site.kernel, "finite", site.siblings)
    said = [f"{name}: {refusal.reason}" for name, refusal in refusals.items()]
    if proposals:
        best = preferred(site, proposals)
        gain = static_gain(site, best)
        said.insert(0, f"the rules count {gain:.2f}x for {best.name}, and need {MARGIN}x")
    return "; ".join(said)


def share_of(row: Row) -> dict[str, Any]:
    """The gain with open sizes over that with fixed ones, with its interval; or why there is none."""
    fixed, sizes = row["fixed"], row["open"].get("sizes", [row["open"]])
    for measured in (fixed, sizes[0]):
        if "failed" in measured:
            return {"failed": measured["failed"]}
    value = sizes[0]["ratio"] / fixed["ratio"]
    blocks = min(fixed["blocks"], sizes[0]["blocks"])
    return {"ratio": value, "ci95": _interval(value, [fixed, sizes[0]]), "blocks": blocks}


def _interval(value: float, measured: Sequence[Row]) -> list[float]:
    """The 95 % interval of a quotient of two ratios, which were measured independently of each other."""
    halves = [math.log(m["ci95"][1] / m["ci95"][0]) / 2 if m["ci95"][0] else math.inf for m in measured]
    factor = math.exp(min(math.hypot(*halves), 100.0))
    return [value / factor, value * factor]


def goals_of(graph: OpenGraph, row: Row) -> list[dict[str, Any]]:
    """The goals of a graph: its share of the gain with fixed sizes, and no loss at any size."""
    goals = []
    if graph.share > NO_SHARE:
        goals.append(_judged(f"{graph.share:g} of the gain with fixed sizes", graph.share, share_of(row)))
    for measured in row["open"].get("sizes", [row["open"]]):
        at = "x".join(map(str, measured.get("sizes", [])))
        if "failed" in measured:
            goals.append(_judged(f"runs {at}".strip(), NO_LOSS, measured))
        elif "ratio" in measured:
            goals.append(_judged(f"not below {NO_LOSS}x at {at}", NO_LOSS, measured))
    if "failed" in row["fixed"]:
        goals.append(_judged("runs with fixed sizes", NO_LOSS, row["fixed"]))
    return goals


def _judged(text: str, least: float, measured: Row) -> dict[str, Any]:
    """A goal with what was reached."""
    if "failed" in measured:
        return {"text": text, "goal": least, "met": False, "failed": measured["failed"]}
    low, high = measured["ci95"]
    return {
        "text": text,
        "goal": least,
        "reached": measured["ratio"],
        "met": measured["ratio"] >= least,
        "within_noise": low < least <= high,
    }


def open_table(rows: Sequence[Row]) -> str:
    """A row for each graph: its gains with fixed and with open sizes, the share, and the lowered sites."""
    names = ("graph", "input", "fixed sizes", "open sizes", "smaller", "larger", "share")
    lines = header(*names, "lowered, fixed", "lowered, open")
    for row in rows:
        shapes = ", ".join("x".join(map(str, shape)) for shape in row.get("inputs", ()))
        if "failed" in row:
            lines.append(line(row["title"], shapes, *["failed"] * 7))
            continue
        sizes = row["open"].get("sizes", [{"failed": ""}] * 3)
        share = share_of(row)
        lines.append(
            line(
                row["title"],
                shapes,
                cell(row["fixed"]),
                cell(sizes[0]),
                *(_at(measured) for measured in sizes[1:3]),
                "failed" if "failed" in share else _share(share),
                *(_lowered(row[kind]) for kind in ("fixed", "open")),
            )
        )
    return "\n".join(lines)


def _at(measured: Row) -> str:
    """The cell of one size, with the size."""
    sizes = "x".join(map(str, measured.get("sizes", [])))
    return f"{cell(measured)} at {sizes}" if sizes else cell(measured)


def _share(share: Row) -> str:
    low, high = share["ci95"]
    spread = f" ± {(high - low) / 2:.2f}" if share["blocks"] >= ENOUGH else ""
    return f"{share['ratio']:.2f}{spread}"


def _lowered(facts: Row) -> str:
    return f"{facts['lowered']} of {facts['sites']}" if "sites" in facts else "failed"


def missed(rows: Sequence[Row]) -> list[str]:
    """A line for each goal that is missed, and for each failure."""
    lines = []
    for row in rows:
        if "failed" in row:
            lines.append(f"{row['name']}: failed: {row['failed']}")
        for goal in row.get("goals", ()):
            if not goal["met"]:
                noise = ", within noise" if goal.get("within_noise") else ""
                said = f"failed: {goal['failed']}" if "failed" in goal else f"{goal['reached']:.3f}{noise}"
                lines.append(f"{row['name']}: {goal['text']}: {said}")
    return lines


def lowerings(rows: Sequence[Row]) -> list[str]:
    """A line for each lowering that was chosen, with how many sites have it."""
    return _counted(rows, "lowerings")


def reasons(rows: Sequence[Row]) -> list[str]:
    """A line for each reason why sites are not lowered, with how many there are."""
    return _counted(rows, "not_lowered")


def _counted(rows: Sequence[Row], fact: str) -> list[str]:
    return [
        f"{row['name']}, {kind} sizes, {count} site(s): {text}"
        for row in rows
        for kind in ("fixed", "open")
        for text, count in row.get(kind, {}).get(fact, {}).items()
    ]
