"""Release a zoo: write its suite, the table of its model files, a card and checksums.

For the archive zoo.tar, these files stand beside it:

zoo.suite.yaml   the suite; models from files are rows of a table, with the sha256 of each file
zoo.models.csv   this table, if there are such models
zoo.card.md      data, models, recipes, licence, and how to use the zoo
zoo.sha256       the checksums of all of them, for `sha256sum -c`
"""

from __future__ import annotations

import copy
import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from ruamel.yaml import YAML

from ..api.errors import InputError
from ..api.fields import fields_as_json
from ..api.recipe import Recipe
from ..store.files import sha256, sha256_of, write
from ..store.store import Store
from .plan import Plan
from .suite import Suite
from .zoo_files import COLUMNS, LABELS

Entry = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """The files that describe an archive of a suite's zoo.

    made: the made.json of each model, by its digest.
    """

    suite: Suite
    archive: Path
    licence: str | None
    made: dict[str, Entry]

    @classmethod
    def of(cls, suite: Suite, store: Store, archive: Path, licence: str | None) -> Release:
        """Prepare the release of a suite's zoo. Raises InputError if the store lacks models."""
        recipes = [r for generation in Plan.of(suite).generations() for r in generation]
        made = {r.digest: store.made(r, suite.scenario) for r in recipes}
        if missing := [r for r in recipes if made[r.digest] is None]:
            raise InputError(
                f"expected all {len(recipes)} models of {suite.name} in {store.root}, found "
                f"{len(recipes) - len(missing)}; {missing[0]} is missing: run the suite first"
            )
        return cls(suite, archive, licence, {d: found for d, found in made.items() if found})

    def write(self, trials: int) -> list[Path]:
        """Write the files, and return their paths.

        trials: the number of trials in the archive.
        """
        tables, suite = self._suite_and_tables()
        contents = {**tables, self._path("suite.yaml"): suite}
        contents[self._path("card.md")] = self._card(trials, [*contents])
        sums = {self.archive: sha256_of(self.archive)}
        sums |= {path: sha256(text.encode()) for path, text in contents.items()}
        lines = "".join(f"{checksum}  {path.name}\n" for path, checksum in sums.items())
        contents[self._path("sha256")] = lines
        for path, text in contents.items():
            write(path, text.encode())
        return [*contents]

    def _path(self, suffix: str) -> Path:
        return self.archive.with_name(f"{self.archive.name.removesuffix('.tar')}.{suffix}")

    # ── the suite ─────────────────────────────────────────────────────────────────

    def _suite_and_tables(self) -> tuple[dict[Path, str], str]:
        """Return the texts of the tables by path, and that of the suite.

        A run of entries that are models from files becomes one entry with a table, so that the
        order of the suspects, which the split depends on, is the same.
        """
        files = {
            os.path.abspath(recipe.file): recipe.source_sha256  # type: ignore[attr-defined]
            for zoo in self.suite.zoos
            for recipe in zoo.models
            if recipe.source_sha256 and isinstance(getattr(recipe, "file", None), str)
        }
        if not files:
            return {}, self.suite.source.text
        folder = os.path.commonpath([os.path.dirname(file) for file in files])
        data = copy.deepcopy(self.suite.source.data)
        rows: dict[Path, list[Entry]] = {}

        def is_row(entry: Entry) -> bool:
            file = os.path.abspath(str(entry.get("file")))
            return file in files and not {*entry} & {"each", "copies", "seed"}

        def as_row(entry: Entry, side: str) -> Entry:
            others = {key: key for key in entry if key not in ("recipe", *COLUMNS.values())}
            row = {column: entry.get(key, "") for column, key in (COLUMNS | others).items()}
            file = os.path.abspath(entry["file"])
            if row["parent"] not in ("", "target"):
                row["parent"] = os.path.relpath(row["parent"], folder)
            return {**row, "file": os.path.relpath(file, folder), "label": LABELS[side],
                    "sha256": files[file]}  # fmt: skip

        def with_tables(entries: Sequence[Entry], side: str) -> Iterator[Entry]:
            number = 0
            for in_table, run in groupby(entries, key=is_row):
                if not in_table:
                    yield from run
                    continue
                number += 1
                path = self._path(f"models{f'-{number}' if number > 1 else ''}.csv")
                members = [*run]
                rows.setdefault(path, []).extend(as_row(entry, side) for entry in members)
                yield {"recipe": members[0]["recipe"], "table": path.name}

        (data["target"],) = with_tables([data["target"]], "target")
        for side in ("positives", "negatives"):
            data["zoo"][side] = [*with_tables(data["zoo"][side], side)]
        text = io.StringIO()
        YAML().dump(data, text)
        return {path: _as_csv(table) for path, table in rows.items()}, text.getvalue()

    # ── the card ──────────────────────────────────────────────────────────────────

    def _card(self, trials: int, others: Sequence[Path]) -> str:
        suite, scenario = self.suite, self.suite.scenario
        seeds = [str(zoo.seed) for zoo in suite.zoos]
        zoos = f"in {len(seeds)} zoos (seeds {', '.join(seeds)})" if seeds[1:] else "in one zoo"
        made = [self.made[r.digest] for zoo in suite.zoos for r in zoo.models]
        versions = sorted({f"{k} {v}" for m in made for k, v in m.get("versions", {}).items()})
        fields = ", ".join(f"{k} {v}" for k, v in fields_as_json(scenario).items())
        names = [self.archive.name, *(path.name for path in others), self._path("card.md").name]
        needed = self._needed()
        return "\n".join([
            f"# {suite.name}: a zoo of models to compare fingerprinting methods on",
            "",
            f"Licence of the models: {self.licence or 'not stated; ask before you share them'}.",
            "",
            "## Data",
            "",
            f"Scenario `{scenario.name}`, version {scenario.version}"
            f"{f' ({fields})' if fields else ''}: {scenario.summary or 'no description'}.",
            "",
            "## Models",
            "",
            f"{len(made)} models, {zoos}. Utility is on "
            "the scenario's test pool: the mean, and the smallest and largest.",
            "",
            *self._table(),
            "",
            "## Recipes",
            "",
            "One model of each kind as an example. `recipe.json` in the archive has all fields of "
            "every model.",
            "",
            *(f"- {_plain(kind)}: `{members[0]}`" for (_, kind), members in self._kinds()),
            "",
            f"Made with {', '.join(versions) or 'unknown versions'}.",
            "",
            "## Use",
            "",
            f"Files: {', '.join(f'`{name}`' for name in names)}.",
            "",
            "```console",
            f"sha256sum -c {self._path('sha256').name}",
            f"fpbench store import {self.archive.name}",
            f"fpbench run {self._path('suite.yaml').name}",
            "```",
            "",
            f"The run makes no model: all are in the archive, with {trials} trials. "
            + (f"It also needs {', '.join(f'`{n}`' for n in needed)}. " if needed else "")
            + "Checksums show that nothing has changed since the export. They do not show who "
            "trained a model.",
            "",
        ])  # fmt: skip

    def _needed(self) -> list[str]:
        """Return the Python files that the suite needs and that the release does not have."""
        archs = {recipe.arch for zoo in self.suite.zoos for recipe in zoo.models}
        files = {part for arch in archs for part in arch.split(":") if part.endswith(".py")}
        return [*self.suite.source.data.get("plugins", []), *sorted(files)]

    def _kinds(self) -> list[tuple[tuple[str, str], list[Recipe]]]:
        """Return the models of each side and kind, in the order of the suite."""
        kinds: dict[tuple[str, str], list[Recipe]] = {}
        for zoo in self.suite.zoos:
            kinds.setdefault(("target", "target"), []).append(zoo.target)
            for side, recipes in (("positive", zoo.positives), ("negative", zoo.negatives)):
                for recipe in recipes:
                    kinds.setdefault((side, recipe.kind), []).append(recipe)
        return [*kinds.items()]

    def _table(self) -> Iterator[str]:
        """Yield the lines of a table of the kinds of models."""
        measures = list(self.made[self.suite.zoos[0].target.digest]["utility"])
        head = ["label", "kind", "models", "architectures", *measures]
        yield _line(head)
        yield _line(["---"] * len(head))
        for (side, kind), members in self._kinds():
            utilities = [self.made[recipe.digest]["utility"] for recipe in members]
            cells = [side, kind, str(len(members)), ", ".join(sorted({r.arch for r in members}))]
            for measure in measures:
                values = [u[measure] for u in utilities if measure in u]
                cells.append(
                    f"{fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
                    if values
                    else ""
                )
            yield _line(cells)


def _as_csv(rows: Sequence[Entry]) -> str:
    """Return the text of a table, without columns that are empty."""
    known = dict.fromkeys(column for row in rows for column in row)
    columns = [column for column in known if any(row.get(column) for row in rows)]
    text = io.StringIO()
    out = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    return text.getvalue()


def _plain(text: str) -> str:
    """Return a text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("`", "'")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"
