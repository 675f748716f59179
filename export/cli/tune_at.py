"""``--tune-at`` of the command line -> the sizes of inputs."""

from __future__ import annotations

from export.loading import parse_sizes
from export.tune.tune_at import Wanted
from fx_passes.errors import UsageError


def parse_tune_at(text: str) -> Wanted:
    """The sizes in ``text``: of all inputs in their order, or of some by name.

    A dtype, as in ``--input``, may be there. It changes nothing: inputs have the dtype of the example.

    Raises:
        UsageError: ``text`` has another form.

    Example:
        >>> parse_tune_at("1x3x480x640,1x2"), parse_tune_at("x=1x3x480x640")
        ([[1, 3, 480, 640], [1, 2]], {'x': [1, 3, 480, 640]})
    """
    parts = [part.rpartition("=") for part in text.split(",")]
    sizes = [parse_sizes(part[2], "--tune-at")[0] for part in parts]
    names = [name for name, equals, _ in parts if equals]
    if not names:
        return sizes
    if len(set(names)) < len(parts):
        raise UsageError(f"--tune-at {text}: give all inputs in their order, or each once by name")
    return dict(zip(names, sizes, strict=True))
