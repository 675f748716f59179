"""What torch.export keeps in a graph module: its graph, guards, checks and names of inputs."""

from __future__ import annotations

import pytest
import torch
from small_programs import Plus, program
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from fx_passes.graph import torch_internals as internals


def test_put_graph() -> None:
    """The module has the new graph at once. It runs that graph after ``recompile``."""
    graph_module = torch.fx.symbolic_trace(lambda x: x.sin())
    other = torch.fx.symbolic_trace(lambda x: x.cos())
    internals.put_graph(graph_module, other.graph)
    assert graph_module.graph is other.graph
    assert other.graph.owning_module is graph_module
    x = torch.ones(1)
    assert torch.equal(graph_module(x), x.sin())
    graph_module.recompile()
    assert torch.equal(graph_module(x), x.cos())


def open_program() -> ExportedProgram:
    """A program with two open sizes that have to be the same."""
    shapes = ({0: Dim.DYNAMIC}, {0: Dim.DYNAMIC})
    return program(Plus(), torch.rand(3), torch.rand(3), dynamic_shapes=shapes)


def test_guards_fn() -> None:
    """A module of this class is called in front of a graph with guards."""
    module = open_program().module()
    called = [module.get_submodule(n.target) for n in module.graph.nodes if n.op == "call_module"]
    assert [type(inner) for inner in called] == [internals.GuardsFn]


def test_guards_of() -> None:
    """Guards take all inputs. They refuse unequal sizes. A program without open sizes has none."""
    guards, x = internals.guards_of(open_program()), torch.rand(5)
    assert guards is not None
    guards(x, x)
    with pytest.raises(AssertionError, match="Guard failed"):
        guards(x, torch.rand(4))
    assert internals.guards_of(program()) is None


def test_input_check() -> None:
    """It is one of the hooks in front. It refuses other shapes."""
    module = program().module(check_guards=False)
    hooks = internals.forward_pre_hooks(module)
    (key,) = [key for key, hook in hooks.items() if hook is internals.INPUT_CHECK]
    with pytest.raises(RuntimeError, match="shape"):
        module(torch.rand(4), torch.rand(4))
    del hooks[key]
    assert module(torch.rand(4), torch.rand(4)).shape == (4,)


def test_opens_modules() -> None:
    """It is true for one hook in front and one behind, not for the check or the hooks of users."""
    module = program().module(check_guards=False)
    module.register_forward_hook(lambda *args: None)
    front = [internals.opens_modules(hook) for hook in internals.forward_pre_hooks(module).values()]
    behind = [internals.opens_modules(hook) for hook in internals.forward_hooks(module).values()]
    assert (front, behind) == ([True, False], [True, False])
    for hooks in (internals.forward_pre_hooks(module), internals.forward_hooks(module)):
        for key in [key for key, hook in hooks.items() if internals.opens_modules(hook)]:
            del hooks[key]
    assert module(torch.ones(3), torch.ones(3)).tolist() == [2.0] * 3


class Nested(nn.Module):
    """Takes a list of two tensors of shape (n,), and a keyword."""

    def forward(self, many: list[Tensor], *, scale: Tensor) -> Tensor:
        return many[0] * scale + many[1]


def nested() -> GraphModule:
    """The exported graph module of ``Nested``."""
    inputs = ([torch.ones(2), torch.ones(2)],)
    exported = torch.export.export(Nested(), inputs, {"scale": torch.ones(1)})
    return exported.module(check_guards=False)


def test_structure_of_inputs() -> None:
    """It has the structure of the arguments and of the keywords."""
    spec = internals.structure_of_inputs(nested())
    assert spec.child(0) == internals.pytree.tree_structure(([1, 2],))
    assert spec.child(1) == internals.pytree.tree_structure({"scale": 1})


def test_structure_of_calls() -> None:
    """The names are in their order, one for each child of the structure. Symbolic tracing has none."""
    calls = internals.structure_of_calls(nested())
    assert calls.orig_args == ["many", "scale"]
    positional, by_name = calls.in_spec.children()
    assert [child.is_leaf() for child in positional.children()] == [False]
    assert by_name.num_children == 1
    assert calls.out_spec.is_leaf()
    with pytest.raises(AttributeError):
        internals.structure_of_calls(torch.fx.symbolic_trace(nn.ReLU()))
