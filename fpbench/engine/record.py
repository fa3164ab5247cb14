"""A finished run on disk: results.json (fpbench.results/1), suspects.csv, errors, checksums."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import platform
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..api.fields import plain
from ..api.recipe import Recipe
from ..api.scenario import Generation
from ..api.work import Result
from ..results.summary import VERDICTS, comparisons, summary, verdicts
from ..store.files import sha256, write
from ..store.store import Store
from .environment import device_name, everything_installed
from .plan import Plan
from .suite import Variant

SCHEMA = "fpbench.results/1"


def record(
    plan: Plan, results: Sequence[Result], failures: Mapping[str, str], *, store: Store,
    folder: Path, started: datetime, seconds: float, device: str,
) -> dict[str, Any]:  # fmt: skip
    """Write a run's results and return what results.json holds."""
    suite = plan.suite
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "run": {
            "id": folder.name,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "processor": platform.processor() or platform.machine(),
            "cpus": os.cpu_count(),
            "platform": platform.platform(),
            "versions": {"python": platform.python_version(), **everything_installed()},
            "git": git_revision(Path.cwd()),
        },
        "suite": {
            "name": suite.name,
            "file": suite.source.file,
            "sha256": sha256(suite.source.text.encode()),
            "text": suite.source.text,
            "overrides": list(suite.overrides),
            "api": str(suite.api),
            "seed": suite.seed,
            "repeats": suite.repeats,
            "split": suite.split,
            "stratify": suite.stratify,
        },
        "scenario": {
            "name": suite.scenario.name,
            "version": suite.scenario.version,
            "fields": plain(suite.scenario),
            "data": suite.scenario.summary,
        },
        "target": suite.target.digest,
        "models": [_model(recipe, plan, store) for recipe in plan.models],
        "methods": [_method(variant, plan, results) for variant in suite.methods],
        "comparisons": comparisons([r for r in results if not r.error]),
        "trials": [_trial(result) for result in results],
        "failures": dict(failures),
    }
    data = _finite(data)
    files = {
        "suite.yaml": suite.source.text.encode(),
        "suspects.csv": _suspects(data).encode(errors="backslashreplace"),
        "results.json": json.dumps(data, indent=1, allow_nan=False).encode(),
    }
    for name, text in _errors(data):
        write(folder / "errors" / f"{name}.txt", text.encode(errors="backslashreplace"))
    sums = "".join(f"{sha256(content)}  {name}\n" for name, content in files.items())
    # The results come last: who finds them finds everything.
    for name, content in {"SHA256SUMS": sums.encode(), **files}.items():
        write(folder / name, content)
    return data


def _model(recipe: Recipe, plan: Plan, store: Store) -> dict[str, Any]:
    made = store.made(recipe, plan.suite.scenario) or {}
    target = plan.suite.target
    return {
        "digest": recipe.digest,
        "name": str(recipe),
        "kind": "target" if recipe is target else recipe.kind,
        "positive": recipe.descends_from(target),
        "arch": recipe.arch,
        "utility": made.get("utility"),
        "seconds": made.get("seconds"),
        "device": made.get("device"),
        "weights_sha256": made.get("weights_sha256"),
    }


def _trial(result: Result) -> dict[str, Any]:
    trial = result.trial
    return {
        "method": trial.label,
        "repeat": trial.repeat,
        "seed": trial.seed,
        "ensemble": [r.digest for r in trial.ensemble],
        "matching_rates": dict(result.matching_rates),
        "calibration_rates": dict(result.calibration_rates),
        **verdicts(result),
        "queries": result.queries,
        "construct_seconds": result.construct_seconds,
        "verify_seconds": result.verify_seconds,
        "construct_cpu_seconds": result.construct_cpu_seconds,
        "verify_cpu_seconds": result.verify_cpu_seconds,
        "device": result.device,
        "losses": [(step, round(at, 4), float(f"{loss:.6g}")) for step, at, loss in result.losses],
        "threads": result.threads,
        "cached": result.cached,
        "error": result.error,
    }


