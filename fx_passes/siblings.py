"""Sites that are the same and independent of each other: what ``lowerings/sibling_merge.py`` can put
together."""

from __future__ import annotations

from collections.abc import Iterable

from torch.fx import Node


def independent_groups(sites: Iterable[tuple[str, Node, Node]]) -> list[list[int]]:
    """Which of the sites, given as (key, source, end), are the same and can be computed at once.

    Of each key there is one group with all of its sites, or none.
    """
    groups: dict[str, list[int]] = {}
    known = list(sites)
    for index, (key, _, _) in enumerate(known):
        groups.setdefault(key, []).append(index)
    return [
        group
        for group in groups.values()
        if len(group) > 1
        and _first_dimension_is_batch([known[i] for i in group])
        and _independent([known[i] for i in group])
    ]


def _independent(sites: list[tuple[str, Node, Node]]) -> bool:
    """No source depends on the end of another site."""
    ends = {end for _, _, end in sites}
    return not any(ends & ancestors([source]) for _, source, _ in sites)


def _first_dimension_is_batch(sites: list[tuple[str, Node, Node]]) -> bool:
    """Inputs and outputs have the same first size, so that putting inputs together puts outputs together."""
    sizes = {node.meta["val"].shape[0] for _, source, end in sites for node in (source, end)}
    dims = {node.meta["val"].ndim for _, source, end in sites for node in (source, end)}
    return len(sizes) == 1 and len(dims) == 1


def ancestors(nodes: Iterable[Node]) -> set[Node]:
    """The nodes and everything that they are computed from."""
    found: set[Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(node.all_input_nodes)
    return found
