"""``torch.compile(model, backend="fx_passes", options={"tune": True})``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled_blur import Blur, image, require_same
from told_times import only

from fx_passes import compile_backend
from fx_passes.plan import Plan
from fx_passes.tune.stopwatch import Stopwatch
from fx_passes.tune.whole_graph import Trial

pytestmark = pytest.mark.usefixtures("simple_rules", "fresh_compiler")

PHASES = "polyphase(phases=16)"


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Phases are faster at each site, and the graph is believed to be faster, too. The sites timed."""
    found: list[str] = []

    def alone(self: Any, ways: dict[str, Any], inputs: Any, seconds: float) -> dict[str, float]:
        found.append(next(iter(ways)))
        return {name: only(PHASES)(name) for name in ways}

    def together(chosen: Any, trial: Trial[Any], *rest: Any) -> Any:
        return dict(chosen), {}

    monkeypatch.setattr(Stopwatch, "alone", alone)
    # No time passes, so that the budget lasts on any machine.
    monkeypatch.setattr("fx_passes.tune.start.stopwatch_on", lambda device: Stopwatch(lambda: 0.0))
    monkeypatch.setattr("fx_passes.tune.in_torch.fastest_together", together)
    return found


@pytest.mark.slow
def test_it_tunes_once(timed: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """The first call tunes; other weights take over what was found. A kernel that is not shared any more does
    not fit, and the graph is tuned again."""
    model = Blur().eval()
    compiled = torch.compile(model, backend="fx_passes", options={"tune": True, "max_fusion_size": 32})
    require_same(compiled, model, image())
    count = len(timed)
    assert count
    assert caplog.messages == ["2 convolutions lowered"]
    model.conv.weight.data.mul_(2)
    require_same(compiled, model, image())
    assert len(timed) == count
    assert caplog.messages == ["2 convolutions lowered"] * 2
    model.conv.weight.data[1] += 1
    require_same(compiled, model, image())
    assert len(timed) > count
    assert caplog.messages[-1] == "1 convolutions lowered"


@pytest.mark.parametrize("wrong", ["yes", 2, None])
def test_a_wrong_value(wrong: Any) -> None:
    """One line says what is right."""
    said = f"the option 'tune' of the backend fx_passes must be True or False, got {wrong!r}"
    compiled = torch.compile(Blur().eval(), backend="fx_passes", options={"tune": wrong})
    with pytest.raises(Exception, match=said), torch.no_grad():
        compiled(image())


@pytest.mark.parametrize("options", [{"tune": False}, {}, None])
def test_by_default_it_does_not_tune(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """inductor never sees the option, and the rules decide."""
    seen: list[Any] = []

    class Seen:
        def __init__(self, graph_module: Any, patches: dict[str, Any], tune: bool) -> None:
            seen.append((patches, tune))

        def __call__(self, *inputs: Any) -> Any:
            raise StopIteration

    monkeypatch.setattr(compile_backend, "_Inference", Seen)
    compiled = torch.compile(Blur().eval(), backend="fx_passes", options=options)
    with pytest.raises(Exception), torch.no_grad():  # noqa: B017, PT011 - nothing is compiled
        compiled(image())
    assert seen == [({}, False)]


def test_a_plan_of_another_graph_is_not_carried_over() -> None:
    """Without the same sites there is nothing to take over."""
    from fx_passes.choose.plan_fits import carried_over

    assert carried_over(Plan({}), []) == Plan({})
    assert carried_over(Plan.from_json(_other()), []) is None


def _other() -> str:
    from plan_for_two import fitting

    return fitting().to_json()
