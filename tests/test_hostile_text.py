"""Suites nobody would write, and names that want to be more than names."""

from __future__ import annotations

import io
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from finished_runs import finished_run
from fuzz_suite import Judge, mutated, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import HERE, UNTRAINED, Desk
from fpbench import read
from fpbench.api.errors import printable
from fpbench.cli import main
from fpbench.reporting.mlflow_entries import make_entries
from fpbench.reporting.screen import Screen
from fpbench.reporting.tables import show_results

# ── suites ────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    judge = Judge(tmp_path_factory.mktemp("fuzz"))
    for text in set(seeds()):
        assert judge.fault(text.encode()) is None
    return judge


def test_a_suite_that_is_ours_with_something_changed_is_accepted_or_refused_with_its_place(
    judge: Judge,
) -> None:
    """The same as tests/fuzz_suite.py, which tries many more."""
    dice, small = random.Random(1), seeds()[0]  # noqa: S311
    for _ in range(250):
        raw = mutated(small, dice).encode(errors="surrogatepass")
        fault = judge.fault(raw)
        assert fault is None or re.fullmatch(r"[\d.]+ s", fault), (fault, raw)
    assert judge.accepted > len(set(seeds()))
    assert judge.refused > 100


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode(errors="ignore")))
def test_anything_at_all_is_refused_with_its_place(judge: Judge, raw: bytes) -> None:
    fault = judge.fault(raw)
    assert fault is None or re.fullmatch(r"[\d.]+ s", fault), fault


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["train", "digits", "mlp", "random", "1/3", "each", "range"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["recipe", "each", "copies", "model", "range", "lr", "x"]),
                      inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = ["name", "scenario", "api", "seed", "repeats", "recipes", "target", "zoo", "methods", "base"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KEYS), VALUES)
def test_any_value_of_any_key_is_accepted_or_refused_with_its_place(
    judge: Judge, key: str, value: Any
) -> None:
    lines = [line for line in seeds()[0].splitlines() if not line.startswith(f"{key}:")]
    if key in ("zoo", "methods"):
        lines = [line for line in lines if not line.startswith(" ")] + ["methods: [{method: akh}]"]
    text = "\n".join([f"{key}: {json.dumps(value)}", *lines])
    fault = judge.fault(text.encode())
    assert fault is None or re.fullmatch(r"[\d.]+ s", fault), (fault, text)


# ── names ─────────────────────────────────────────────────────────────────────────

HOSTILE = (
    "\x1b[2J\x1b]0;mine\x07",  # clears the screen, renames the window
    "\u202egnp.exe",  # reads backwards
    "[red]alarm[/red] [link=file:///etc]x[/link] :skull: \\[",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "</script><b>bold</b> &lt; {{7*7}} %{y}",
    "a\rb\x08c\x00d\x9be\u2028f\ufeffg",
    "'; DROP TABLE runs; --",
    '=HYPERLINK("http://x")|cell\t\n# head',
)


def dangerous(text: str) -> list[str]:
    return [c for c in text if not c.isprintable() and c not in "\n\t"]


@given(st.text())
def test_printable_text_is_printable_and_what_was_is_as_it_was(text: str) -> None:
    shown = printable(text)
    assert not dangerous(shown)
    assert printable(shown) == shown
    assert "\n" not in printable(text, also="")
    if text.isprintable():
        assert shown == text
    shown.encode()  # not even half a surrogate pair is left


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose results.json has hostile names wherever there are names."""
    every = " ".join(HOSTILE)
    folder = finished_run(
        tmp_path_factory.mktemp("runs"), repeats=1,
        errors={"akh": f"Traceback\n{every}"}, failures={"ab" * 32: every},
    )  # fmt: skip
    file = folder / "results.json"
    data = json.loads(file.read_text())
    for old, new in (("random (again)", every), ("finetune", HOSTILE[3]), ("accuracy", HOSTILE[4])):
        text = json.dumps(data).replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1])
        data = json.loads(text)
    data["methods"][2]["refusal"] = every
    data["scenario"]["name"] = data["scenario"]["data"] = every
    file.write_text(json.dumps(data))
    (folder / "SHA256SUMS").unlink()
    return folder


def test_the_terminal_prints_hostile_names_and_does_nothing_else(hostile: Path) -> None:
    out = io.StringIO()
    show_results(read(hostile).record, Screen(file=out, force_terminal=False, width=1000))
    text = out.getvalue()
    assert not dangerous(text)
    for shown in ("\\x1b[2J", "\\u202egnp.exe", "[red]alarm[/red]", ":skull:", "\\x9be"):
        assert shown in text


class Tags(HTMLParser):
    """What is an element, and what is text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_shows_hostile_names_as_text(hostile: Path) -> None:
    page = Path(CliRunner().invoke(main, ["report", str(hostile)]).output.strip())
    html = page.read_text(encoding="utf-8")
    head, rest = html.split("<script>", 1)
    tags = Tags()
    tags.feed(head)
    assert not tags.tags & {"img", "script", "b"}
    assert "<script>alert(1)</script>" in "".join(tags.words)
    assert not dangerous(head)
    # The charts' names come as JSON, and Plotly would read tags in them.
    charts = re.search(r'id="charts">(.*?)</script>', rest, re.DOTALL)
    assert charts
    names = json.dumps(json.loads(charts[1]))
    assert "&lt;img" in names
    assert not re.search(r"<(?!br>|extra>|/extra>)", names)


