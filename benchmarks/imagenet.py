"""Methods on recorded answers of ImageNet models: every base model as target in turn.

    git clone https://github.com/t-maho/FBI_fingerprinting
    uv run python benchmarks/imagenet.py FBI_fingerprinting --folder imagenet
    uv run python benchmarks/imagenet.py FBI_fingerprinting --folder imagenet --targets resnet50

The checkout has the most likely class that 35 networks and their variants give to 20,000 images.
Variants are left out whose accuracy is more than 15 % below that of their base model, as in the
experiments of that repository. The folder gets answers.npz, models.csv, the suite imagenet.yaml,
which `fpbench run` takes too, and a store. Printed are a table of means over targets and, for each
number of queries, a table of the targets with AUC, TPR at 1 % and ARUC.

Per target and method there is one trial. Nothing is learned from suspects, so nearly all of them,
nine in ten, are judged. FBI fails if the target is right, or wrong, on all queries.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fpbench import Result, session
from fpbench.engine.attempt import attempt
from fpbench.engine.key import Job, weights_of
from fpbench.engine.plan import Plan, trials_without
from fpbench.engine.registry import Registry
from fpbench.engine.run import Setting, build_zoo, prepared, twins_of
from fpbench.engine.suite import Suite
from fpbench.results.summary import summarise
from fpbench.store.store import Store

MOST_DROP = 0.15
"""The largest drop of a variant's accuracy, relative to its base model's."""

SUITE = """\
name: imagenet
scenario: {{scenario: recorded, file: {folder}/answers.npz, models: {folder}/models.csv}}
api: label
repeats: 1
target: {{recipe: recorded, model: resnet50}}
zoo: {{split: 0.1}}
methods:
  - {{method: random, each: {{n_queries: [10, 100, 1000]}}}}
  - {{method: akh, each: {{n_queries: [10, 100, 1000]}}}}
  - {{method: fbi, selection: random, each: {{n_queries: [10, 100, 1000]}}}}
  - {{method: sac, each: {{n_queries: [10, 100, 1000]}}}}
"""


class Row(NamedTuple):
    """A method's numbers with one target; None if it failed."""

    target: str
    method: str
    queries: int
    suspects: int
    auc: float | None = None
    tpr: float | None = None
    aruc: float | None = None
    error: str = ""


def split_name(file: str) -> tuple[str, str]:
    """Return the base model and the kind of variant that a file's name says: PRUNE-vgg-all-0.1."""
    kind, dash, rest = file.partition("-")
    return (rest.split("-")[0], kind.lower()) if dash else (kind, "")


def pack(checkout: Path, folder: Path) -> list[str]:
    """Write answers.npz, models.csv and imagenet.yaml into a folder. Return the base models."""
    predictions = checkout / "data" / "predictions"
    truth = np.load(predictions / "ground_truth.npy", allow_pickle=False)
    answers = {
        file.stem: np.load(file, allow_pickle=False)
        for file in sorted(predictions.glob("*.npy"))
        if file.stem not in ("ground_truth", "images_names")
    }
    accuracy = {name: (labels == truth).mean() for name, labels in answers.items()}
    kept = [
        name
        for name in answers
        if accuracy[name] >= (1 - MOST_DROP) * accuracy[split_name(name)[0]]
    ]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "answers.npz", models=np.array(kept), truth=truth.astype(np.int16),
        answers=np.stack([answers[name] for name in kept]).astype(np.int16),
    )  # fmt: skip
    with (folder / "models.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["model", "parent", "kind"])
        for name in kept:
            base, kind = split_name(name)
            rows.writerow([name, base if kind else "", kind])
    (folder / "imagenet.yaml").write_text(SUITE.format(folder=folder))
    return [name for name in kept if not split_name(name)[1]]


def measure(folder: Path, target: str, registry: Registry, store: Store) -> Iterator[Row]:
    """Try every method of the suite on one target. Kept trials are not repeated."""
    overrides = [f"target.model={target}"]
    suite = Suite.load(folder / "imagenet.yaml", registry, overrides=overrides)
    plan = Plan.of(suite)
    executor = session.find_executor(registry, "inline", ["cpu"], workers=None, limit=None)
    setting = Setting(store, folder, executor, registry.manager.hook, "cpu")
    with prepared(plan, setting):
        failures = build_zoo(plan, setting)
        weights = weights_of(plan, store)
        twins = twins_of(plan, weights, failures)
        for trial in trials_without(plan, {*failures, *twins}):
            result: Result = attempt(Job.of(trial, weights), store=store, device="cpu")
            own = target, trial.method.name, trial.method.n_queries, len(trial.suspects)
            if result.error:
                yield Row(*own, error=result.error)
            else:
                found = summarise([result])
                yield Row(*own, found.auc, found.tpr_at_1_percent_fpr, found.aruc)


def _numbers(row: Row) -> list[float]:
    """Return AUC, TPR and ARUC; NaN for one that cannot be measured."""
    return [math.nan if x is None else x for x in (row.auc, row.tpr, row.aruc)]


def show(rows: Sequence[Row]) -> None:
    """Print tables in Markdown: means over targets, then the targets for each number of queries."""
    methods = list(dict.fromkeys((row.method, row.queries) for row in rows))
    print("\n| method | N | AUC | TPR at 1 % | ARUC | lowest AUC | targets |")
    print(f"|{' --- |' * 7}")
    for method, queries in methods:
        own = [r for r in rows if (r.method, r.queries) == (method, queries) and not r.error]
        means = [
            f"{values.mean():.3f} ± {values.std(ddof=min(1, len(own) - 1)):.3f}"
            for values in np.array([_numbers(row) for row in own]).T
        ]
        worst = min(own, key=lambda row: row.auc or 0)
        print(f"| {method} | {queries} | {' | '.join(means)} | {worst.auc:.3f} {worst.target} | "
              f"{len(own)} |")  # fmt: skip
    for queries in dict.fromkeys(row.queries for row in rows):
        names = [method for method, n in methods if n == queries]
        print(f"\nN = {queries}\n\n| target |{''.join(f' {name} |' for name in names)}")
        print(f"|{' --- |' * (len(names) + 1)}")
        for target in dict.fromkeys(row.target for row in rows):
            own = [row for row in rows if (row.target, row.queries) == (target, queries)]
            texts = [" ".join(f"{x:.2f}" for x in _numbers(row)) for row in own]
            cells = [f" {'failed' if r.error else t} |" for r, t in zip(own, texts, strict=True)]
            print(f"| {target} |{''.join(cells)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("checkout", type=Path, help="a checkout of the repository")
    parser.add_argument(
        "--folder", type=Path, default=Path("imagenet"), help="for all that is made"
    )
    parser.add_argument("--targets", nargs="+", help="by default every base model")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    given = parser.parse_args()
    bases = pack(given.checkout, given.folder)
    registry = session.load_plugins(())
    store, rows = Store(given.folder / "store"), list[Row]()
    for target in given.targets or bases:
        began, cpu = time.perf_counter(), time.process_time()
        rows += measure(given.folder, target, registry, store)
        print(f"{target}: {rows[-1].suspects} suspects judged, "
              f"{time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of CPU",
              flush=True)  # fmt: skip
        if given.json:
            given.json.write_text(json.dumps([row._asdict() for row in rows]))
    show(rows)


if __name__ == "__main__":
    main()
