"""What users rely on is what it was: public names, command line, JSON, plans, written files.

``tests/golden`` was written by ``python tests/test_golden.py``. A change of it is a change of the contract,
or of what torch's exporter writes: it is made on purpose, and CHANGELOG says so.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner

import export
import fx_passes
from export.cli import main

HERE = Path(__file__).parent
MODEL = f"{HERE / 'support' / 'golden_model.py'}:golden"
PLAN = HERE / "golden" / "plan.json"


def names() -> dict[str, Any]:
    """Public names of both packages; commands with their options."""
    return {
        "fx_passes": sorted(fx_passes.__all__),
        "export": sorted(export.__all__),
        "commands": {
            name: sorted(option for parameter in command.params for option in parameter.opts)
            for name, command in sorted(main.commands.items())
        },
    }


def find() -> Any:
    """What ``find --json`` says."""
    return _without_paths(json.loads(_run("find", MODEL, "--json", "-")))


def optimize(lowering: str, folder: Path) -> Any:
    """What ``optimize --json`` says but for times, and the nodes and numbers of the file."""
    file = folder / f"{lowering}.onnx"
    arguments = ["--lowering", lowering, "--seconds", "0", "--json", "-"]
    said = json.loads(_run("optimize", MODEL, "-o", str(file), *arguments))
    said["keys"] = sorted(said)
    for changing in ("seconds", "environment", "size", "speed"):
        said.pop(changing, None)
    # Errors are those of a processor.
    said["equivalence"]["outputs"] = [sorted(output) for output in said["equivalence"]["outputs"]]
    return {"json": _without_paths(said), "file": described(file)}


def described(file: Path) -> list[str]:
    """Inputs, outputs, nodes, initializers by shape and digest; no names that an exporter makes up."""
    graph = onnx.load(file).graph
    ends = [
        (v.name, [d.dim_value for d in v.type.tensor_type.shape.dim]) for v in [*graph.input, *graph.output]
    ]
    slots = [f"{name} {shape}" for name, shape in ends]
    nodes = [f"{node.op_type} {sorted(a.name for a in node.attribute)}" for node in graph.node]
    stored = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        stored.append(
            f"{list(values.shape)} {values.dtype} {hashlib.sha256(values.tobytes()).hexdigest()[:12]}"
        )
    return [*slots, *nodes, *sorted(stored)]


def plan_of_rules(folder: Path) -> Any:
    """The plan that ``static`` saves, without the machine it was made on."""
    saved = folder / "plan.json"
    arguments = ["--lowering", "static", "--seconds", "0", "--save-plan", str(saved)]
    _run("optimize", MODEL, "-o", str(folder / "p.onnx"), *arguments)
    plan = json.loads(saved.read_text())
    plan["made"] = {"by": plan["made"].get("by")}
    return plan


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def _without_paths(data: Any) -> Any:
    for key in ("model", "output"):
        if key in data:
            data[key] = Path(data[key]).name
    return data


def made(kind: str, folder: Path) -> Any:
    """One golden file, anew."""
    if kind in ("static", "expand"):
        return optimize(kind, folder)
    return {"names": names, "find": find}[kind]() if kind != "plan" else plan_of_rules(folder)


KINDS = ("names", "find", "static", "expand", "plan")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_as_it_was(kind: str, tmp_path: Path) -> None:
    """Nothing that users rely on has changed."""
    assert made(kind, tmp_path) == json.loads((HERE / "golden" / f"{kind}.json").read_text())


@pytest.mark.slow
def test_an_old_plan_gives_the_same_file(tmp_path: Path) -> None:
    """A plan that was saved by an earlier version still fits, and makes what the rules made."""
    file = tmp_path / "o.onnx"
    _run("optimize", MODEL, "-o", str(file), "--plan", str(PLAN), "--seconds", "0")
    assert described(file) == json.loads((HERE / "golden" / "static.json").read_text())["file"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["find", "nothing.py:at_all"], 3),
        (["find"], 2),
        (["optimize", MODEL, "-o", "{out}", "--lowering", "other"], 2),
        (["optimize", MODEL, "-o", "{out}", "--plan", str(HERE / "golden" / "find.json")], 2),
        (["optimize", "torch.nn:ReLU", "--input", "1x3x8", "-o", "{out}", "--seconds", "0", "--strict"], 4),
    ],
)
def test_exit_codes(arguments: list[str], code: int, tmp_path: Path) -> None:
    """Those of the contract."""
    result = CliRunner().invoke(main, [a.format(out=tmp_path / "o.onnx") for a in arguments])
    assert result.exit_code == code, result.output


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for wanted in sys.argv[1:] or KINDS:
            text = json.dumps(made(wanted, Path(name)), indent=1, sort_keys=True) + "\n"
            (HERE / "golden" / f"{wanted}.json").write_text(text)
