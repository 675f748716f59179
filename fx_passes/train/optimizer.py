"""Moves the state of an optimizer from a model that repeats its kernels to the shared model.

The gradient of the one kernel is the sum over the groups, g = sum g_c. The parts of the state move by these
rules:

    linear in the gradients (momentum of SGD, first moment of Adam)   the sum over the groups, exactly
    second moment of Adam, largest second moment                      groups * the sum over the groups
    step                                                              unchanged

A second moment averages g_c ** 2, and (sum g_c) ** 2 <= groups * sum g_c ** 2 (Cauchy-Schwarz). The rule
gives the smallest value that is never below the right one, so that no first step is too large.

If an optimizer adds weight decay to the gradient, its momentum contains the weight decay once for each
repeat. That is refused. Every other optimizer that has a state is refused as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from fx_passes.errors import UsageError
from fx_passes.train.checkpoint import Cut, cuts_of

_SUM, _BOUND, _KEEP = "sum", "bound", "keep"
_ADAM = {"step": _KEEP, "exp_avg": _SUM, "exp_avg_sq": _BOUND, "max_exp_avg_sq": _BOUND}
_RULES: dict[type[Optimizer], dict[str, str]] = {SGD: {"momentum_buffer": _SUM}, Adam: _ADAM, AdamW: _ADAM}


def share_optimizer(optimizer: Optimizer, model: nn.Module, shared: nn.Module) -> None:
    """Let ``optimizer``, which trains ``model``, continue with ``shared``, in place.

    Args:
        optimizer: ``SGD``, ``Adam`` or ``AdamW``, or any other that has no state yet.
        model: the model that was shared.
        shared: the result of :func:`share_kernels` for ``model``.

    In the parameter groups, parameters that were cut replace the full ones. The state moves with them by the
    rules above.

    Raises:
        UsageError: there is no rule for the state. The message names optimizer, parameter and remedy, and
            nothing has changed.

    Example:
        >>> from fx_passes import share_kernels
        >>> model = nn.Conv1d(4, 4, 3, groups=4, bias=False)
        >>> _ = model.weight.data.fill_(1.0)
        >>> optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> model(torch.ones(1, 4, 3)).sum().backward()
        >>> optimizer.step()
        >>> shared = share_kernels(model)
        >>> share_optimizer(optimizer, model, shared)
        >>> optimizer.state[shared.weight]["momentum_buffer"].flatten()  # of each of the 4 groups: 1.0
        tensor([4., 4., 4.])
    """
    cuts, new = cuts_of(shared), dict(shared.named_parameters(remove_duplicate=False))
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    moves: dict[int, tuple[nn.Parameter, dict[str, Any]]] = {}
    for name, old in model.named_parameters():
        if id(old) not in known or new.get(name) is old:
            continue
        if name not in new or name not in cuts or tuple(old.shape) != cuts[name].full_shape:
            raise UsageError(
                f"`{name}` of the model is neither in the shared model nor cut down there: "
                "give the model that was shared, and what share_kernels returned for it"
            )
        group = next(g for g in optimizer.param_groups if any(p is old for p in g["params"]))
        moves[id(old)] = new[name], _moved(optimizer, group, name, optimizer.state.get(old, {}), cuts[name])
    for group in optimizer.param_groups:
        for index, old in enumerate(group["params"]):
            if id(old) in moves:
                parameter, state = moves[id(old)]
                group["params"][index] = parameter
                optimizer.state.pop(old, None)
                if state:
                    optimizer.state[parameter] = state


def _moved(
    optimizer: Optimizer, group: dict[str, Any], name: str, state: dict[str, Any], cut: Cut
) -> dict[str, Any]:
    """The state of a cut parameter."""
    if not state or all(value is None for value in state.values()):
        return {}
    kind = type(optimizer)
    rules = _RULES.get(kind, {})
    if unknown := [key for key in state if key not in rules]:
        raise UsageError(
            f"`{kind.__name__}` keeps `{unknown[0]}` of `{name}`, and there is no rule to convert it: "
            "share before the optimizer has a state, or make a new one"
        )
    if group.get("weight_decay") and kind is not AdamW and not group.get("decoupled_weight_decay"):
        raise UsageError(
            f"the momentum of `{name}` in `{kind.__name__}` contains the weight decay once for each repeat: "
            "share before the first step, make a new optimizer, or use AdamW"
        )
    return {key: _by(rules[key], value, cut) for key, value in state.items()}


def _by(rule: str, value: Any, cut: Cut) -> Any:
    if rule == _KEEP or not isinstance(value, Tensor):
        return value
    total = cut.slices(value).sum(0)
    return torch.mul(total, cut.groups) if rule == _BOUND else total
