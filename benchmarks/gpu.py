"""What only a GPU can show, in one command of at most 8 minutes.

    python benchmarks/gpu.py --out FOLDER                     # on a machine with a GPU
    python benchmarks/gpu.py --out FOLDER --packages PACKAGES # packages from a folder
    python benchmarks/gpu.py --out FOLDER --tiny              # on the CPU, at tiny sizes

The steps, in this order:

    tests         the tests that take a device (marker `device`)
    training      benchmarks/training.py
    construction  benchmarks/construction.py
    limit         benchmarks/limit.py
    cohorts       the time of a cohort of every architecture of suites/skin.yaml, 224 x 224, on
                  noise; the whole zoo's hours are worked out from it
    metav         MetaV's fingerprint of a ResNet-18 at 224 x 224, with 100 queries and an ensemble
                  of 70 untrained networks of the suite's architectures; their verification
    skin-32       suites/skin-32.yaml until the time is over; the store in FOLDER is continued by
                  the next call

FOLDER/gpu.json is written after every row, and printed at the end; progress is on stderr. A step
ends when its share of the time is over, and it is then recorded as "cut off" with the rows so far.
A step that fails is recorded with its reason, and the next one begins.

It needs no network and no installation of fpbench. The packages that it needs beside torch, and
that this machine lacks, are named at the start, those that they need in turn at the next call. They
come from PACKAGES, a folder that was filled on another machine by `pip install --no-deps --target
PACKAGES NAME ...` for the same Python and platform: pydantic-core, safetensors, scikit-learn, scipy
and psutil have compiled code. `--no-deps` keeps a second torch or numpy out of it. MLflow,
matplotlib and plotly are not needed. `tests` needs pytest and hypothesis too. `construction`
compares with foolbox and adversarial-robustness-toolbox where they are installed.

Data is looked for in $FPBENCH_DATA: ham10000-28 or dermamnist for `skin-32`; iwpc, which is read by
pandas, for `construction`; iwpc, fashion-mnist and ham10000-28 for MetaV's rows of `limit`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SUITES = ROOT / "suites"

UNUSED = {"mlflow", "matplotlib", "pandas", "plotly"}
"""Dependencies of fpbench that no step needs."""

GRACE = 6.0
"""Seconds between the request to end a step and the end of its processes."""

RESERVED = 2 * GRACE
"""Seconds that no step gets: to end the last one, and to count the models in its store."""

Row = str | dict[str, Any]


def stop(sentence: str) -> NoReturn:
    """End the program with a sentence and exit code 2."""
    print(f"gpu.py: {sentence}", file=sys.stderr)
    raise SystemExit(2)


# ── what runs in a process of its own ──────────────────────────────────────────────


def say(**row: Any) -> None:
    """Print a row of a step."""
    print(json.dumps(row), flush=True)


def step_cohorts(tiny: bool) -> None:
    """Print a row per architecture of the Skin suite, and one of the whole zoo."""
    import torch
    from training import Bench, timed

    from fpbench import Pool, Recipe, fit
    from fpbench.engine.environment import tune
    from fpbench.engine.plan import Plan
    from fpbench.session import load_suite

    tune()
    device = torch.device("cpu" if tiny else "cuda")
    overrides = ("scenario.size=32",) if tiny else ()
    _, suite = load_suite(SUITES / "skin.yaml", (), overrides, ("random",))
    scenario = suite.scenario
    plan = Plan.of(suite)
    planned = [group for recipes in plan.generations() for group in plan.cohorts(recipes)]
    images: dict[str, int] = {}
    for recipe in (recipe for group in planned for recipe in group):
        seen = sum(epochs * scenario.pool_sizes[pool] for pool, epochs in recipe.passes().items())
        images[recipe.arch] = images.get(recipe.arch, 0) + seen

    def largest(arch: str) -> list[Recipe]:
        """Return the largest cohort that trains networks of this architecture from scratch."""
        own = [group for group in planned if group[0].arch == arch and group[0].name == "train"]
        return max(own, key=len)

    hours, steps = 0.0, 1 if tiny else 10
    for arch in sorted(images, key=lambda arch: -images[arch]):
        recipes = largest(arch)[: 1 if tiny else None]
        batch = 2 if tiny else recipes[0].batch_size  # type: ignore[attr-defined]
        bench = Bench(scenario, device)
        models = [bench.new(recipe, arch) for recipe in recipes]
        pool = Pool(torch.rand(batch * steps, *scenario.input_shape),
                    torch.randint(7, (batch * steps,)))  # fmt: skip

        def train(count: int = steps, bench=bench, recipes=recipes, models=models, pool=pool,
                  batch=batch) -> None:  # type: ignore[no-untyped-def]  # fmt: skip
            part = Pool(*(t[: count * batch] for t in pool))
            fit(bench, recipes, models, part, epochs=1, lr=1e-4, batch_size=batch)

        train(min(2, steps))  # loads libraries
        each = timed(train, device) / (steps * batch * len(recipes))
        hours += (own := each * images[arch] / 3600)
        say(architecture=arch, members=len(recipes), batch=batch, seconds_per_image=each,
            images_of_zoo=images[arch], hours_of_zoo=own)  # fmt: skip
        del models, train
        if device.type == "cuda":
            torch.cuda.empty_cache()
    say(models=sum(map(len, planned)), hours_of_zoo=hours)


def step_metav(tiny: bool) -> None:
    """Print the seconds of MetaV's steps so far, of its construction and of its verification."""
    import torch
    from fpbench_metav import MetaV

    from fpbench import Case, Ensemble, Pool
    from fpbench.api.fingerprinter import Progress
    from fpbench.api.oracle import oracle_of
    from fpbench.builtin.scenarios.skin import Skin
    from fpbench.engine.environment import tune
    from fpbench.engine.plan import Plan
    from fpbench.session import load_suite

    class Noise(Skin):
        """Skin without its images."""

        def load(self) -> dict[str, Pool]:
            x = torch.rand(256, *self.input_shape)
            return {pool: Pool(x, torch.arange(256) % 7) for pool in self.pool_sizes}

    tune()
    torch.manual_seed(0)
    device = torch.device("cpu" if tiny else "cuda")
    _, suite = load_suite(SUITES / "skin.yaml", (), (), ("metav",))
    trial = Plan.of(suite).trials[0]
    scenario = Noise(size=32 if tiny else 224)
    positives = [r for r in trial.ensemble if r.descends_from(trial.target)]
    negatives = [r for r in trial.ensemble if not r.descends_from(trial.target)]
    if tiny:
        positives, negatives = positives[:2], negatives[:2]

    def new(arch: str) -> torch.nn.Module:
        return scenario.architectures[arch]().to(device).eval().requires_grad_(False)

    ensemble = Ensemble(
        [new(r.arch) for r in positives], [new(r.arch) for r in negatives],
        [r.name for r in positives], [r.name for r in negatives],
    )  # fmt: skip
    began = time.perf_counter()

    class Shown(Progress):
        """Prints how far construction is, a hundred steps at a time."""

        def __call__(self, loss: torch.Tensor | float) -> None:
            super().__call__(loss)
            if self._steps % 100 == 0:
                float(loss)  # waits for the GPU
                say(steps=self._steps, seconds=time.perf_counter() - began)

    method = MetaV(n_queries=4, steps=3) if tiny else MetaV(n_queries=100)
    case = Case(
        scenario=scenario, target=new(trial.target.arch), access=trial.access, device=device,
        rng=torch.Generator().manual_seed(0), ensemble=ensemble, progress=Shown(),
    )  # fmt: skip
    fingerprint = method.construct(case)  # ends with queries on the CPU, so the GPU has finished
    constructed = time.perf_counter()
    suspects = [*ensemble.positives, *ensemble.negatives]
    for model in suspects:
        oracle = oracle_of(model, trial.access, input_shape=scenario.input_shape,
                           input_range=scenario.input_range, device=device)  # fmt: skip
        method.verify(fingerprint, oracle)
    say(queries=method.n_queries, steps=method.steps, ensemble=len(suspects),
        construct_seconds=constructed - began,
        verify_seconds=time.perf_counter() - constructed, suspects=len(suspects),
        paper_construct_seconds=202, paper_verify_seconds=7.2)  # fmt: skip


