"""Finds the other users of the tensor that a site wants to cut to one kernel.

A cut changes a parameter for all its users. So each user must be a site that is shared in the same way. Three
cases are handled: one parameter under two names, one module called twice, and two calls with one weight. In
any other case the site is refused, and the reason names the other user.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch.fx import Node

from fx_passes.find.verdict import Action, CutTensor, Verdict
from fx_passes.graph.operators import base_name, read_inputs, reads_shape, transparent_input
from fx_passes.graph.tensors import State, storage_key
from fx_passes.records import Finding, Refusal


def settle_ties(verdicts: list[Verdict], state: State) -> list[Verdict]:
    """The verdicts, in which a site is refused if something else needs its full weight."""
    settled = list(verdicts)
    for places in _by_storage([v.action for v in verdicts], state).values():
        group = [verdicts[i] for i in places]
        if reason := _not_alike(group) or _other_use(group, "weight", state):
            for i in places:
                settled[i] = _refuse(verdicts[i], reason)
    for places in _by_storage([v.bias for v in settled], state).values():
        group = [settled[i] for i in places]
        if _not_alike(group) or _other_use(group, "bias", state):
            for i in places:
                settled[i] = replace(settled[i], bias=None)
    return [_note_bias(verdict) for verdict in settled]


def _by_storage(actions: Sequence[Action | None], state: State) -> dict[int, list[int]]:
    """The indices of the actions that cut the same tensor, by its storage."""
    places: dict[int, list[int]] = defaultdict(list)
    for i, action in enumerate(actions):
        if isinstance(action, CutTensor):
            places[storage_key(state.tensors[action.names[0]])].append(i)
    return places


def _not_alike(group: list[Verdict]) -> str | None:
    first = group[0].finding
    for verdict in group[1:]:
        finding = verdict.finding
        if not finding.shared or not first.shared:
            other = finding if not finding.shared else first
            return f"its weight is also the weight of `{other.id}`, which is not shared: {other.reason}"
        same = (finding.kernel, finding.site.geometry.transposed)
        if same != (first.kernel, first.site.geometry.transposed):
            return f"its weight is also the weight of `{first.id}`, which repeats a kernel in it differently"
    return None


def _other_use(group: list[Verdict], role: str, state: State) -> str | None:
    """A text that names another use of the tensor than as ``role`` of the sites of ``group``. None if there
    is none."""
    cut = group[0].action if role == "weight" else group[0].bias
    assert isinstance(cut, CutTensor)
    names = cut.names
    tensor = state.tensors[names[0]]
    for name in names[1:]:
        if state.tensors[name] is not tensor:
            return f"`{names[0]}` shares memory with `{name}`"
    sites = {verdict.call.node for verdict in group}
    for name in names:
        for user in _users(name, role, sites, state):
            if user is not None:
                return f"`{names[0]}` is also used by `{user.name}`"
    return None


def _users(name: str, role: str, sites: set[Node], state: State) -> Iterator[Node | None]:
    """Each use of the tensor called ``name``: None for a use by a site in that role, otherwise the node."""
    owner, _, leaf = name.rpartition(".")
    while True:
        for node in state.calls.get(owner, ()):
            yield None if node in sites and name == f"{node.target}.{role}" and leaf == role else node
        if not owner:
            break
        owner = owner.rpartition(".")[0]
    for node in state.reads[storage_key(state.tensors[name])]:
        if str(node.target) == name:
            yield from _users_of_node(node, role, sites)


def _users_of_node(node: Node, role: str, sites: set[Node]) -> Iterator[Node | None]:
    for user in node.users:
        if sees_no_shape(user, node):
            continue
        if transparent_input(user) is node:
            yield from _users_of_node(user, role, sites)
        elif user in sites and _only_as(user, node, role):
            yield None
        else:
            yield user


def _only_as(call: Node, tensor: Node, role: str) -> bool:
    """Whether ``call`` takes ``tensor`` exactly once, as its weight or its bias."""
    position = {"weight": 1, "bias": 2}[role]
    passed = call.args[position] if position < len(call.args) else call.kwargs.get(role)
    return passed is tensor and sum(n is tensor for n in _flat(call)) == 1


def _flat(call: Node) -> Iterator[Node]:
    for argument in (*call.args, *call.kwargs.values()):
        if isinstance(argument, Node):
            yield argument


def sees_no_shape(user: Node, tensor: Node) -> bool:
    """Whether ``user`` only looks at properties of ``tensor`` that a cut does not change."""
    if base_name(user) == "_assert_tensor_metadata":
        return all(argument is None for argument in user.args[1:3])
    return tensor not in read_inputs(user) and not reads_shape(user)


def _refuse(verdict: Verdict, reason: str) -> Verdict:
    finding = verdict.finding
    refusal = finding.refusal or Refusal(finding.id, "share", "tied", reason)
    return Verdict(verdict.call, Finding(finding.site, refusal=refusal))


def _note_bias(verdict: Verdict) -> Verdict:
    finding = verdict.finding
    if verdict.bias is None or finding.kernel is None:
        return verdict
    kernel = replace(finding.kernel, bias_shared=True)
    return replace(verdict, finding=replace(finding, kernel=kernel))
