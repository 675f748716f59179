"""The stages that an optimization will have, and how long each takes, for the bar of the command line."""

from __future__ import annotations

from export.report.forecast import Expected
from export.tune.options import Options

LOADING = Expected("loading", 1)
CAPTURING = Expected("capturing", 1)
FINDING = Expected("finding kernels", 0.5)
EXPORTING = (Expected("exporting the original", 2), Expected("running the original", 0.2))
TIMING = Expected("timing the candidates", 10, limited=True)
CHECKING = Expected("checking", 3)


def expected_stages(options: Options) -> list[Expected]:
    """The stages of ``optimize``, in their order. The options say how long the timing may take."""
    tuning = [
        Expected("exporting the candidates", 3),
        Expected("timing the candidates", options.budget / 2, limited=True),
        Expected("exporting the whole graph", 1),
        Expected("timing the whole graph", options.budget / 2, limited=True),
    ]
    return [
        LOADING,
        *EXPORTING,
        FINDING,
        *(tuning if options.tunes else []),
        Expected("writing the optimized model", 1),
        CHECKING,
        Expected("measuring speed", options.seconds, limited=True),
    ]
