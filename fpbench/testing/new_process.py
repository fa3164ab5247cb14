"""Check that a saved fingerprint gives the same matching rates in a new process.

One child process serves all checks. It gets only what a file can hold: the method's class and
settings, the fingerprint's tensors, the suspects' weights. It has nothing that `construct` left in
memory.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, TracebackType
from typing import Any, Self

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..api.fields import fields_as_json
from ..api.fingerprinter import Fingerprint, Fingerprinter
from ..api.oracle import Access
from ..api.python_file import load
from .checks import TOLERANCE, expect
from .method_on_toy import MethodOnToy
from .toys import CHECKED, Zoo

SECONDS = 300
"""How long the child may take; usually it takes five, to load torch."""


class NewProcess:
    """A new process to verify in. It starts at once, so that it loads torch meanwhile."""

    def __init__(self, method: Fingerprinter) -> None:
        self._folder = TemporaryDirectory(prefix="fpbench-check-")
        cls = type(method)
        self._order: dict[str, Any] = {
            "module": cls.__module__,
            "file": inspect.getsourcefile(cls),
            "class": cls.__qualname__,
            "fields": fields_as_json(method),
            "folder": self._folder.name,
            "jobs": [],
        }
        self._kept: list[tuple[MethodOnToy, list[float]]] = []
        path = os.pathsep.join(p for p in sys.path if p)
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "fpbench.testing.new_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        with self._child:  # waits, and closes its pipes
            self._child.kill()
        self._folder.cleanup()

    def add(self, subject: MethodOnToy) -> None:
        """Save a fingerprint and the suspects that both processes will judge by it."""
        fingerprint, suspects = subject.fingerprint(), _suspects(subject.zoo)
        tensors = {"queries": fingerprint.queries}
        tensors |= {f"evidence/{name}": t for name, t in fingerprint.evidence.items()}
        for k, model in enumerate(suspects):
            tensors |= {f"suspect{k}/{name}": t for name, t in model.state_dict().items()}
        file = Path(self._folder.name) / f"{len(self._kept)}.safetensors"
        save_file({name: t.clone().contiguous() for name, t in tensors.items()}, file)
        self._kept.append((subject, subject.rates(*suspects)))
        self._order["jobs"].append(
            {"file": str(file), "scenario": CHECKED.index(subject.zoo.scenario),
             "access": int(subject.access), "suspects": len(suspects)}
        )  # fmt: skip

    def outcomes(self) -> list[tuple[MethodOnToy, list[float], list[float] | str]]:
        """Return each fingerprint with the rates found here, and those found there or an error."""
        if not self._kept:
            return []
        answer = Path(self._folder.name) / "rates.json"
        try:
            said, _ = self._child.communicate(json.dumps(self._order), timeout=SECONDS)
        except subprocess.TimeoutExpired:
            said = f"no answer in {SECONDS} s"
        found: list[list[float] | str] = [(said.strip().splitlines() or ["no answer"])[-1]]
        found *= len(self._kept)
        if answer.exists():
            found = json.loads(answer.read_text())
        return [(*kept, there) for kept, there in zip(self._kept, found, strict=True)]


def rates_the_same_in_a_new_process(
    subject: MethodOnToy, here: list[float], there: list[float] | str
) -> None:
    """a fingerprint saved and loaded in a new process gives the same matching rates"""
    same = not isinstance(there, str) and all(
        abs(a - b) <= TOLERANCE for a, b in zip(here, there, strict=True)
    )
    expect(same, f"the rates {_shown(here)} in a new process too", _shown(there),
           "put all that match needs into the evidence, keep nothing on the method or in its "
           "module, and let its class stand at the top level of its file")  # fmt: skip


def _suspects(zoo: Zoo) -> list[nn.Module]:
    return [zoo.target, zoo.positives[0], zoo.negatives[0]]


def _shown(rates: list[float] | str) -> str:
    return rates if isinstance(rates, str) else ", ".join(f"{rate:.4f}" for rate in rates)


# ── in the child ──────────────────────────────────────────────────────────────────────────


def judge(order: dict[str, Any]) -> None:
    """Load the method and every fingerprint, verify, write the rates down."""
    found: Any = _module(order["module"], order["file"])
    for name in order["class"].split("."):
        found = getattr(found, name)
    method: Fingerprinter = found(**order["fields"])
    answers = []
    for job in order["jobs"]:
        try:
            answers.append(_rates(method, job))
        except Exception as error:
            answers.append(f"{type(error).__name__}: {error}")
    (Path(order["folder"]) / "rates.json").write_text(json.dumps(answers))


def _rates(method: Fingerprinter, job: dict[str, Any]) -> Any:
    tensors, scenario = load_file(job["file"]), CHECKED[job["scenario"]]

    def under(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    rates, fingerprint = [], Fingerprint(tensors["queries"], under("evidence/"))
    for k in range(job["suspects"]):
        model = scenario.architectures["mlp"]()
        model.load_state_dict(under(f"suspect{k}/"))
        zoo = Zoo(scenario, model, [], [])
        rates.append(float(method.verify(fingerprint, zoo.oracle(model, Access(job["access"])))))
    return rates


def _module(name: str, file: str) -> ModuleType:
    """Import the method's module by its name; a plugin file, or a script, by its path."""
    try:
        if name != "__main__":
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    return load(Path(file), "fpbench_checked_method")


if __name__ == "__main__":
    judge(json.load(sys.stdin))