def _method(variant: Variant, plan: Plan, results: Sequence[Result]) -> dict[str, Any]:
    mine = [r for r in results if r.trial.label == variant.label]
    good = [r for r in mine if not r.error]
    entry: dict[str, Any] = {
        "method": variant.label,
        "name": variant.method.name,
        "source": variant.source,
        "fields": plain(variant.method),
        "ensemble": variant.ensemble,
        "access": str(mine[0].trial.access) if mine else None,
        "refusal": plan.refusals.get(variant.label),
        "errors": [r.error for r in mine if r.error],
        "summary": summary(good) if good else None,
    }
    return entry


def _errors(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Why trials failed and models were not made, by names that files may have."""
    for i, trial in enumerate(data["trials"]):
        if trial["error"]:
            label = re.sub(r"[^A-Za-z0-9_-]+", "-", trial["method"])[:60]
            yield f"{i}-{label}-{trial['repeat']}", trial["error"]
    for digest, reason in data["failures"].items():
        yield f"model-{digest[:12]}", reason


def _suspects(data: Mapping[str, Any]) -> str:
    """One row per suspect, method and repeat."""
    models = {m["digest"]: m for m in data["models"]}
    measures = list(next((m["utility"] for m in data["models"] if m["utility"]), {}))
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(
        [
            "method",
            "repeat",
            "suspect",
            "kind",
            "positive",
            "arch",
            "matching_rate",
            *VERDICTS,
            *measures,
            "digest",
        ]
    )
    for trial in data["trials"]:
        for digest, rate in trial["matching_rates"].items():
            model = models[digest]
            rows.writerow(
                [trial["method"], trial["repeat"], model["name"], model["kind"],
                 int(model["positive"]), model["arch"], rate,
                 *(trial[verdict].get(digest) for verdict in VERDICTS),
                 *(model["utility"][m] for m in measures), digest]
            )  # fmt: skip
    return out.getvalue()


def _finite(value: Any) -> Any:
    """JSON has no nan: an interval that one repeat cannot have is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def git_revision(folder: Path) -> dict[str, Any] | None:
    """The commit that is checked out here, and whether files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), *words],  # noqa: S607
            capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


CODES = 8

log = logging.getLogger("fpbench")


def keep_samples(
    plan: Plan, gone: Collection[str], *, store: Store, folder: Path, device: str
) -> None:
    """Write samples.npz into a run's folder, if its models draw pictures.

    rows (r, 2): a kind, and the model that stands for it; images (r, CODES, height, width) or
    (r, CODES, height, width, 3), bytes. The results are on disk: what goes wrong costs one line.

    gone: digests of models that could not be made.
    """
    scenario = plan.suite.scenario
    if not isinstance(scenario, Generation) or plan.suite.target.digest in gone:
        return
    kinds: dict[str, list[Recipe]] = {"target": [plan.suite.target]}
    for recipe in plan.models[1:]:
        if recipe.digest not in gone:
            kinds.setdefault(recipe.kind, []).append(recipe)
    # The middle of a kind, whose members a suite mostly sweeps from mild to severe.
    chosen = {kind: members[len(members) // 2] for kind, members in kinds.items()}
    try:
        codes = scenario.data("test").inputs[:CODES].to(device)
        images = []
        for recipe in chosen.values():
            with torch.no_grad():
                output = store.load(recipe, scenario, torch.device(device))(codes)
            if (pictures := scenario.pictures(output)) is None:
                return
            images.append((255 * pictures.clamp(0, 1)).round().byte().cpu().numpy())
        rows = [(kind, str(recipe).split(" > ")[-1]) for kind, recipe in chosen.items()]
        file = io.BytesIO()
        np.savez_compressed(file, rows=np.array(rows), images=np.stack(images))
        write(folder / "samples.npz", file.getvalue())
    except Exception as error:
        log.warning("no samples: %s: %s", type(error).__name__, error)
