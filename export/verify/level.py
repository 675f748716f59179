"""Where both files run when they are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.runtime.session import Array, open_session, run
from export.runtime.target import Target
from export.verify.cases import Case
from fx_passes.errors import ExportError


@dataclass(frozen=True)
class Level:
    """onnxruntime on the CPU, with its optimization or without; or another target.

    Args:
        optimized: whether the session of onnxruntime optimizes.
        target: the other target, which optimizes as it does by default.
    """

    optimized: bool = True
    target: Target | None = None

    def run(self, model: bytes, folder: Path, inputs: Sequence[Array]) -> list[Array]:
        """The outputs of a model whose external data is in ``folder``.

        Raises:
            ExportError: it does not run.
        """
        if self.target is not None:
            return self.target.open(model, folder).run(inputs)
        return run(open_session(model, optimized=self.optimized, folder=folder), inputs)

    def __str__(self) -> str:
        if self.target is not None:
            return f"in {self.target}"
        return "default optimization" if self.optimized else "optimization off"


def run_cases(
    run_once: Callable[[Sequence[Array]], list[Array]], cases: Iterable[Case]
) -> dict[str, list[Array] | ExportError]:
    """By case, the outputs of a file that is open, or the error if it does not run."""
    found: dict[str, list[Array] | ExportError] = {}
    for case in cases:
        try:
            found[case.name] = run_once(case.inputs)
        except ExportError as error:
            found[case.name] = error
    return found
