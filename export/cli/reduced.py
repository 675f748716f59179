"""``reduce`` of the command line: tries pieces of a model, each in a process of its own."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.cli.attempt import Outcome, attempt
from export.cli.steps import WHOLE
from export.read_onnx.model import OnnxModel, read_model
from export.read_onnx.sites import analyse
from export.reduce.pieces import Pieces
from export.reduce.smallest import smallest
from export.reduce.values import Values, load_values
from export.stages import Progress
from export.tune.plan_file import write_plan
from export.write_onnx.file import move_model
from fx_passes.errors import CaptureError, ExportError, UsageError
from fx_passes.plan import Choice, Plan

# Tuned choices may be others in each try.
_ALIKE = "use --plan or --lowering static"


@dataclass(frozen=True)
class Asked:
    """What the caller asked for.

    Args:
        model, inputs, dynamic: as for ``optimize``.
        decide: the options of ``optimize`` that decide whether it fails.
        plan: earlier decisions.
        limit: seconds for one try.
    """

    model: str
    inputs: Sequence[str]
    dynamic: Sequence[str]
    decide: Sequence[str]
    plan: Plan | None
    limit: float

    @property
    def is_file(self) -> bool:
        return self.model.endswith(".onnx")

    @property
    def source(self) -> str | None:
        """MODEL, if it names Python code."""
        return None if self.model.endswith((".onnx", ".pt2")) else self.model


@dataclass(frozen=True)
class Reduced:
    """The smallest piece.

    Args:
        said: how it fails.
        operators: of its nodes.
        of: how many nodes the model has.
        command: what shows the failure.
        needs: the Python code without which it does not fail, if that is so.
        unknown: what of the original is not known, so that it was not cut everywhere.
        written: the files.
    """

    said: str
    operators: tuple[str, ...]
    of: int
    command: str
    needs: str | None
    unknown: str | None
    written: tuple[Path, ...]


def plan_beside(output: Path) -> Path:
    """Where the plan of the smallest piece is written, if a plan decides."""
    return output.with_suffix(".plan.json")


def reduced(
    asked: Asked, plan_file: Path | None, output: Path, folder: Path, show: Progress
) -> Reduced | None:
    """Write the smallest piece that fails as the whole model does. None: the model does not fail.

    Args:
        folder: for unfinished files, on the file system of ``output``.

    Raises:
        CaptureError: it fails before there is a graph.
        ExportError: it does not end within the limit, fails only as a whole, or not each time.
        UsageError: optimize says that it is used in a wrong way.
    """
    show("running optimize")
    given = [*_each("--input", asked.inputs), *_each("--dynamic", asked.dynamic), *asked.decide]
    given += ["--plan", str(plan_file)] if plan_file else []
    out = folder / "out.onnx"
    whole = attempt(["optimize", asked.model, "-o", out, *given], first=None, limit=asked.limit)
    if whole.passed:
        return None
    if whole.code == UsageError.exit_code:
        raise UsageError(whole.said)
    if whole.too_long:
        raise ExportError(f"{asked.model}: {whole.said}: give more seconds with --limit")
    file = _graph(asked, whole, folder, show)
    values, unknown = _values(asked, file, folder, show)
    ways = [Pieces(file, values, fixed=True), Pieces(file, values, fixed=False)]
    return _Tries(asked, whole, ways, folder, show).reduce(output, unknown)


def _graph(asked: Asked, whole: Outcome, folder: Path, show: Progress) -> OnnxModel:
    """The file that is to be cut: the one that is given, or the plain export."""
    if asked.is_file:
        return read_model(Path(asked.model))
    show("exporting the original")
    options = [*_each("--input", asked.inputs), *_each("--dynamic", asked.dynamic)]
    export = attempt(["export", asked.model, folder, *options], first=None, limit=asked.limit)
    if not (folder / WHOLE).exists():
        said = whole.said if export.kind == whole.kind else f"{whole.said}; its export: {export.said}"
        raise CaptureError(f"optimize fails before there is a graph that can be cut: {said}")
    return read_model(folder / WHOLE)


def _values(asked: Asked, file: OnnxModel, folder: Path, show: Progress) -> tuple[Values, str | None]:
    """The values of a file for the example; or none, and why."""
    show("running the original")
    values = folder / "values.npz"
    options = _each("--input", asked.inputs) if asked.is_file else []
    words = ["record", file.path, folder, values, *options]
    outcome = attempt(words, first=asked.source, limit=asked.limit)
    if outcome.passed:
        return load_values(values), None
    return Values(), f"the values of the original could not be recorded: {outcome.said}"


class _Tries:
    """Tries pieces until none is smaller."""

    def __init__(
        self, asked: Asked, whole: Outcome, ways: Sequence[Pieces], folder: Path, show: Progress
    ) -> None:
        self.asked, self.whole, self.ways, self.pieces = asked, whole, ways, ways[0]
        self.folder, self.show = folder / "piece", show
        self.folder.mkdir()

    def reduce(self, output: Path, unknown: str | None) -> Reduced:
        nodes = self.pieces.nodes
        fitting = (way for way in self.ways if self._with(way).fails(nodes))
        if next(fitting, None) is None:
            said = "but its graph alone does not, on inputs made for the purpose: no piece can be cut"
            raise self._error(said, unknown)
        kept, path = smallest(nodes, self.fails), self.folder / output.name
        options = self.write(kept, path)
        outcome = self.run(path, options)
        if outcome.kind != self.whole.kind:
            raise self._error("but its smallest piece does not fail each time", _ALIKE)
        source = self.asked.source
        alone = source is None or self.run(path, options, bare=True).kind == outcome.kind
        written = self._put(path, output)
        # Not the name of the piece itself, whatever that is.
        words = ["fx-passes", "optimize", str(output), "-o", f"{output.stem}.out.onnx", *options]
        words += [*self.asked.decide, *_each("--plan", map(str, written[1:]))]
        graph = self.pieces.model.graph
        operators = tuple(graph.node[i].op_type for i in kept)
        said, needs = outcome.said, None if alone else source
        return Reduced(said, operators, len(nodes), shlex.join(words), needs, unknown, written)

    def _put(self, path: Path, output: Path) -> tuple[Path, ...]:
        """Put the piece in its place, and then its plan. The files."""
        plan, data = self._plan(path) if self.asked.plan else None, f"{path.name}.data"
        move_model(path, output, [data] if (path.parent / data).exists() else [])
        if plan is None:
            return (output,)
        write_plan(plan, plan_beside(output))
        return output, plan_beside(output)

    def _error(self, *said: str | None) -> ExportError:
        return ExportError(f"optimize fails ({self.whole.said}), {'; '.join(filter(None, said))}")

    def _with(self, way: Pieces) -> _Tries:
        self.pieces = way
        return self

    def fails(self, nodes: Sequence[int]) -> bool:
        """Whether the piece with these nodes fails as the whole does."""
        self.show(f"trying {len(nodes)} of {len(self.pieces.nodes)} nodes")
        path = self.folder / "trial.onnx"
        try:
            options = self.write(nodes, path)
        except ExportError:
            return False
        return self.run(path, options).kind == self.whole.kind

    def write(self, nodes: Sequence[int], path: Path) -> list[str]:
        """Write a piece, and return the options that give its inputs."""
        shapes = self.pieces.write(nodes, path)
        if self.pieces.fixed:
            return []
        types = self.pieces.values.types
        # A scalar has no sizes to give: optimize makes one.
        named = [(name, shape) for name, shape in shapes.items() if shape]
        sizes = [(name, "x".join(map(str, shape)), types[name]) for name, shape in named]
        return _each("--input", [f"{name}={size}:{dtype}" for name, size, dtype in sizes])

    def run(self, path: Path, options: Sequence[str], *, bare: bool = False) -> Outcome:
        """Run optimize on a piece; ``bare``: without importing the Python code of the model."""
        # Not beside the pieces: one may have such a name.
        out, plan = self.folder.parent / "out.onnx", self.folder.parent / "plan.json"
        words: list[object] = ["optimize", path, "-o", out, *options, *self.asked.decide]
        if self.asked.plan is not None:
            write_plan(self._plan(path), plan)
            words += ["--plan", plan]
        return attempt(words, first=None if bare else self.asked.source, limit=self.asked.limit)

    def _plan(self, path: Path) -> Plan:
        """What the plan says of the sites that are in a piece."""
        assert self.asked.plan is not None
        sites, _ = analyse(read_model(path)).sites()
        choices = self.asked.plan.choices
        fits = {s.id: choices[s.id] for s in sites if s.id in choices and choices[s.id].key == s.key}
        return Plan({site.id: fits.get(site.id, Choice(site.key, None)) for site in sites})


def _each(option: str, texts: Iterable[str]) -> list[str]:
    return [word for text in texts for word in (option, text)]
