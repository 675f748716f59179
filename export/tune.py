"""Which lowering is fastest here: each distinct site by itself first, then the graph as a whole.

Alone, the candidates of a site take turns, and those that are clearly slower drop out. In the graph, a
lowering that won alone can lose, where it breaks a chain of convolutions that onnxruntime keeps in blocks of
channels: so the graph with all winners is timed in turn with the graphs that lack one of them each, and what
the graph is not faster with goes. What is left has to beat the original file by more than the noise, or
nothing is lowered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch.fx import GraphModule

from export.candidates import Candidates, in_shape, make_candidates
from export.measure import bootstrap_ci
from export.session import Array, open_session, run
from export.splice import model_of
from export.trial import Trial
from fx_passes.choose import preferred, static_choice
from fx_passes.lowerable import Site
from fx_passes.plan import Choice, Plan
from fx_passes.records import Exactness, Proposal

# A lowering has to be this much faster than the original, alone and in the graph, to be worth its nodes.
GAIN = 1.03
# Among candidates this close to the fastest, the first in order of preference is taken: the same each time.
# Times of one candidate differ by as much between two runs of a noisy machine.
CLOSE = 1.08
_ROUNDS = (4, 12, 40)
_DROP = (1.6, 1.25)
_SAMPLE_MS = 0.3
# Graphs that differ in one group of sites each; more would take too long and too much memory.
_GROUPS = 15

Progress = Callable[[str], None]


@dataclass
class Timings:
    """Milliseconds of each candidate by key of the site: what has been timed need not be timed again.

    Args:
        save: called after each site that was timed.
    """

    known: dict[str, dict[str, float]] = field(default_factory=dict)
    save: Callable[[Timings], None] = lambda timings: None


def tune(
    graph_module: GraphModule,
    sites: Sequence[Site],
    baseline: Path,
    trial_of: Callable[[Plan], Trial],
    inputs: Sequence[Array],
    *,
    exactness: Exactness,
    threads: int,
    budget: float,
    timings: Timings,
    progress: Progress,
) -> Plan:
    """The plan that is measurably fastest in onnxruntime on this machine.

    Args:
        graph_module: the captured graph, nothing lowered.
        baseline: the stock export of the model.
        trial_of: the graph with a plan carried out, as something that can be varied and timed.
        inputs: arrays in the order of the inputs of ``baseline``.
        budget: seconds of timing, exports not counted; each site is timed a few times even beyond it.
        timings: what is known from a run before; completed here.
    """
    left = 0.5 * budget  # the other half is for the graph; what exports take is not timing
    progress("exporting the candidates")
    candidates, library = make_candidates(graph_module, sites, exactness)
    for number, candidate in enumerate(candidates, 1):
        if not set(candidate.names) <= timings.known.get(candidate.site.key, {}).keys():
            progress(f"timing {candidate.site.id} ({number} of {len(candidates)} distinct sites)")
            assert library is not None
            start, share = time.perf_counter(), left / (len(candidates) - number + 1)
            timings.known[candidate.site.key] = _time_alone(candidate, library, threads, share)
            left -= time.perf_counter() - start
            timings.save(timings)
    winners = {c.site.key: _winner(c, timings.known[c.site.key]) for c in candidates}
    for site in sites:
        if not site.resample.static:
            winners[site.key] = static_choice(site, exactness)
    chosen = {key: proposal for key, proposal in winners.items() if proposal is not None}
    made: dict[str, Any] = {"by": "tuning", "timings_ms": timings.known}
    if chosen:
        chosen, made["graph"] = _in_graph(
            sites, chosen, baseline, trial_of, inputs, threads, 0.5 * budget, progress
        )
    return Plan({s.id: Choice(s.key, chosen.get(s.key)) for s in sites}, made)


def _time_alone(candidates: Candidates, library: ir.Model, threads: int, seconds: float) -> dict[str, float]:
    """Milliseconds of each candidate, timed in turns; those that are clearly slower drop out early."""
    rng = np.random.default_rng(0)
    sessions: dict[str, ort.InferenceSession] = {}
    for offset, name in enumerate(candidates.names):
        model = ir.to_proto(model_of(library, candidates.first + offset)).SerializeToString()
        sessions[name] = open_session(model, threads=threads)
    dtype = torch.zeros((), dtype=candidates.site.kernel.dtype).numpy().dtype
    x = [rng.standard_normal(in_shape(candidates.site)).astype(dtype)]
    times: dict[str, list[float]] = {name: [] for name in sessions}
    end, alive = time.perf_counter() + seconds, list(sessions)
    repeats = {name: max(1, round(_SAMPLE_MS / max(_timed(s, x, 2), 1e-3))) for name, s in sessions.items()}
    for number in range(_ROUNDS[-1]):
        if number >= _ROUNDS[0] and time.perf_counter() > end:
            break
        for name in alive if number % 2 else reversed(alive):
            times[name].append(_timed(sessions[name], x, repeats[name]))
        if number + 1 in _ROUNDS:
            best = min(_typical(times[name]) for name in alive)
            limit = _DROP[min(_ROUNDS.index(number + 1), len(_DROP) - 1)] * best
            alive = [name for name in alive if name == "expand" or _typical(times[name]) <= limit]
    return {name: _typical(times[name]) for name in sessions}


def _typical(times: Sequence[float]) -> float:
    """The lower quartile: what else a machine does makes times longer, never shorter."""
    return float(np.quantile(times, 0.25))


def _timed(session: ort.InferenceSession, inputs: Sequence[Array], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run(session, inputs)
    return (time.perf_counter() - start) * 1e3 / repeats


def _winner(candidates: Candidates, times: Mapping[str, float]) -> Proposal | None:
    """The fastest proposal, or one as good that the static rules prefer; None where the original is."""
    known = [p for p in candidates.proposals if p.name in times]
    if not known:
        return None
    best = min(times[p.name] for p in known)
    if best * GAIN > times["expand"]:
        return None
    close = [p for p in known if times[p.name] <= best * CLOSE]
    return preferred(candidates.site, close)


def _in_graph(
    sites: Sequence[Site],
    chosen: dict[str, Proposal],
    baseline: Path,
    trial_of: Callable[[Plan], Trial],
    inputs: Sequence[Array],
    threads: int,
    seconds: float,
    progress: Progress,
) -> tuple[dict[str, Proposal], dict[str, Any]]:
    """What of ``chosen`` the whole graph is faster with, and the ratios that say so."""
    trial = trial_of(Plan({s.id: Choice(s.key, chosen.get(s.key)) for s in sites}))
    progress(f"timing the whole graph with {len(chosen)} lowerings")
    variable = [key for key in chosen if key in trial.originals]
    groups = [frozenset([key]) for key in variable[: _GROUPS - 1]]
    if rest := frozenset(variable[_GROUPS - 1 :]):
        groups.append(rest)
    variants: list[frozenset[str]] = [frozenset(), *(groups if len(groups) > 1 else ())]
    sessions = [open_session(baseline, threads=threads)]
    sessions += [open_session(trial.model(without), threads=threads) for without in variants]
    samples = _take_turns(sessions, inputs, seconds * 0.6)
    dropped: set[str] = set()
    ratios: dict[str, float] = {}
    for group, times in zip(variants[1:], samples[2:], strict=True):
        # The time without the group over the time with it: above 1, the graph is faster with it.
        ratio = _ratio(times, samples[1])
        ratios.update(dict.fromkeys(group, ratio[1]))
        if ratio[2] < 1.0:
            dropped |= group
    kept = {key: proposal for key, proposal in chosen.items() if key not in dropped}
    final = sessions[:2]
    if dropped and kept:
        final[1] = open_session(trial.model(frozenset(dropped)), threads=threads)
        samples = _take_turns(final, inputs, seconds * 0.3)
    gain = _ratio(samples[0], samples[1])
    if gain[0] <= 1.0 < gain[1]:  # faster, or only noise: look for as long again
        more = _take_turns(final, inputs, seconds)
        samples = [first + second for first, second in zip(samples[:2], more, strict=True)]
        gain = _ratio(samples[0], samples[1])
    facts = {"without_ms_ratio": ratios, "speedup": gain[1], "ci95": [gain[0], gain[2]]}
    return (kept if gain[0] > 1.0 else {}), facts


def _take_turns(
    sessions: Sequence[ort.InferenceSession], inputs: Sequence[Array], seconds: float
) -> list[list[float]]:
    """Milliseconds of each session, all in turn, forwards and backwards, at least 10 times."""
    for session in sessions:
        run(session, inputs), run(session, inputs)
    samples: list[list[float]] = [[] for _ in sessions]
    end = time.perf_counter() + seconds
    order = list(range(len(sessions)))
    while len(samples[0]) < 10 or (time.perf_counter() < end and len(samples[0]) < 200):
        for index in order:
            samples[index].append(_timed(sessions[index], inputs, 1))
        order.reverse()
    return samples


def _ratio(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Median ratio of paired times with its 95 % interval: (low, middle, high)."""
    low, high = bootstrap_ci(first, second)
    return low, float(np.median(np.asarray(first) / np.asarray(second))), high
