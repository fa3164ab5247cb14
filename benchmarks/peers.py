"""QuRD's methods and fpbench's on the same suspects, with 100 queries each.

    uv run --with numba --with scikit-image python benchmarks/peers.py --qurd PATH
    ... --zoo-seed 0 1 2        # several zoos
    ... --seeds 10              # repetitions of each method on a zoo
    ... --api output            # fpbench's suspects answer logits, as QuRD's always do
    ... --store STORE           # keep the zoos

PATH is a checkout of https://github.com/grodino/QuRD (Godinot et al., AAAI 2025); nothing of it is
copied. QuRD's side goes through its `make_fingerprint` with batches of 256: the default settings,
except that Zest masks each image 20 times and not 1000 times, because 100 queries allow no more.
fpbench's side is `fpbench.run` on the suite with each method's defaults.

Every method rates all suspects of the zoo. A rate of QuRD is 1 - distance, cut to [0, 1]. AUC and
ARUC are means over the seeds, and sd is the standard deviation of AUC. Seconds are seconds of the
processor for the fingerprint and the rates of all suspects, the median over the seeds, on one
thread. Both sides load each suspect anew, which is not part of the seconds. A run of fpbench times
the rates of the judged half of the suspects, so those seconds count in proportion.

At the end, both rate the suspects by the queries of fpbench's methods, where both compute the same
rate from them. The largest difference is printed; the exit code is 1 if it is above 1e-5.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from fpbench_ipguard import IPGuard
from fpbench_modeldiff import ModelDiff
from fpbench_sac import SAC
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

import fpbench
from fpbench import Access, Case, Fingerprinter, Recipe, Scenario, reply
from fpbench.builtin.methods.controls import Akh, Random
from fpbench.engine.environment import tuned
from fpbench.results.metrics import aruc, roc_auc
from fpbench.store.store import Store

QUICKSTART = Path(__file__).resolve().parent.parent / "suites" / "quickstart.yaml"
QUERIES, BATCH, MASKS = 100, 256, 20
TOLERANCE = 1e-5
CPU = torch.device("cpu")
NAMES = {
    "random": "Random", "akh": "AKH", "sac": "SAC", "modeldiff": "ModelDiff",
    "zest": "ZestOfLIME", "ipguard": "IPGuard",
}  # fmt: skip
"""By fpbench's name of a method, QuRD's name."""

Make = Callable[..., tuple[Any, Any, Callable[[Any, Any], float]]]


def stop(sentence: str) -> NoReturn:
    """End the program with a sentence and exit code 2."""
    print(f"peers.py: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def load_qurd(folder: Path) -> Make:
    """Return `make_fingerprint` of a checkout of QuRD."""
    if not (folder / "qurd" / "fingerprint").is_dir():
        stop(f"--qurd {folder}: expected a checkout of QuRD with a folder qurd/fingerprint, found "
             "none; clone https://github.com/grodino/QuRD and give its path")  # fmt: skip
    # Numba imports the package coverage, and a script beside this one has the same name.
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path).resolve() != here)]
    try:
        make: Make = importlib.import_module("qurd.fingerprint").make_fingerprint
    except ModuleNotFoundError as error:
        stop(
            f"expected the package {error.name}, which QuRD imports, found none; begin the command "
            "with `uv run --with numba --with scikit-image`"
        )
    if not hasattr(torch.optim, "adam"):  # the name that QuRD's IPGuard uses
        torch.optim.adam = SimpleNamespace(Adam=torch.optim.Adam)  # type: ignore[attr-defined]
    return make


# ── a zoo, as both sides see it ────────────────────────────────────────────────────


class Images(Dataset[tuple[Tensor, int]]):
    """A pool as QuRD reads data: pairs of an image and its label. QuRD sets the transform."""

    transform: Callable[[Tensor], Tensor] | None = None

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = self.images[i]
        return (self.transform(image) if self.transform else image), int(self.labels[i])


class Coloured(nn.Sequential):
    """A network on grey images as one on coloured images, of which it sees the first channel."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x[:, :1])
        return out


class CentredOutputs(nn.Sequential):
    """A network with centred outputs, so that it does not matter whether a method centres them.

    They are in double precision, because QuRD subtracts cosines from 1.
    """

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x).double()
        return out - out.mean(1, keepdim=True)


@dataclass(frozen=True)
class Zoo:
    """The target and the suspects of a run. Models are loaded anew whenever they are needed."""

    trial: fpbench.Trial
    store: Store

    @property
    def scenario(self) -> Scenario:
        return self.trial.scenario

    def load(self, recipe: Recipe) -> nn.Module:
        """Return a model with the attribute in which QuRD looks for the number of classes."""
        model = self.store.load(recipe, self.scenario, CPU)
        model.pretrained_cfg = {"num_classes": self.scenario.output_shape[0]}  # type: ignore[assignment]
        return model

    @property
    def target(self) -> nn.Module:
        return self.load(self.trial.target)

    @property
    def suspects(self) -> Sequence[Recipe]:
        """The recipes of all suspects, judged or not."""
        return (*self.trial.suspects, *self.trial.calibration)

    @property
    def positive(self) -> dict[str, bool]:
        """By digest, whether a suspect is positive."""
        return {r.digest: r.descends_from(self.trial.target) for r in self.suspects}