# ── the steps, one after another ───────────────────────────────────────────────────


@dataclass
class Step:
    """A command, and the share of the whole time that it may take."""

    name: str
    command: list[str]
    share: float
    variables: dict[str, str] = field(default_factory=dict)


def steps(out: Path, tiny: bool) -> list[Step]:
    """Return all steps, in the order of their worth."""
    device = "cpu" if tiny else "cuda"

    def script(name: str, *words: str) -> list[str]:
        return [sys.executable, str(HERE / f"{name}.py"), *words]

    tests = [sys.executable, "-m", "pytest", "-v", "-o", "addopts=", "-p", "no:cacheprovider",
             "-m", "device", "tests/test_device.py"]  # fmt: skip
    if tiny:
        tests += ["-k", "an_ensemble"]
    own = ["--tiny"] if tiny else []
    # Names that a row of each script has, so that a tiny run has one.
    training, limit = (["--only", "digits mlp"], ["--only", "metav: digits"]) if tiny else ([], [])
    run = [sys.executable, "-m", "fpbench", "run", str(SUITES / "skin-32.yaml"), *skin_data(),
           "--store", str(out / "store"), "--runs", str(out / "runs"), "--no-tracking",
           "--device", device, "--executor", "inline"]  # fmt: skip
    found = [
        Step("tests", tests, 0.15, {"FPBENCH_TEST_DEVICE": device}),
        Step("training", script("training", "--device", device, *training), 0.15),
        Step("construction", script("construction", "--device", device), 0.08),
        Step("limit", script("limit", "--device", device, *limit), 0.1),
        Step("cohorts", script("gpu", "--step", "cohorts", *own), 0.17),
        Step("metav", script("gpu", "--step", "metav", *own), 0.2),
        Step("skin-32", run, 1.0),
    ]
    for step in found if tiny else ():  # those that have no tiny size are cut off early
        step.share = 0.02 if step.name in ("construction", "skin-32") else 1.0
    return found


