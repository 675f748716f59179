"""Sites that are equal and do not depend on each other: one call may compute them all.

Before:  conv(x1, expand(kernel)), conv(x2, expand(kernel)), ...
After:   split(lowered(cat(x1, x2, ...)))

The windowed means of SSIM are such sites. Kernel, geometry and shapes are the same, and no site needs the
result of another. One call saves the cost that each operator has by itself, and costs two copies. It pays for
small inputs. Any lowering may compute the inputs together.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from fx_passes.graph.operators import ancestors


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
