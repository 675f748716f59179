"""A .pt2 file that would run code, or that lies about what it holds, is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from changed_pt2 import save_good
from click.testing import CliRunner
from hostile_pt2 import hostile

from export.cli import main

NAMES = """
evil_inputs old_pickle_inputs evil_old_weights evil_weights evil_constants custom_obj_ opaque_obj_ compiled
evil_size evil_size_inside endless_size evil_guard call_torch_os_system call_torch_serialization_os_system
call_torch_ops_load_library call__operator_call file_operator evil_structure evil_enum evil_keyword
evil_text_input evil_name evil_parameter deep no_weights far_weights many_weights bomb_in_inputs
missing_storage truncated no_zip empty compressed flipped declared older duplicate escaping
""".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all hostile files. Its module ``evil_module`` leaves a trace if it is imported."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "evil_module.py").write_text(f"open({str(folder / 'canary')!r}, 'w')\nx = int\n")
    good = save_good(tmp_path_factory.mktemp("good") / "good.pt2").read_bytes()
    with pytest.warns(UserWarning, match="Duplicate name"):
        files = list(hostile(good, folder / "canary"))
    for file in files:
        (folder / f"{file.name}.pt2").write_bytes(file.content)
    made = {file.name: file.says for file in files}
    assert list(made) == NAMES
    (folder / "says.json").write_text(json.dumps(made))
    return folder


@pytest.mark.parametrize("command", ["find", "optimize"])
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_file_is_refused(
    name: str, command: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is 3. One line names the file and says why.

    No code of the file runs, and nothing is written.
    """
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    output = tmp_path / "out.onnx"
    more = ["-o", str(output), "--seconds", "0"] if command == "optimize" else []
    result = CliRunner().invoke(main, [command, f"{name}.pt2", *more])
    assert result.exit_code == 3, result.output
    lines = [line for line in result.output.splitlines() if not line.startswith("loading ")]
    assert len(lines) == 1
    assert lines[0].startswith("fx-passes: ")
    assert f"{name}.pt2" in lines[0]
    assert any(said in lines[0] for said in json.loads(Path("says.json").read_text())[name].split("|")), lines
    assert not Path("canary").exists()
    assert not output.exists()
    assert "evil_module" not in sys.modules
