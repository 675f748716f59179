"""Where the file will run: the runtime, its provider, and the number of threads.

Tuning and measuring open their files through a target. Adding a runtime is adding an entry to ``RUNTIMES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from export.runtime.in_onnxruntime import in_onnxruntime, installed_providers, onnxruntime_version
from export.runtime.in_openvino import in_openvino, installed_devices, openvino_version
from export.runtime.session import CPU, Array
from fx_passes.errors import UsageError

_SUFFIX = "ExecutionProvider"


class Opened(Protocol):
    """A file that a runtime has opened. Inputs are arrays in the order of the inputs of the file."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """All outputs.

        Raises:
            ExportError: the runtime could not run the model on these inputs.
        """

    def prepared(self, inputs: Sequence[Array]) -> Callable[[], Any]:
        """A function that runs once on ``inputs``, to be timed."""


class Opener(Protocol):
    """Opens a file anew."""

    def __call__(
        self, file: Path | bytes, *, provider: str, threads: int, folder: Path | None = None
    ) -> Opened: ...


@dataclass(frozen=True)
class Runtime:
    """What a target needs of a runtime.

    Args:
        version: gives its version.
        providers: gives the installed providers. It raises UsageError if the package is not installed.
        provider: the one that is taken if none is named.
        open: opens a file.
    """

    version: Callable[[], str]
    providers: Callable[[], Sequence[str]]
    provider: str
    open: Opener


RUNTIMES = {
    "onnxruntime": Runtime(onnxruntime_version, installed_providers, CPU, in_onnxruntime),
    "openvino": Runtime(openvino_version, installed_devices, "CPU", in_openvino),
}


@dataclass(frozen=True)
class Target:
    """Where a file runs.

    Args:
        runtime: a name in ``RUNTIMES``.
        provider: the provider or device, as the runtime names it.
        threads: threads within an operator; 0: as many as the runtime takes by itself.

    Example:
        >>> str(Target()), str(Target("openvino", "CPU", threads=4))
        ('onnxruntime', 'openvino')
    """

    runtime: str = "onnxruntime"
    provider: str = CPU
    threads: int = 1

    def __str__(self) -> str:
        usual = self.provider == RUNTIMES[self.runtime].provider
        return self.runtime if usual else f"{self.runtime}:{self.provider.removesuffix(_SUFFIX)}"

    @property
    def is_usual(self) -> bool:
        """Whether it is onnxruntime on the CPU, where every file is verified in any case."""
        return (self.runtime, self.provider) == ("onnxruntime", CPU)

    def open(self, file: Path | bytes, folder: Path | None = None) -> Opened:
        """Open a file, or the bytes of a model whose external data is in ``folder``.

        Raises:
            ExportError: the runtime does not accept it.
        """
        open_file = RUNTIMES[self.runtime].open
        return open_file(file, provider=self.provider, threads=self.threads, folder=folder)

    def opened(self, file: Path | bytes, inputs: Sequence[Array]) -> Callable[[], Any]:
        """A function that runs a file once, opened anew, to be timed."""
        return self.open(file).prepared(inputs)

    def to_json(self) -> dict[str, Any]:
        """What names the target in the JSON contract."""
        version = RUNTIMES[self.runtime].version()
        return {"target": str(self), "provider": self.provider, "runtime_version": version}


# Where every file is verified, and what is tuned for if the caller does not say.
USUAL = Target()


def parse_target(text: str, threads: int = 1) -> Target:
    """The target that ``text`` names: ``onnxruntime``, ``onnxruntime:CUDA`` or ``openvino``.

    A provider has its full name or that without ``ExecutionProvider``; upper and lower case are the same.

    Raises:
        UsageError: there is no such runtime, or it or the provider is not installed.

    Example:
        >>> parse_target("onnxruntime:cpu") == Target()
        True
    """
    name, _, wanted = text.partition(":")
    runtime = RUNTIMES.get(name.lower())
    if runtime is None:
        raise UsageError(f"--target {text}: there is no runtime {name!r}; known are {', '.join(RUNTIMES)}")
    installed = runtime.providers()
    if ":" not in text:
        return Target(name.lower(), runtime.provider, threads)
    short = wanted.lower().removesuffix(_SUFFIX.lower())
    for provider in installed:
        if provider.removesuffix(_SUFFIX).lower() == short:
            return Target(name.lower(), provider, threads)
    there = ", ".join(provider.removesuffix(_SUFFIX) for provider in installed)
    raise UsageError(f"--target {text}: this {name.lower()} has no provider {wanted!r}; it has {there}")


def targets_of(text: str, threads: int | Sequence[int]) -> tuple[Target, ...]:
    """The target that ``text`` names, with each number of threads once.

    Raises:
        UsageError: as for ``parse_target``; or there is no number of threads, or one below 1.

    Example:
        >>> [target.threads for target in targets_of("onnxruntime", (1, 4, 1))]
        [1, 4]
    """
    numbers = [threads] if isinstance(threads, int) else list(threads)
    if not numbers or any(not isinstance(number, int) or number < 1 for number in numbers):
        raise UsageError(f"--threads: give one or more whole numbers from 1 on, got {threads!r}")
    return tuple(parse_target(text, number) for number in dict.fromkeys(numbers))
