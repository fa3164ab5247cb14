"""A scenario says its task; nothing is guessed from its base classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import Blobs, Grid, Line, Points, Strokes, blobs

import fpbench
from conftest import TOYS, UNTRAINED, Desk
from fpbench import Classification, Pool, Scenario

PLUGIN = """\
from dataclasses import dataclass
from fpbench import hookimpl
from toys import Blobs

@dataclass(frozen=True)
class Half(Blobs):
    \"\"\"Blobs under another name.\"\"\"

    name = "half"

    def pictures(self, output):
        \"\"\"Show outputs as images of 1 x 3.\"\"\"
        return output.sigmoid()[:, None]

@hookimpl
def fpbench_scenarios():
    return [Half]
"""


@dataclass(frozen=True)
class Ranking(Scenario):
    """A task of its own, with the data of another."""

    name = "ranking"
    task = "ranking"
    input_shape = Blobs.input_shape
    output_shape = Blobs.output_shape
    input_range = Blobs.input_range
    architectures = Blobs.architectures

    def load(self) -> Mapping[str, Pool]:
        return {pool: blobs(6, torch.Generator()) for pool in ("train", "public", "test")}

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        return output.mean()

    def distill_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return student.mean()

    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        return {"order": 1.0}


@dataclass(frozen=True)
class Half(Blobs):
    """A scenario that changes a concrete one."""

    name = "half"


@dataclass(frozen=True)
class Doses(Line):
    """A scenario that changes a concrete one of another task."""

    name = "doses"


@dataclass(frozen=True, kw_only=True)
class OfClasses(Grid):
    """A method for any classification."""

    name = "of-classes"
    supports = Classification


@pytest.fixture
def half(desk: Desk) -> Path:
    """A plugin with a scenario on a concrete one; the desk has a suite of it."""
    desk.write(UNTRAINED.replace("blobs", "half"))
    path = desk.folder / "half.py"
    path.write_text(PLUGIN)
    return path


def test_the_plan_of_a_scenario_on_a_concrete_one_names_its_task(desk: Desk, half: Path) -> None:
    plan = fpbench.plan(
        desk.folder / "suite.yaml", store=desk.folder / "store", plugins=[TOYS, half]
    )
    assert (plan.scenario, plan.task) == ("half", "classification")
    assert plan.refusals == {}


@pytest.mark.parametrize(
    ("scenario", "task"),
    [(Half(), "classification"), (Doses(), "regression"), (Strokes(), "generation"),
     (Ranking(), "ranking")],
    ids=str,
)  # fmt: skip
def test_a_method_names_the_task_that_it_declines(scenario: Scenario, task: str) -> None:
    reason = OfClasses().declines(scenario)
    if task == "classification":
        assert reason is None
    else:
        assert reason == f"of-classes fingerprints classification models; {scenario.name} is {task}"


def test_a_method_for_one_scenario_names_it() -> None:
    @dataclass(frozen=True, kw_only=True)
    class OnHalf(OfClasses):
        """A method for one scenario alone."""

        supports = Half

    assert OnHalf().declines(Half()) is None
    reason = "of-classes fingerprints Half models; blobs is classification"
    assert OnHalf().declines(Blobs()) == reason


@pytest.mark.parametrize(("scenario", "shown"), [("blobs", False), ("half", True)])
def test_outputs_of_any_task_may_be_pictures(
    desk: Desk, half: Path, scenario: str, shown: bool
) -> None:
    desk.write(UNTRAINED.replace("blobs", scenario))
    desk.run(plugins=(half,))
    assert len([*(desk.folder / "runs").rglob("samples.npz")]) == shown


def test_a_training_step_of_a_game_counts_the_discriminators_passes() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    def count(scenario: Scenario, arch: str) -> int:
        scenario.architecture(arch)()  # the first network of an architecture is tried once
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            scenario.training_step(arch, torch.empty(2, *scenario.input_shape))
        return int(counter.get_total_flops())

    # Two inputs, forward and backward; the first layer's inputs need no gradient.
    assert count(Strokes(), "slim") == 2 * 2 * (2 * 12) * 2
    alone, judged = (3, 8, 1), (1, 8, 1)
    passes = [2 * 2 * a * b for a, b in pairwise(alone)]
    rival = [2 * 2 * a * b for a, b in pairwise(judged)]
    generator = 3 * sum(passes) - passes[0]
    # The samples' gradient goes on to the generator, real ones need none.
    expected = generator + 3 * sum(rival) + 2 * (3 * sum(rival) - rival[0])
    assert count(Points(), "slim") == expected
