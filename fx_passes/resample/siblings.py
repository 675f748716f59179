"""Sites that are equal and do not depend on each other: one call may compute them all.

Before:  conv(x1, expand(kernel)), conv(x2, expand(kernel)), ...
After:   split(lowered(cat(x1, x2, ...)))

The windowed means of SSIM are such sites. Kernel, geometry and shapes are the same, and no site needs the
result of another. One call saves the cost that each operator has by itself, and costs two copies. It pays for
small inputs. Any lowering may compute the inputs together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch.fx import Node

from fx_passes.graph.operators import ancestors
from fx_passes.resample.axes import Resample
from fx_passes.resample.lengths import shape_of
from fx_passes.resample.site import Site, digest


def independent_groups(sites: Sequence[tuple[str, Node, Node]]) -> list[list[int]]:
    """Which of the sites can be computed together, as lists of their positions.

    A group has all sites of one key. Merged groups never depend on each other in a cycle.

    Args:
        sites: (key, source, end) of each.
    """
    groups: dict[str, list[int]] = {}
    for index, (key, _, _) in enumerate(sites):
        groups.setdefault(key, []).append(index)
    chosen: list[list[int]] = []
    for group in groups.values():
        if len(group) > 1 and not _waits_for_itself(sites, [*chosen, group]):
            chosen.append(group)
    return chosen


def _waits_for_itself(sites: Sequence[tuple[str, Node, Node]], groups: Sequence[list[int]]) -> bool:
    """Whether the last of ``groups`` needs its own result, directly or through other groups."""
    needed = [ancestors(sites[i][1] for i in group) for group in groups]
    ends = [{sites[i][2] for i in group} for group in groups]
    reached, stack = set[int](), [len(groups) - 1]
    while stack:
        waiting = stack.pop()
        for other, results in enumerate(ends):
            if needed[waiting] & results:
                if other == len(groups) - 1:
                    return True
                if other not in reached:
                    reached.add(other)
                    stack.append(other)
    return False


def with_siblings(sites: list[Site], nodes: Mapping[str, Node]) -> list[Site]:
    """The sites, of which those that can be computed together have their ``siblings``."""
    ends = [(nodes[site.source], nodes[site.end]) for site in sites]
    joined = [i for i, site in enumerate(sites) if _has_batch(site.resample, *ends[i])]
    # Equal sites may have other open sizes than each other.
    known = [(f"{sites[i].key} {shape_of(ends[i][0].meta['val'])}", *ends[i]) for i in joined]
    taken: Counter[str] = Counter()
    for group in independent_groups(known):
        first = sites[joined[group[0]]]
        key = digest(f"{first.key}, {len(group)} siblings, {taken[first.key]} groups before")
        taken[first.key] += 1
        for index in (joined[i] for i in group):
            sites[index] = replace(sites[index], siblings=len(group), key=key)
    return sites


def _has_batch(resample: Resample, source: Node, end: Node) -> bool:
    """Whether the first size of input and output is the batch, so that several inputs can be concatenated."""
    before, after = (shape_of(node.meta["val"]) or () for node in (source, end))
    whole = len(before) == len(after) == resample.dim + 2
    return whole and before[0] == after[0] and not resample.leading