def skin_data() -> list[str]:
    """Return the option that chooses the data set that is on this machine."""
    from fpbench.builtin.scenarios.derma import ARCHIVES

    found = [name for name, archive in ARCHIVES.items() if archive.found()]
    return ["-o", f"scenario.dataset={found[0]}"] if found else []


def finished_work(store: Path) -> Row:
    """Return how many models and trials are in a store."""
    return {
        "models_in_store": len([*store.glob("models/*/*/*/made.json")]),
        "trials_in_store": len([*store.glob("trials/*/*.json")]),
    }


def perform(
    step: Step, seconds: float, environment: dict[str, str], keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run a step for at most some seconds; `keep` gets its record after every row."""
    record: dict[str, Any] = {"name": step.name, "status": "running", "seconds": 0.0, "rows": []}
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603
        step.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**environment, **step.variables}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stderr
    said: list[str] = []
    is_late = threading.Event()

    def listen(stream: Iterator[str]) -> None:
        for line in stream:
            said.append(line.rstrip())
            print(f"  {line.rstrip()}", file=sys.stderr, flush=True)

    def end(number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    def cut_off() -> None:
        is_late.set()
        end(signal.SIGTERM)
        timers.append(timer(GRACE, lambda: end(signal.SIGKILL)))

    listener = threading.Thread(target=listen, args=(process.stderr,), daemon=True)
    listener.start()
    timers = [timer(seconds, cut_off)]
    try:
        for line in process.stdout:
            if line.strip():
                record["rows"].append(as_row(line.rstrip()))
                record["seconds"] = time.perf_counter() - began
                print(f"  {line.rstrip()}", file=sys.stderr, flush=True)
                keep(record)
        code = process.wait()
    finally:  # also of what the step started, and when this script is interrupted
        for each in timers:
            each.cancel()
        end(signal.SIGKILL)
    listener.join(timeout=GRACE)
    record["seconds"] = time.perf_counter() - began
    record["status"] = "cut off" if is_late.is_set() else "failed" if code else "finished"
    if record["status"] == "failed":
        record["reason"] = (said or [str(row) for row in record["rows"]] or [f"exit code {code}"])[
            -1
        ]
    elif is_late.is_set():
        record["reason"] = f"its {seconds:.0f} s were over"
    keep(record)
    return record


def timer(seconds: float, action: Callable[[], None]) -> threading.Timer:
    """Start and return a timer."""
    made = threading.Timer(seconds, action)
    made.daemon = True
    made.start()
    return made


def as_row(line: str) -> Row:
    """Return a line as the object that it is in JSON, or as it is."""
    with suppress(ValueError):
        if isinstance(row := json.loads(line), dict):
            return row
    return line


def describe_distributions(folder: Path) -> None:
    """Describe fpbench and its plugins in a folder of `sys.path`, as an installation would."""
    for file in (ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))):
        project = tomllib.loads(file.read_text())["project"]
        name, version = project["name"], project["version"]
        about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True, exist_ok=True)
        about.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        plugins = project["entry-points"]["fpbench"]
        lines = (f"{plugin} = {module}\n" for plugin, module in plugins.items())
        about.joinpath("entry_points.txt").write_text("[fpbench]\n" + "".join(lines))


def search_path(out: Path, packages: Path | None) -> list[str]:
    """Add this checkout's folders and the packages to `sys.path`, and return what was added."""
    described = out / "distributions"
    describe_distributions(described)
    added = [
        described,
        ROOT,
        *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml")),
    ]
    if packages:
        added.append(packages.resolve())
    sys.path[:0] = map(str, added)
    return [str(path) for path in added]


def require_packages() -> None:
    """Stop unless every package that the steps need is there, and those that they need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {distribution_name(text) for text in project["dependencies"]} - UNUSED
    seen: set[str] = set()
    missing = []
    while wanted:
        seen.add(name := min(wanted))
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
        else:
            # Those with a condition are for other platforms, other Pythons or extras.
            wanted |= {distribution_name(text) for text in needs if ";" not in text}
        wanted -= seen
    if missing:
        stop(f"expected the packages {' '.join(missing)}, found none; where there is a network, "
             f"`pip install --no-deps --target PACKAGES {' '.join(missing)}` for Python "
             f"{platform.python_version()}, then give --packages PACKAGES")  # fmt: skip


def distribution_name(requirement: str) -> str:
    """Return the name at the beginning of a requirement such as `rich>=13.9,<16`."""
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower()


def require_gpu() -> None:
    """Stop unless torch finds a GPU."""
    import torch

    if not torch.cuda.is_available():
        stop("expected a GPU, torch finds none; give --tiny to try the script on the CPU")


def describe_machine(tiny: bool) -> dict[str, Any]:
    import torch

    return {
        "device": "cpu" if tiny else torch.cuda.get_device_name(),
        "tiny": tiny,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }


def main() -> int:
    began = time.perf_counter()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder of gpu.json and of the store")
    parser.add_argument("--seconds", type=float, default=480, help="for all steps; default: 480")
    parser.add_argument("--packages", type=Path, help="folder of packages that are not installed")
    parser.add_argument("--tiny", action="store_true", help="on the CPU, at tiny sizes")
    parser.add_argument("--step", choices=("cohorts", "metav"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        {"cohorts": step_cohorts, "metav": step_metav}[given.step](given.tiny)
        return 0
    if given.out is None:
        parser.error("expected --out FOLDER")
    if given.packages and not given.packages.is_dir():
        stop(f"--packages {given.packages}: expected a folder, found none")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    path = search_path(out, given.packages)
    require_packages()
    if not given.tiny:
        require_gpu()

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}
    if data := os.environ.get("FPBENCH_DATA"):  # steps have another working folder
        environment["FPBENCH_DATA"] = str(Path(data).resolve())
    found: dict[str, Any] = {**describe_machine(given.tiny), "steps": []}
    file = out / "gpu.json"

    def keep(records: list[dict[str, Any]]) -> None:
        found["steps"], found["seconds"] = records, time.perf_counter() - began
        unfinished = file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(found, indent=1))
        unfinished.replace(file)

    records: list[dict[str, Any]] = []
    for step in steps(out, given.tiny):
        left = given.seconds - (time.perf_counter() - began) - RESERVED
        if left <= 0:
            records.append({"name": step.name, "status": "not begun", "rows": [],
                            "reason": f"the {given.seconds:.0f} s were over"})  # fmt: skip
            continue
        print(f"{step.name}:", file=sys.stderr, flush=True)
        seconds = min(left, step.share * given.seconds)
        record = perform(step, seconds, environment, lambda record: keep([*records, record]))
        records.append(record)
        if step.name == "skin-32":
            record["rows"].append(finished_work(out / "store"))
    keep(records)
    print(file.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
