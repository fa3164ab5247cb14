"""Hooks are called as pluggy documents it, and a plugin that raises stops only itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from documents import ROOT, blocks

from conftest import TINY, UNTRAINED, Desk
from fpbench.cli import main

HEAD = """\
from pathlib import Path
import fpbench
from fpbench import hookimpl

def say(word):
    with Path({log!r}).open("a") as file:
        file.write(word + "\\n")
"""

EXECUTOR = """
class Mine:
    def __init__(self, device):
        self.device = device

    def map(self, job, items, limit=None):
        for item in items:
            yield job(item, device=self.device)

    def close(self):
        say("closed")
"""


class Plugins:
    """A folder of plugin files, and the words that their hooks said in a run."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.log = desk.folder / "log"
        self.files: tuple[Path, ...] = ()
        desk.write(UNTRAINED)

    def write(self, name: str, text: str) -> Path:
        file = self.desk.folder / f"{name}.py"
        file.write_text(HEAD.format(log=str(self.log)) + text)
        self.files = (*self.files, file)
        return file

    def said(self, *args: object) -> list[str]:
        """Run the suite and return what was said."""
        self.desk.run(*args, plugins=self.files)
        return self.log.read_text().split("\n")[:-1]


@pytest.fixture
def plugins(desk: Desk) -> Plugins:
    return Plugins(desk)


def test_announcements_come_in_pluggys_order_within_wrappers(plugins: Plugins) -> None:
    plugins.write("late", "@hookimpl(trylast=True)\ndef fpbench_attempted(): say('late')\n")
    plugins.write("early", "@hookimpl(tryfirst=True)\ndef fpbench_attempted(): say('early')\n")
    plugins.write(
        "around",
        "@hookimpl(wrapper=True)\ndef fpbench_attempted(result):\n"
        "    say(f'{result.trial.label} begins')\n    answer = yield\n    say('ends')\n"
        "    return answer\n",
    )
    # The last registered is called first, as far as it does not ask for another place.
    plugins.write("plain", "@hookimpl\ndef fpbench_attempted(): say('plain')\n")
    plugins.write("newer", "@hookimpl\ndef fpbench_attempted(): say('newer')\n")
    assert plugins.said() == ["grid begins", "early", "newer", "plain", "late", "ends"]


@pytest.mark.parametrize("arguments", ["", "devices", "setup, name", "limit, workers"])
def test_a_hook_gets_the_arguments_that_it_names(plugins: Plugins, arguments: str) -> None:
    plugins.write(
        "mine",
        f"{EXECUTOR}\n@hookimpl\ndef fpbench_executor({arguments}):\n"
        "    say(' '.join(locals()))\n    return Mine('cpu')\n",
    )
    assert plugins.said() == [" ".join(arguments.split(", ")), "closed"]


def test_the_first_executor_that_is_not_none_wins(plugins: Plugins) -> None:
    def executor(mark: str, say: str, answer: str) -> str:
        return (
            f"{EXECUTOR}\n@hookimpl{mark}\ndef fpbench_executor(name):\n"
            f"    say('{say}')\n    return {answer}\n"
        )

    plugins.write("unasked", executor("(trylast=True)", "unasked", "Mine('cpu')"))
    plugins.write("chosen", executor("", "chosen", "Mine('cpu') if name == 'mine' else None"))
    plugins.write("another", executor("(tryfirst=True)", "another", "None"))
    assert plugins.said("--executor", "mine") == ["another", "chosen", "closed"]


def test_a_wrapper_may_exchange_the_executor(plugins: Plugins) -> None:
    plugins.write(
        "exchange",
        f"{EXECUTOR}\n@hookimpl(wrapper=True)\ndef fpbench_executor():\n"
        "    inline = yield\n    say(type(inline).__name__)\n    return Mine(inline.device)\n",
    )
    assert plugins.said("--executor", "inline") == ["Inline", "closed"]


def test_a_wrapper_may_change_what_is_offered(plugins: Plugins) -> None:
    file = plugins.write(
        "fewer",
        "@hookimpl(wrapper=True)\ndef fpbench_fingerprinters():\n"
        "    offered = yield\n"
        "    return [[cls for cls in classes if cls.name != 'grid'] for classes in offered]\n",
    )
    result = plugins.desk("plan", plugins=(file,))
    assert result.exit_code == 2
    assert "no method 'grid'" in result.stderr


def test_an_offer_by_a_wrapper_is_the_wrappers(plugins: Plugins) -> None:
    plugins.write(
        "more",
        "from toys import Grid\nclass More(Grid):\n    name = 'more'\n"
        "@hookimpl(wrapper=True)\ndef fpbench_fingerprinters():\n"
        "    return [*(yield), [More]]\n",
    )
    result = CliRunner().invoke(main, ["describe", "more", "--json", "-p", str(plugins.files[0])])
    assert f'"source": "{plugins.files[0]}"' in result.stdout


