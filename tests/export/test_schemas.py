"""The JSON Schemas fit what the commands write, in many states, and refuse what is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run, write_models
from jsonschema import Draft202012Validator

import export
from export.schemas import schemas
from fx_passes.errors import UsageError

NAMES = ("check", "explain", "find", "optimize", "plan")
QUICK = ("--lowering", "static", "--seconds", 0)
# Of optimize: the model, and the options.
STATES: dict[str, tuple[str, tuple[object, ...]]] = {
    "rewritten": ("blurs", QUICK),
    "expand": ("shared", ("--lowering", "expand", "--seconds", 0)),
    "nothing shared": ("unshared", QUICK),
    "one block": ("blurs", ("--lowering", "static", "--seconds", 0.01)),
    "measured": ("blurs", ("--lowering", "static", "--seconds", 1, "--threads", "1,2")),
    "open sizes": ("blurs", ("--lowering", "static", "--seconds", 0.1, "--dynamic", "batch")),
    "tuned": ("blurs", ("--budget", 1, "--seconds", 0)),
    "tuned with threads": ("blurs", ("--budget", 1, "--seconds", 0, "--threads", "1,2")),
}


def require_valid(name: str, data: Any) -> None:
    """Fail with the place of what does not fit."""
    found = [
        f"{e.json_path}: {e.message}" for e in Draft202012Validator(export.schema(name)).iter_errors(data)
    ]
    assert found == []


def is_valid(name: str, data: Any) -> bool:
    return Draft202012Validator(export.schema(name)).is_valid(data)


def said(*arguments: object, code: int = 0) -> Any:
    result = run(*arguments, "--json", "-")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_which_schemas_there_are() -> None:
    """Each is a schema of the draft that it names. One that does not exist is named, with those that do."""
    assert set(NAMES) <= set(schemas())
    for name in schemas():
        made = export.schema(name)
        Draft202012Validator.check_schema(made)
        assert made["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
        assert made["properties"]["schema"] == {"const": f"fx-passes/{name}/1"}
    with pytest.raises(UsageError, match=r"there is no schema '\.\./find'; there are check, "):
        export.schema("../find")


def test_one_thing_has_one_schema() -> None:
    """Each file stands for itself, so a site is described in several. These are equal."""
    known: dict[str, Any] = {}
    for name in schemas():
        for part, made in export.schema(name)["$defs"].items():
            assert known.setdefault(part, made) == made, (name, part)


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_optimize_and_its_plan(state: str, source: Path, tmp_path: Path) -> None:
    """In many states; and so is the plan that it saves."""
    model, options = STATES[state]
    plan = tmp_path / "plan.json"
    data = said("optimize", f"{source}:{model}", "-o", tmp_path / "o.onnx", "--save-plan", plan, *options)
    require_valid("optimize", data)
    require_valid("plan", json.loads(plan.read_text()))
    assert (data["speed"] is None) == (
        "--seconds" in options and options[options.index("--seconds") + 1] == 0
    )


@pytest.mark.slow
def test_an_onnx_file(source: Path, tmp_path: Path) -> None:
    """Of an ONNX file: found, rewritten, copied; and both files compared."""
    given, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    said("optimize", f"{source}:unshared", "-o", given, *QUICK)
    require_valid("find", said("find", given))
    require_valid("optimize", said("optimize", given, "-o", out, *QUICK))
    said("optimize", f"{source}:shared", "-o", tmp_path / "other.onnx", *QUICK)
    require_valid("optimize", said("optimize", tmp_path / "other.onnx", "-o", out, *QUICK))
    require_valid("check", said("check", given, given))
    require_valid("check", said("check", given, tmp_path / "other.onnx", code=1))


@pytest.mark.parametrize("model", ["shared", "unshared", "no_inputs", "measured"])
def test_find(model: str, source: Path) -> None:
    """Shared and refused, and by either route."""
    require_valid("find", said("find", f"{source}:{model}"))


@pytest.mark.parametrize("model", ["shared", "unshared"])
def test_explain(model: str, source: Path) -> None:
    """Of a site that can be lowered, and of one that is refused."""
    data = said("explain", f"{source}:{model}", "0/conv2d")
    require_valid("explain", data)
    assert bool(data["lowerings"]) == (model == "shared")
    del data["static"]
    assert not is_valid("explain", data)


def test_a_plan_that_an_older_version_saved() -> None:
    """It is still a plan."""
    require_valid("plan", json.loads((Path(__file__).parents[1] / "golden" / "plan.json").read_text()))


def without(key: str) -> Callable[[Any], object]:
    """A site lacks a field."""
    return lambda data: data["sites"][0].pop(key)


OF_SITE = "id op groups weight_shape kernel_shape origin shared reason".split()
FAULTS: dict[str, Callable[[Any], object]] = {
    "another schema": lambda data: data.update(schema="fx-passes/find/2"),
    "no model": lambda data: data.pop("model"),
    "a number as the model": lambda data: data.update(model=1),
    "no list of sites": lambda data: data.update(sites={}),
    "another operator": lambda data: data["sites"][0].update(op="matmul"),
    "another origin": lambda data: data["sites"][0].update(origin="somewhere"),
    "a text as a size": lambda data: data["sites"][0].update(weight_shape=["4"]),
    "a negative size": lambda data: data["sites"][0].update(kernel_shape=[-1]),
    "a word for shared": lambda data: data["sites"][0].update(shared="yes"),
    "refused without a reason": lambda data: data["sites"][0].update(shared=False, reason=None, code="x"),
    "refused without a code": lambda data: data["sites"][0].update(shared=False, reason="x", code=None),
    **{f"no {key}": without(key) for key in OF_SITE},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return said("find", f"{write_models(tmp_path_factory.mktemp('models'))}:shared")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, found: Any) -> None:
    """Negative control: each field of the contract with another value, or missing."""
    data = copy.deepcopy(found)
    FAULTS[fault](data)
    assert is_valid("find", found)
    assert not is_valid("find", data)


def test_added_fields_are_allowed(found: Any) -> None:
    """At the top and in a site."""
    data = copy.deepcopy(found)
    data["new"] = data["sites"][0]["new"] = 1
    require_valid("find", data)


OF_OPTIMIZE: dict[str, Callable[[Any], object]] = {
    "no candidates": lambda data: data["sites"][0].pop("candidates"),
    "no lowering": lambda data: data["sites"][0].pop("lowering"),
    "a candidate without a name": lambda data: data["sites"][0]["candidates"].append({"ms": 1.0}),
    "another exactness": lambda data: data["sites"][0].update(exactness="roughly"),
    "no verdict": lambda data: data["equivalence"].pop("passed"),
    "a verdict in words": lambda data: data["equivalence"].update(passed="yes"),
    "no bound": lambda data: data["equivalence"]["outputs"][0].pop("bound"),
    "no interval": lambda data: data["speed"].pop("ci95"),
    "half an interval": lambda data: data["speed"].update(ci95=[1.0]),
    "no control": lambda data: data["speed"].pop("control"),
    "no threads": lambda data: data["speed"].pop("threads"),
    "no sizes": lambda data: data["speed"].update(sizes=[]),
    "a size without inputs": lambda data: data["speed"]["sizes"][0].pop("inputs"),
    "no bytes": lambda data: data["size"].pop("optimized_bytes"),
    "no machine": lambda data: data["environment"].pop("cpu"),
    "a negative time": lambda data: data["seconds"].update(more=-1),
    "no speed": lambda data: data.pop("speed"),
}


@pytest.mark.slow
def test_faults_in_what_optimize_says(source: Path, tmp_path: Path) -> None:
    """Negative control, for optimize and for plans."""
    plan = tmp_path / "plan.json"
    options = ("-o", tmp_path / "o.onnx", "--save-plan", plan, "--lowering", "static", "--seconds", 0.1)
    data = said("optimize", f"{source}:blurs", *options)
    require_valid("optimize", data)
    for name, fault in OF_OPTIMIZE.items():
        faulty = copy.deepcopy(data)
        fault(faulty)
        assert not is_valid("optimize", faulty), name
    for key in ("key", "lowering", "params", "exactness"):
        faulty = json.loads(plan.read_text())
        del next(iter(faulty["sites"].values()))[key]
        assert not is_valid("plan", faulty), key