@dataclass
class Found:
    """AUC, ARUC and seconds of a method, a value per seed."""

    auc: list[float] = field(default_factory=list)
    aruc: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, rates: dict[str, float], positive: dict[str, bool], seconds: float) -> None:
        """Add the rates of all suspects of one seed."""
        sides = [[r for d, r in rates.items() if positive[d] is side] for side in (True, False)]
        self.auc.append(roc_auc(*sides))
        self.aruc.append(aruc(*sides))
        self.seconds.append(seconds)


# ── the two sides ──────────────────────────────────────────────────────────────────


Rows = list[tuple[int, str, Found, Found]]
Gaps = list[tuple[int, str, float]]


def by_fpbench(report: fpbench.Report, zoo: Zoo) -> dict[str, Found]:
    """Return the results of a run of fpbench, by method."""
    found = {name: Found() for name in NAMES}
    for trial in report.record.trials:
        if trial.error is None:
            rates = {**trial.matching_rates, **trial.calibration_rates}
            share = len(rates) / len(trial.matching_rates)
            construct, verify = trial.construct_cpu_seconds, trial.verify_cpu_seconds
            assert construct is not None
            assert verify is not None
            found[trial.method].add(rates, zoo.positive, construct + share * verify)
    for name in NAMES:
        if reason := report.why_not(name):
            print(f"fpbench's {name}: {reason}", file=sys.stderr)
    return found


def by_qurd(make: Make, zoo: Zoo, name: str, seeds: int) -> Found:
    """Return what QuRD's method of this name finds."""
    found, pool = Found(), zoo.scenario.data("test")
    images, given = pool.inputs, dict[str, int]()
    wrap: type[nn.Sequential] = nn.Sequential
    if name == "ZestOfLIME":
        given["subsample"] = MASKS
        if images.shape[1] == 1:  # it segments coloured images only
            images, wrap = images.expand(-1, 3, -1, -1), Coloured
    transform = unchanged(images.shape[1])
    positive, target = zoo.positive, wrap(zoo.target)
    target.pretrained_cfg = target[0].pretrained_cfg
    source = {"source_model": target, "source_transform": transform}
    if name in ("Random", "ZestOfLIME"):  # they draw queries without the target
        source = {}
    for seed in range(seeds):
        torch.manual_seed(seed)
        began = time.process_time()
        sampler, represent, distance = make(name, batch_size=BATCH, device="cpu", **given)
        data = Images(images, pool.truth)
        queries = sampler.sample(dataset=data, budget=QUERIES, **source)
        expected = represent(queries, target, transform)
        seconds, rates = time.process_time() - began, {}
        for recipe in zoo.suspects:
            suspect = wrap(zoo.load(recipe))
            began = time.process_time()
            rate = 1 - distance(expected, represent(queries, suspect, transform))
            seconds += time.process_time() - began
            rates[recipe.digest] = min(max(rate, 0.0), 1.0)
        found.add(rates, positive, seconds)
    return found


def unchanged(channels: int) -> v2.Compose:
    """Return the transform of networks that normalise for themselves, as QuRD takes it apart."""
    return v2.Compose([v2.Identity(), v2.Normalize([0.0] * channels, [1.0] * channels)])


# ── equal queries, equal rates ─────────────────────────────────────────────────────


def equal_queries(make: Make, zoo: Zoo) -> Iterator[tuple[str, float]]:
    """Yield the name of each check, and the largest difference between QuRD's rates and ours."""
    transform = unchanged(zoo.scenario.input_shape[0])

    def qurds(name: str) -> tuple[Any, Callable[[Any, Any], float]]:
        _, represent, distance = make(name, batch_size=BATCH, device="cpu")
        return represent, distance

    def largest(
        method: Fingerprinter, access: Access, represent: Any,
        rate: Callable[[Any, Any], float], *, wrap: type[nn.Sequential] = nn.Sequential,
        halves: bool = False,
    ) -> float:  # fmt: skip
        target = wrap(zoo.target)
        case = Case(zoo.scenario, target, access, torch.Generator().manual_seed(0), CPU)
        fingerprint = method.construct(case)
        queries = fingerprint.queries.chunk(2) if halves else fingerprint.queries
        expected = represent(queries, target, transform)
        gaps = []
        for suspect in (wrap(zoo.load(recipe)) for recipe in zoo.suspects):
            with torch.no_grad():
                replies = reply(suspect(fingerprint.queries), access)
            theirs = rate(expected, represent(queries, suspect, transform))
            gaps.append(abs(method.match(fingerprint, replies) - theirs))
        return max(gaps)

    represent, hamming = qurds("Random")
    for method in (Random(), Akh(), IPGuard()):
        yield (
            f"{method.name}, 1 - hamming",
            largest(method, Access.LABEL, represent, lambda a, b: 1 - hamming(a, b)),
        )

    represent, cosine = qurds("ModelDiff")
    yield "modeldiff on centred logits, 1 - cosine", largest(
        ModelDiff(reads="logits"), Access.OUTPUT, represent, lambda a, b: 1 - cosine(a, b),
        wrap=CentredOutputs, halves=True,
    )  # fmt: skip

    represent, l2 = qurds("SAC")
    represent.hard_labels = True
    # A query's pair with itself never differs; fpbench leaves it out.
    pairs = QUERIES / (QUERIES - 1)
    yield (
        "sac on labels, 1 - l2^2 over pairs of two",
        largest(SAC(d0=0.5), Access.LABEL, represent, lambda a, b: 1 - pairs * l2(a, b) ** 2),
    )
    represent.hard_labels = False
    yield "sac on centred logits, the paper's distance", largest(
        SAC(d0=0.5), Access.OUTPUT, represent,
        lambda a, b: max(0.0, 1 - pairs * float((a - b).abs().mean())), wrap=CentredOutputs,
    )  # fmt: skip


