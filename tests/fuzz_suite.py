"""Suites nobody would write: each must be accepted, or refused with its place, in under a second.

    python tests/fuzz_suite.py 100000              mutations of the suites that we ship
    python tests/fuzz_suite.py 100000 --atheris    guided by coverage (pip install atheris)

Inputs that break the promise are written to fuzz-<hash>.yaml. Seconds are CPU seconds: how busy the
machine is does not count.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

if GUIDED := "--atheris" in sys.argv:
    import atheris

    # Before anybody else imports it: where the fuzzer has been is counted in these.
    with atheris.instrument_imports(include=["fpbench", "ruamel"]):
        import fpbench.engine.suite  # noqa: F401

from fpbench import PluginError, SuiteError
from fpbench.engine.plan import Plan
from fpbench.engine.registry import Registry
from fpbench.engine.suite import Suite

HERE = Path(__file__).parent
SECONDS = 1.0

TOKENS = [
    *"{}[],:-?|>&*!%@`#'\"\\\n\t\r\0~ ",
    "- ",
    ": ",
    "? ",
    "---\n",
    "...\n",
    "<<: ",
    "&a ",
    "*a",
    "!!python/object:os.system ",
    "!!binary ",
    "%YAML 1.1\n---\n",
    "%TAG ! x\n",
    "\ufeff",
    "\u2028",
    "\u202e",
    "\x1b[31m",
    "\x85",
    '"\\ud800"',
    '"\\0"',
    '"\\e[2J"',
    "null",
    "true",
    "no",
    "0x1F",
    "0o7",
    "1e999",
    "-1e-999",
    ".nan",
    "-.inf",
    "1_000",
    "12:30",
    "2001-99-99",
    "2001-01-01T00:00:00Z",
    "-0",
    "9" * 400,
    "9" * 5000,
    "1/0",
    "1/3",
    "99999999999/7",
    "1/" + "9" * 5000,
    "{range: [0, 1, 0]}",
    "{range: [1, 1e308, 1e-308]}",
    "{range: [.nan, 1, 1]}",
    "{range: []}",
    "[" * 60,
    "{a: " * 60,
    "each: {seed: {range: [1, 9999, 1]}}",
    "each: []",
    "each: {}",
    "copies: 999",
    "copies: -1",
    "copies: true",
    "label: ",
    "base: /dev/zero\n",
    'base: "\\0"\n',
    "base: .\n",
    "ensemble: 3",
    "seed: 1\n  ",
    "seeds: [1, 0]\n  ",
    "seeds: [[]]",
    "seeds: []\n  ",
    "scenario: {}",
    "methods: []",
    "name: x\n",
    "x" * 3000,
    "\U0001f600",
    "é",
]


def seeds() -> list[str]:
    """The suites that there are, and one that is small."""
    found = [f.read_text() for f in sorted((HERE.parent / "suites").glob("*.yaml"))]
    small = (
        "name: s\nscenario: digits\napi: probs\nrepeats: 1\ntarget: {recipe: train, model: mlp}\n"
        "zoo:\n  seeds: [0, 2]\n"
        "  positives:\n    - {recipe: finetune, layers: all, copies: 2}\n  negatives:\n"
        "    - {recipe: train, model: cnn, each: {lr: [0.1, 1/8]}, copies: 2}\n"
        "methods:\n  - {method: random, each: {n_queries: {range: [5, 10, 5]}}}\n"
    )
    # Short ones are read sooner, so most of the work is done on those.
    return [small] * 3 * len(found) + found


def mutated(text: str, dice: random.Random) -> str:
    """A text with a few things cut out, doubled, moved or put in."""
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        i = dice.randrange(len(text) + 1)
        j = min(len(text), i + dice.choice((1, 1, 2, 5, 20)))
        act = dice.randrange(10)
        if act == 0:
            text = text[:i] + text[j:]
        elif act == 1:
            text = text[:j] + text[i:]
        elif act == 2:
            k = dice.randrange(len(text) + 1)
            text = text[:k] + text[i:j] + text[k:]
        elif act == 3:
            letter = chr(dice.randrange(dice.choice((128, 55_000))))
            text = text[:i] + letter + text[j:]
        elif act == 4:
            text = text[:i] + dice.choice(TOKENS) + text[i:]
        elif spots := list(re.finditer(r"[\w./-]+", text)):
            # A whole word for another one: what is read then is still a suite, more often.
            at, word = dice.choice(spots).span(), dice.choice(spots)[0]
            new = dice.choice(TOKENS) if act < 7 else word
            text = text[: at[0]] + new + text[at[1] :]
    return text


class Judge:
    """Reads suites and says what is wrong with how that went."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "suite.yaml"
        self.registry = Registry.load()
        # Imported once, by whoever first names one of its networks: seconds, but no input's.
        import_module("torchvision")
        self.accepted = self.refused = 0
        self.slowest = 0.0

    def fault(self, raw: bytes) -> str | None:
        """None if the promise was kept."""
        self.path.write_bytes(raw)
        began = time.process_time()
        try:
            suite = Suite.load(self.path, self.registry)
            took = time.process_time() - began
            if suite.repeats < 10 and len(suite.places) < 200:
                Plan.of(suite)
            self.accepted += 1
        except (SuiteError, PluginError) as error:
            took = time.process_time() - began
            self.refused += 1
            if not re.match(rf"({re.escape(str(self.path))}|/.*):\d+:\d+: |.*at most 100,000 bytes",
                            str(error)):  # fmt: skip
                return f"no place: {error}"
            if len(str(error)) > 1000:
                return "an endless sentence"
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        self.slowest = max(self.slowest, took)
        return f"{took:.1f} s" if took > SECONDS else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--atheris", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    args = parser.parse_args()
    faults: dict[str, int] = {}

    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(Path(folder))
        for text in set(seeds()):  # what is imported, and measured, on the first call
            judge.fault(text.encode())
        judge.accepted = judge.refused = 0
        judge.slowest = 0.0

        def one(raw: bytes) -> None:
            if fault := judge.fault(raw):
                kind = re.sub(r"\d+", "0", fault)[:60]
                faults[kind] = faults.get(kind, 0) + 1
                if faults[kind] == 1:
                    name = f"fuzz-{hashlib.sha256(raw).hexdigest()[:8]}.yaml"
                    Path(name).write_bytes(raw)
                    print(f"{name}: {fault[:300]!r}", flush=True)

        if GUIDED:
            guided(one, args.count, Path(folder))
        else:
            dice, corpus = random.Random(args.seed), seeds()  # noqa: S311
            until = time.monotonic() + 60 * args.minutes
            done = 0
            while done < args.count and time.monotonic() < until:
                text = mutated(dice.choice(corpus), dice)
                one(text.encode("utf-8", errors="surrogatepass"))
                done += 1
        print(f"{judge.accepted} accepted, {judge.refused} refused, {sum(faults.values())} faults; "
              f"the slowest took {judge.slowest:.2f} s")  # fmt: skip
    return bool(faults)


def guided(one: object, count: int, folder: Path) -> None:
    """libFuzzer, fed with the seeds; it looks for inputs that reach lines not reached before."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, text in enumerate(sorted(set(seeds()))):
        (corpus / str(i)).write_text(text)
    words = folder / "words"
    escaped = (t.encode("unicode_escape").decode().replace('"', '\\"') for t in TOKENS)
    words.write_text("".join(f'"{t}"\n' for t in escaped if "\\" not in t and len(t) < 60))
    # libFuzzer ends the process that it runs in.
    if (child := os.fork()) == 0:
        atheris.Setup(
            [sys.argv[0], f"-runs={count}", f"-dict={words}", "-max_len=2000", str(corpus)], one
        )
        atheris.Fuzz()
    os.waitpid(child, 0)


if __name__ == "__main__":
    sys.exit(main())
