"""Cases as models, lowered by a plan."""

from __future__ import annotations

from typing import Any

import torch
from cases import Case
from oracle import of
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from fx_passes.capture.routes import capture
from fx_passes.lowerings.forms.base import Lowered
from fx_passes.lowerings.forms.volume import Volume
from fx_passes.plan import Choice, Plan
from fx_passes.records import Proposal
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site


class Net(nn.Module):
    """A case as a model: the weight is a parameter that repeats its kernel."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        weight, bias = case.full(case.kernel(torch.float32, False), case.bias_of(torch.float32))
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.case.siblings == 1:
            return self.case.run(x, self.weight, self.bias)
        parts = x.chunk(self.case.siblings)
        return torch.cat([self.case.run(part, self.weight, self.bias) for part in parts])


class Twice(nn.Module):
    """A model called on its input, and on twice its input."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), self.net(2 * x)


class Regularised(nn.Module):
    """A weight that is an output as well, whole or as the kernel that is repeated to make it."""

    def __init__(self, case: Case, repeats: bool) -> None:
        super().__init__()
        self.case, self.repeats = case, repeats
        self.weight = nn.Parameter(case.full(case.kernel(torch.float32, False), None)[0], requires_grad=False)
        if repeats:
            block = self.weight.shape[0] // case.geometry.groups
            self.weight = nn.Parameter(self.weight[:block].clone(), requires_grad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        groups = self.case.geometry.groups
        weight: Tensor = self.weight
        if self.repeats:
            weight = weight.repeat(groups, *[1] * (weight.ndim - 1))
        return self.case.run(x, weight, None), self.weight.square().sum()


def plan_for(model: nn.Module | ExportedProgram, inputs: Any, name: str, most: int = 9) -> Plan:
    """The first proposal of a lowering at the first ``most`` sites of a model, none at the others."""
    sites, _ = lowerable_sites(capture(model, inputs).graph_module)
    assert sites
    return Plan(
        {site.id: Choice(site.key, _first(site, name) if i < most else None) for i, site in enumerate(sites)}
    )


def _first(site: Site, name: str) -> Proposal:
    return of(name, site.resample, site.kernel, site.siblings)[0]


def calls(plan: Plan) -> list[str]:
    """The lowerings that a graph calls which was lowered by a plan: one call for all siblings."""
    chosen = [(choice.key, choice.proposal) for choice in plan.choices.values() if choice.proposal]
    once = {key: p.lowering for key, p in chosen if p.merged}
    return [p.lowering for _, p in chosen if not p.merged] + list(once.values())


ROUTES: dict[str, Any] = {
    "nn.Module": lambda model, x: model,
    "exported program": lambda model, x: torch.export.export(model, (x,)),
    "graph module": lambda model, x: torch.export.export(model, (x,)).module(),
}


def snapshot(model: nn.Module | ExportedProgram) -> dict[str, Any]:
    """Everything that a pass must leave alone."""
    code = model.graph_module.code if isinstance(model, ExportedProgram) else getattr(model, "code", None)
    modules = {} if isinstance(model, ExportedProgram) else {n: id(m) for n, m in model.named_modules()}
    state = model.state_dict if isinstance(model, ExportedProgram) else model.state_dict()
    return {
        "state": {key: (value.data_ptr(), value.clone()) for key, value in state.items()},
        "modules": modules,
        "code": code,
    }


def called_modules(graph_module: GraphModule) -> list[str]:
    """The lowerings that a graph calls, in its order."""
    targets = [str(node.target) for node in graph_module.graph.nodes if node.op == "call_module"]
    modules = [graph_module.get_submodule(target) for target in targets]
    return [_lowering(module) for module in modules if isinstance(module, Lowered)]


def _lowering(module: Lowered) -> str:
    """The name of the file of a lowered module. Of a volume, that of its planes."""
    if isinstance(module, Volume):
        return module.proposal.lowering
    return type(module).__module__.rpartition(".")[2]