BEFORE = "@hookimpl(wrapper=True)\ndef {hook}():\n    {act}\n    return (yield)\n"
AFTER = "@hookimpl(wrapper=True)\ndef {hook}():\n    yield\n    {act}\n"


@pytest.mark.parametrize(
    "text",
    ["@hookimpl(tryfirst=True)\ndef {hook}(): {act}\n", BEFORE, AFTER],
    ids=["call", "wrapper before", "wrapper after"],
)
@pytest.mark.parametrize("act", ["1 / 0", "raise SystemExit"])
def test_a_reporter_that_raises_is_named_and_the_others_hear(
    plugins: Plugins, caplog: pytest.LogCaptureFixture, text: str, act: str
) -> None:
    file = plugins.write("bad", text.format(hook="fpbench_attempted", act=act))
    plugins.write("good", "@hookimpl\ndef fpbench_attempted(): say('heard')\n")
    assert plugins.said() == ["heard"]
    assert f"reporter {file} failed; the run goes on" in caplog.text


@pytest.mark.parametrize("text", [BEFORE, AFTER], ids=["before", "after"])
def test_a_wrapper_that_raises_takes_no_offers_with_it(plugins: Plugins, text: str) -> None:
    file = plugins.write("bad", text.format(hook="fpbench_recipes", act="1 / 0"))
    result = plugins.desk("plan", plugins=(file,))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: plugin {file} did not load: ZeroDivisionErr")


@pytest.mark.parametrize("text", [BEFORE, AFTER], ids=["before", "after"])
def test_an_executor_plugin_that_raises_is_named_and_stops_nobody(
    plugins: Plugins, text: str
) -> None:
    file = plugins.write("bad", text.format(hook="fpbench_executor", act="1 / 0"))
    plugins.write("mine", f"{EXECUTOR}\n@hookimpl\ndef fpbench_executor(): return Mine('cpu')\n")
    assert plugins.said() == ["closed"]
    result = plugins.desk("run", "--executor", "nobodys", plugins=(file,))
    assert result.exit_code == 2
    assert f"plugin {file} failed in fpbench_executor: ZeroDivision" in result.stderr


def test_a_wrapper_of_pluggys_old_style_is_refused_in_a_sentence(plugins: Plugins) -> None:
    file = plugins.write("old", "@hookimpl(hookwrapper=True)\ndef fpbench_planned():\n    yield\n")
    result = plugins.desk("plan", plugins=(file,))
    assert result.exit_code == 2
    assert "expected hookimpl(wrapper=True) at fpbench_planned" in result.stderr


# ── executors of others ───────────────────────────────────────────────────────────────────

THIRD_PARTY = f"""{EXECUTOR}
@hookimpl
def fpbench_executor_names():
    return ["mine"]

@hookimpl
def fpbench_executor(name, devices, workers, limit):
    if name != "mine":
        return None
    if workers:
        raise fpbench.SuiteError("mine has one worker; leave --workers out", "--workers")
    say(f"made for {{devices[0]}}, limit {{limit}}")
    return Mine(devices[0])
"""


def test_an_executor_of_another_runs_a_suite(plugins: Plugins) -> None:
    plugins.write("mine", THIRD_PARTY)
    plugins.desk.write(TINY)
    data = plugins.desk.run("--executor", "mine", "--limit", 60, plugins=plugins.files)
    assert [trial["error"] for trial in data["trials"]] == [None] * 6
    assert plugins.log.read_text() == "made for cpu, limit 60\nclosed\n"


def test_the_executor_of_the_hooks_page_works(desk: Desk) -> None:
    desk.write(UNTRAINED)
    (code,) = (text for language, text in blocks(ROOT / "docs/hooks.md") if language == "python")
    (desk.folder / "mine.py").write_text(code)
    desk.run("--executor", "mine", plugins=(desk.folder / "mine.py",))


def test_an_executor_of_another_may_refuse_options(plugins: Plugins) -> None:
    plugins.write("mine", THIRD_PARTY)
    result = plugins.desk("run", "--executor", "mine", "--workers", 2, plugins=plugins.files)
    assert result.exit_code == 2
    assert result.stderr == "error: --workers: mine has one worker; leave --workers out\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [("nobodys", "expected one of inline, local, mine, ray"), ("min", "did you mean mine?")],
)
def test_a_name_that_no_executor_has_is_told_with_those_that_plugins_have(
    plugins: Plugins, name: str, said: str
) -> None:
    plugins.write("mine", THIRD_PARTY)
    result = plugins.desk("run", "--executor", name, plugins=plugins.files)
    assert result.exit_code == 2
    assert result.stderr == f"error: --executor: no executor {name!r}; {said}\n"
