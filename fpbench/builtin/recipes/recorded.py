"""The recipe `recorded`: a model of which only answers are known."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from fpbench import Lab, Recipe, Scenario

from ..scenarios.recorded import Recorded


@dataclass(frozen=True, kw_only=True)
class RecordedModel(Recipe):
    """Take a model's answers from the file of the scenario `recorded`.

    Among a suite's positives it counts as made from the target, among its negatives as independent.

    model: the model's name in that file.
    kind:  the group that it belongs to in reports and in stratified splits; by default "copy" for
           positives and "independent" for negatives.
    """

    name = "recorded"
    recorded = True
    needs_parent = None
    places: ClassVar[frozenset[str]] = frozenset({"kind"})

    model: str
    kind: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kind:
            object.__setattr__(self, "kind", "copy" if self.parent else "independent")

    @property
    def uses_seed(self) -> bool:
        return False

    @classmethod
    def default_zoo(
        cls, scenario: Scenario, target: Mapping[str, Any], train: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        if not isinstance(scenario, Recorded) or not scenario.ancestry or "model" not in target:
            return None
        positives, negatives = scenario.relatives(str(target["model"]))

        def entries(models: list[str], prefix: str, default: str) -> list[dict[str, Any]]:
            kinds: dict[str, list[str]] = {}
            for model in models:
                kind = scenario.ancestry[model].kind
                kinds.setdefault(f"{prefix}{kind}" if kind else default, []).append(model)
            return [
                {"recipe": cls.name, "kind": kind, "each": {"model": of_kind}}
                for kind, of_kind in kinds.items()
            ]

        return {
            "positives": entries(positives, "", "copy"),
            "negatives": entries(negatives, "independent ", "independent"),
        }

    def __str__(self) -> str:
        own = f"recorded({self.model})"
        return f"{self.parent} > {own}" if self.parent else own

    def known_utility(self, lab: Lab) -> dict[str, float] | None:
        assert isinstance(lab.scenario, Recorded)
        return {"accuracy": lab.scenario.table.accuracy(self.model)}

    def cohort(self) -> Hashable:
        # A cohort holds a lock for each of its models, so thousands in one would need too many.
        return self.name, self.digest[:1]

    def make(self, lab: Lab) -> nn.Module:
        return lab.new(self, self.model)