# ───────────────────────────────────────────────────────────────────────────────────


def show(rows: Rows, console: Console) -> None:
    """Print a row per zoo and method."""
    table = Table(title="QuRD beside fpbench", caption="AUC: mean ± sd over the seeds")
    for head in ("zoo", "method"):
        table.add_column(head)
    for head in ("AUC QuRD", "AUC fpbench", "ARUC QuRD", "ARUC fpbench", "s QuRD", "s fpbench",
                 "QuRD / fpbench"):  # fmt: skip
        table.add_column(head, justify="right")

    def spread(values: list[float]) -> str:
        if not values:
            return "-"
        sd = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.3f}{sd}"

    def middle(found: Found) -> float:
        return statistics.median(found.seconds) if found.seconds else float("nan")

    for i, (zoo, name, theirs, ours) in enumerate(rows):
        table.add_row(
            str(zoo), name, spread(theirs.auc), spread(ours.auc),
            *(f"{statistics.mean(f.aruc):.3f}" if f.aruc else "-" for f in (theirs, ours)),
            *(f"{middle(f):.3f}" for f in (theirs, ours)), f"{middle(theirs) / middle(ours):.1f}",
            end_section=i + 1 == len(rows) or rows[i + 1][0] != zoo,
        )  # fmt: skip
    console.print(table)


def compare(
    make: Make, given: argparse.Namespace, zoo_seed: int, folder: Path
) -> tuple[Rows, Gaps]:
    """Return a zoo's rows, and the differences of rates by equal queries."""
    root = given.store or folder / "store"
    report = fpbench.run(
        given.suite, only=list(NAMES), store=root, runs=folder / "runs", device="cpu", fresh=True,
        tracking=False, quiet=True,
        overrides={"zoo.seed": zoo_seed, "repeats": given.seeds, "api": given.api},
    )  # fmt: skip
    zoo = Zoo(report.results[0].trial, Store(root))
    ours = by_fpbench(report, zoo)
    print(f"zoo {zoo_seed}: {len(zoo.suspects)} suspects", file=sys.stderr)
    with tuned(), contextlib.redirect_stdout(io.StringIO()):  # QuRD prints devices
        theirs = {n: by_qurd(make, zoo, q, given.seeds) for n, q in NAMES.items()}
        gaps = [(zoo_seed, what, gap) for what, gap in equal_queries(make, zoo)]
    return [(zoo_seed, name, theirs[name], ours[name]) for name in NAMES], gaps


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--qurd", type=Path, required=True, help="a checkout of QuRD")
    parser.add_argument("--suite", type=Path, default=QUICKSTART, help="default: quickstart")
    parser.add_argument("--zoo-seed", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--seeds", type=int, default=10, help="per method and zoo; default: 10")
    parser.add_argument("--api", default="probs", help="of fpbench's suspects; default: probs")
    parser.add_argument("--store", type=Path, help="folder of zoos; default: a temporary one")
    given = parser.parse_args()
    make = load_qurd(given.qurd)
    rows, gaps = [], []
    with tempfile.TemporaryDirectory() as folder:
        for zoo_seed in given.zoo_seed:
            try:
                of_zoo, gaps_of_zoo = compare(make, given, zoo_seed, Path(folder))
            except fpbench.FpbenchError as error:
                stop(str(error))
            rows += of_zoo
            gaps += gaps_of_zoo

    console = Console(width=None if sys.stdout.isatty() else 132)
    show(rows, console)
    console.print("Equal queries, the largest difference between the rates of the two:")
    for zoo_seed, what, gap in gaps:
        far = "" if gap <= TOLERANCE else f"  expected at most {TOLERANCE:g}"
        console.print(f"  zoo {zoo_seed}  {what:44} {gap:.1e}{far}")
    return int(any(gap > TOLERANCE for *_, gap in gaps))


if __name__ == "__main__":
    sys.exit(main())
