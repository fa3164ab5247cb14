"""fpbench: a benchmark harness for neural network fingerprinting.

A plugin imports this module and torch, and no other module of fpbench. A name is loaded when it is
first used, so `fpbench --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api.attacks import deepfool, descend, pgd
    from .api.data_file import DataFile
    from .api.errors import (
        FieldError,
        FpbenchError,
        InputError,
        PluginError,
        ResourceError,
        SuiteError,
        TrialError,
    )
    from .api.fields import Count, NonNegativeFloat, Positive, PositiveFloat, Probability, Share
    from .api.fingerprinter import Case, Ensemble, Fingerprint, Fingerprinter, agreement
    from .api.hooks import hookimpl
    from .api.oracle import Access, Oracle, log_probabilities, reply
    from .api.recipe import Lab, Recipe
    from .api.results import Report
    from .api.scenario import (
        INPUT_KINDS,
        Classification,
        Generation,
        InputKind,
        Pool,
        Regression,
        Scenario,
    )
    from .api.work import Built, Executor, Lost, PlanSummary, Result, Trial
    from .compute.folded import folded
    from .owner.verifying import verify
    from .session import plan, read, run
    from .training import fit, last_layer

_HOMES = {
    "attacks": "deepfool descend pgd",
    "data_file": "DataFile",
    "errors": "FieldError FpbenchError InputError PluginError ResourceError SuiteError TrialError",
    "fields": "Count NonNegativeFloat Positive PositiveFloat Probability Share",
    "fingerprinter": "Case Ensemble Fingerprint Fingerprinter agreement",
    "hooks": "hookimpl",
    "oracle": "Access Oracle log_probabilities reply",
    "recipe": "Lab Recipe",
    "results": "Report",
    "work": "Built Executor Lost PlanSummary Result Trial",
    "scenario": "Classification Generation INPUT_KINDS InputKind Pool Regression Scenario",
}
_HOME = {name: f".api.{home}" for home, names in _HOMES.items() for name in names.split()}
_HOME |= dict.fromkeys(("plan", "read", "run"), ".session")
_HOME |= dict.fromkeys(("fit", "last_layer"), ".training")
_HOME["verify"] = ".owner.verifying"
_HOME["folded"] = ".compute.folded"

__all__ = [
    "INPUT_KINDS",
    "Access",
    "Built",
    "Case",
    "Classification",
    "Count",
    "DataFile",
    "Ensemble",
    "Executor",
    "FieldError",
    "Fingerprint",
    "Fingerprinter",
    "FpbenchError",
    "Generation",
    "InputError",
    "InputKind",
    "Lab",
    "Lost",
    "NonNegativeFloat",
    "Oracle",
    "PlanSummary",
    "PluginError",
    "Pool",
    "Positive",
    "PositiveFloat",
    "Probability",
    "Recipe",
    "Regression",
    "Report",
    "ResourceError",
    "Result",
    "Scenario",
    "Share",
    "SuiteError",
    "Trial",
    "TrialError",
    "agreement",
    "deepfool",
    "descend",
    "fit",
    "folded",
    "hookimpl",
    "last_layer",
    "log_probabilities",
    "pgd",
    "plan",
    "read",
    "reply",
    "run",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