@pytest.mark.parametrize("form", ["--md", "--latex", "--csv"])
def test_tables_have_a_line_per_method_whatever_its_name(hostile: Path, form: str) -> None:
    out = CliRunner().invoke(main, ["report", str(hostile), form]).output
    assert not dangerous(out)


def test_mlflow_is_sent_printable_text(hostile: Path) -> None:
    def texts(value: Any) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, dict):
            return [t for pair in value.items() for part in pair for t in texts(part)]
        return [t for v in value for t in texts(v)] if isinstance(value, list | tuple) else []

    for entry in make_entries(read(hostile).record, hostile):
        sent = [entry.name, entry.tags, entry.params, entry.tables, entry.texts, entry.datasets]
        assert not dangerous("".join(texts(sent)))


PLUGIN = """\
from dataclasses import dataclass
from toys import Blobs, Drawn, Grid
import fpbench

EVIL = {evil!r}

@dataclass(frozen=True)
class Scene(Blobs):
    name = "scene"
    summary = EVIL

    def utility(self, output, truth):
        return {{EVIL: 0.5}}

@dataclass(frozen=True, kw_only=True)
class Named(Drawn):
    name = "named"
    kind = EVIL

@dataclass(frozen=True, kw_only=True)
class Coward(Grid):
    name = "coward"

    def declines(self, scenario):
        return EVIL

@dataclass(frozen=True, kw_only=True)
class Liar(Grid):
    name = "liar"

    def construct(self, case):
        raise fpbench.TrialError(EVIL)

@fpbench.hookimpl
def fpbench_scenarios(): return [Scene]

@fpbench.hookimpl
def fpbench_recipes(): return [Named]

@fpbench.hookimpl
def fpbench_fingerprinters(): return [Coward, Liar]
"""


@pytest.mark.usefixtures("thorough")
def test_a_whole_run_with_hostile_words_of_plugins(desk: Desk) -> None:
    plugin = desk.folder / "evil.py"
    plugin.write_text(PLUGIN.format(evil=" ".join(HOSTILE)))
    text = UNTRAINED.replace("blobs", "scene").replace(
        "{recipe: drawn, copies", "{recipe: named, copies"
    )
    desk.write(text + '  - {method: grid, label: "[red]a[/red] <b>"}\n'
               "  - {method: coward}\n  - {method: liar}\n")  # fmt: skip
    for command in ("plan", "run"):
        done = desk(command, plugins=(plugin,))
        assert done.exit_code == (command == "run"), done.output
        assert not dangerous(done.output)
    assert "[red]a[/red] <b>" in done.stdout
    (folder,) = (desk.folder / "runs" / "untrained").iterdir()
    for file in folder.rglob("*"):
        if file.suffix in (".svg", ".txt"):
            file.read_text(encoding="utf-8")
    assert "<b>" not in (folder / "figures" / "curves.svg").read_text()


@pytest.mark.parametrize("name", ["../up", "a b", "", "a\x1b", "-rf", "x" * 65])
def test_a_plugins_name_is_a_word(desk: Desk, name: str) -> None:
    plugin = desk.folder / "named.py"
    text = (HERE / "toys.py").read_text().replace('name = "grid"', f"name = {name!r}")
    plugin.write_text(text)
    done = CliRunner().invoke(main, ["list", "-p", str(plugin)])
    assert done.exit_code == 2
    assert "expected the name of Grid to be of letters, digits" in done.stderr
