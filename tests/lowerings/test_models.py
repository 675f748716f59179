"""The laws of models that every lowering keeps: what it is given stays as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from known import TESTED, WAYS
from nets import ROUTES, Net, Regularised, Twice, called_modules, calls, plan_for, snapshot
from oracle import close

from fx_passes import share_kernels
from fx_passes.capture.routes import capture
from fx_passes.graph.plain_calls import call_plainly
from fx_passes.lower import lower
from fx_passes.lowerings import MODULES
from fx_passes.resample.lowerable import lowerable_sites


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", WAYS)
def test_the_model_is_left_alone(name: str, route: str) -> None:
    """Law 4: parameters, state_dict and code of what was given are as before, and the lowering was done."""
    case = TESTED[name].examples[0]
    x = case.input(torch.float32, False)
    model = ROUTES[route](Net(case), x)
    plan = plan_for(model, (x,), name)
    before = snapshot(model)
    lowered = lower(model, plan, (x,))
    assert close(case, lowered(x), x)
    assert called_modules(lowered) == calls(plan)
    after = snapshot(model)
    assert after["code"] == before["code"]
    assert after["modules"] == before["modules"]
    for key, (pointer, value) in before["state"].items():
        assert after["state"][key][0] == pointer
        assert torch.equal(after["state"][key][1], value)


@pytest.mark.parametrize("name", WAYS)
def test_lowering_again_gives_the_same(name: str) -> None:
    """Law 4: twice from the model, the code is the same; what is lowered has nothing left to lower."""
    case = TESTED[name].examples[0]
    x = case.input(torch.float32, False)
    model = Net(case)
    plan = plan_for(model, (x,), name)
    first, second = lower(model, plan, (x,)), lower(model, plan, (x,))
    assert first.code == second.code
    assert torch.equal(first(x), second(x))
    again = lower(first, "static")
    assert again.code == first.code
    assert torch.equal(again(x), first(x))


@pytest.mark.parametrize("name", WAYS)
def test_a_plan_without_proposals_shares(name: str) -> None:
    """Law 4: what no lowering is chosen for is the plain shared graph, called plainly, bit for bit."""
    case = TESTED[name].examples[0]
    x, model = case.input(torch.float32, False), Net(case)
    lowered = lower(model, plan_for(model, (x,), name, most=0), (x,))
    shared = share_kernels(model, (x,))
    call_plainly(shared)
    assert lowered.code == shared.code
    assert torch.equal(lowered(x), model(x))
    kernel = TESTED[name].examples[0].kernel(torch.float32, False)
    assert lowered.get_parameter("weight").numel() == kernel.numel()


@pytest.mark.parametrize("name", WAYS)
def test_a_weight_of_two_sites(name: str) -> None:
    """Law 5: a module called twice is lowered at both calls, by one module, or at one, and shared at the
    other."""
    case = TESTED[name].examples[0]
    x, model = case.input(torch.float32, False), Twice(Net(case))
    plan = plan_for(model, (x,), name)
    both = lower(model, plan, (x,))
    assert called_modules(both) == calls(plan)
    assert len({node.target for node in both.graph.nodes if node.op == "call_module"}) == 1
    results = [both(x)]
    if case.siblings == 1:  # of siblings, all or none: see test_siblings_of_which_one_is_left
        plan = plan_for(model, (x,), name, most=1)
        one = lower(model, plan, (x,))
        assert called_modules(one) == calls(plan)
        assert one.get_parameter("net.weight").numel() == case.kernel(torch.float32, False).numel()
        results.append(one(x))
        assert torch.equal(results[1][1], model(x)[1])
    for result in results:
        for found, scale in zip(result, (1, 2), strict=True):
            assert close(case, found, scale * x)


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"grouped"}))
def test_a_weight_with_another_use(name: str) -> None:
    """Law 5: a weight tied to something that is no convolution stays whole and its site as it is; a kernel
    that is repeated for the site alone does not stop the lowering."""
    case = replace(TESTED[name].examples[0], bias=None)
    x = case.input(torch.float32, False)
    whole = Regularised(case, repeats=False)
    assert lowerable_sites(capture(whole, (x,)).graph_module) == ([], {})
    kept = lower(whole, "static", (x,))
    assert called_modules(kept) == []
    assert all(torch.equal(a, b) for a, b in zip(kept(x), whole(x), strict=True))
    model = Regularised(case, repeats=True)
    lowered = lower(model, plan_for(model, (x,), name), (x,))
    assert called_modules(lowered) == [name]
    found, squares = lowered(x)
    assert close(case, found, x)
    assert torch.equal(squares, model(x)[1])


@pytest.mark.parametrize("name", [name for name, tested in TESTED.items() if tested.beyond])
def test_outputs_of_padding_alone(name: str) -> None:
    """A Slice behind may keep only what lies beyond the input: zeros, and the bias."""
    case = TESTED[name].beyond
    assert case is not None
    x, model = case.input(torch.float32, False), Net(case)
    plan = plan_for(model, (x,), name)
    lowered = lower(model, plan, (x,))
    assert called_modules(lowered) == calls(plan)
    assert close(case, lowered(x), x)
