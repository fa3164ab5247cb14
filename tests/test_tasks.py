"""A scenario says its task; nothing is guessed from its base classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import Desk
from torch import Tensor
from toys import Blobs, Strokes, blobs

import fpbench
from fpbench import Pool, Scenario
from fpbench.builtin.methods.controls import Random
from fpbench.builtin.scenarios.digits import Digits
from fpbench.builtin.scenarios.fashion import Fashion
from fpbench.builtin.scenarios.warfarin import Warfarin

PLUGIN = """\
from dataclasses import dataclass
from fpbench import hookimpl
from fpbench.builtin.scenarios.digits import Digits

@dataclass(frozen=True)
class Half(Digits):
    \"\"\"Digits under another name.\"\"\"

    name = "half"

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
class Half(Digits):
    """A scenario that changes a concrete one."""

    name = "half"


@dataclass(frozen=True)
class Doses(Warfarin):
    """A scenario that changes a concrete one of another task."""

    name = "doses"


def test_the_plan_of_a_scenario_on_a_concrete_one_names_its_task(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(PLUGIN)
    (tmp_path / "half.yaml").write_text("""\
name: half
scenario: half
plugins: [half.py]
api: probs
target: {recipe: train, model: mlp}
zoo:
  positives: [{recipe: finetune, layers: all, copies: 2}]
  negatives: [{recipe: train, model: mlp, copies: 2}]
methods: [{method: random}]
""")
    plan = fpbench.plan(tmp_path / "half.yaml", store=tmp_path / "store")
    assert (plan.scenario, plan.task) == ("half", "classification")
    assert plan.refusals == {}


@pytest.mark.parametrize(
    ("scenario", "task"),
    [(Half(), "classification"), (Doses(), "regression"), (Fashion(), "generation"),
     (Ranking(), "ranking")],
    ids=lambda value: str(value),
)  # fmt: skip
def test_a_method_names_the_task_that_it_declines(scenario: Scenario, task: str) -> None:
    reason = Random().declines(scenario)
    if task == "classification":
        assert reason is None
    else:
        assert reason == f"random fingerprints classification models; {scenario.name} is {task}"


def test_a_method_for_one_scenario_names_it() -> None:
    @dataclass(frozen=True, kw_only=True)
    class OnDigits(Random):
        """A method for digits alone."""

        supports = Digits

    assert OnDigits().declines(Half()) is None
    assert OnDigits().declines(Blobs()) == (
        "random fingerprints Digits models; blobs is classification"
    )


PICTURES = """\
from dataclasses import dataclass
from fpbench import hookimpl
from toys import Blobs

@dataclass(frozen=True)
class Shown(Blobs):
    \"\"\"A classification whose outputs are shown as images of 1 x 3.\"\"\"

    name = "shown"

    def pictures(self, output):
        return output.sigmoid()[:, None]

@hookimpl
def fpbench_scenarios():
    return [Shown]
"""


@pytest.mark.parametrize(("scenario", "shown"), [("blobs", False), ("shown", True)])
def test_outputs_of_any_task_may_be_pictures(desk: Desk, scenario: str, shown: bool) -> None:
    plugin = desk.folder / "shown.py"
    plugin.write_text(PICTURES)
    desk.write(
        f"name: few\nscenario: {scenario}\napi: label\nrepeats: 1\n"
        "target: {recipe: drawn, model: wide}\n"
        "zoo: {positives: [{recipe: nudged, copies: 4}], negatives: [{recipe: drawn, copies: 4}]}\n"
        "methods: [{method: grid}]\n"
    )
    desk.run(plugins=(plugin,))
    assert len([*(desk.folder / "runs").rglob("samples.npz")]) == shown


def test_a_training_step_of_a_game_counts_the_discriminators_passes() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    def count(scenario: Scenario, arch: str) -> int:
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            scenario.training_step(arch, torch.empty(2, *scenario.input_shape))
        return int(counter.get_total_flops())

    # Two inputs, forward and backward; the first layer's inputs need no gradient.
    assert count(Strokes(), "slim") == 2 * 2 * (2 * 12) * 2
    alone, judged = (100, 128, 256, 512, 784), (784, 512, 256, 128, 1)
    passes = [2 * 2 * a * b for a, b in pairwise(alone)]
    rival = [2 * 2 * a * b for a, b in pairwise(judged)]
    generator = 3 * sum(passes) - passes[0]
    # The samples' gradient goes on to the generator, real ones need none.
    expected = generator + 3 * sum(rival) + 2 * (3 * sum(rival) - rival[0])
    assert count(Fashion(), "s") == expected
