"""Read a suite file as plain values and their places; refuse YAML that no suite needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from ..api.errors import SuiteError, clipped, did_you_mean

MAX_BYTES = 100_000
MAX_DEPTH = 50

KeyPath = tuple[str | int, ...]
"""The keys and list indices that lead to a value of a suite."""


@dataclass
class Source:
    """A suite's text as plain values, and the place of each value.

    places: by path into `data`, "file:line:col" of the value's key, or of the item in a list.
    """

    file: str
    text: str
    data: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """Return the place of a value, or of the nearest value around it."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, self.file)

    @classmethod
    def read(cls, path: Path, based_on_it: tuple[Path, ...] = ()) -> Source:
        """Read a suite file and its base. Raises SuiteError.

        based_on_it: the files that are based on this one, to find circles.
        """
        source = cls._read_file(path)
        base = source.data.pop("base", None)
        if base is None:
            return source
        where = source.where(("base",))
        if not isinstance(base, str):
            raise SuiteError(f"base: expected the path of a suite, got {base!r}", where)
        based_on_it = (*based_on_it, path.resolve())
        file = path.parent / base
        try:
            is_circle = file.resolve() in based_on_it
            is_regular = file.is_file()  # false for devices and pipes, which would never end
        except (OSError, ValueError):
            is_circle = is_regular = False
        if is_circle:
            raise SuiteError(
                f"base: expected a suite that is not based on itself, got a circle at {base}", where
            )
        if not is_regular:
            raise SuiteError(f"base: expected a suite at {clipped(str(file))}, found none", where)
        return source._with_base(cls.read(file, based_on_it), Path(base).parent)

    def _with_base(self, base: Source, folder: Path) -> Source:
        """Return this suite, completed by the top-level keys of its base that it lacks.

        The plugin files of both suites are kept, because the keys of the base may need its plugins.

        folder: the folder of the base, relative to the folder of this suite.
        """
        data = {**base.data, **self.data}
        places = {p: place for p, place in base.places.items() if p and p[0] not in self.data}
        own, inherited = self.data.get("plugins", []), base.data.get("plugins", [])
        if isinstance(own, list) and isinstance(inherited, list) and (own or inherited):
            data["plugins"] = [*own, *(str(folder / str(file)) for file in inherited)]
            for i in range(len(inherited)):
                places["plugins", len(own) + i] = base.where(("plugins", i))
        text = StringIO()
        YAML().dump(data, text)
        return Source(self.file, text.getvalue(), data, {**places, **self.places})

    @classmethod
    def _read_file(cls, path: Path) -> Source:
        """Read one suite file without its base."""
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise SuiteError(
                f"expected a suite at {path}, could not read it: {error.strerror}"
            ) from None
        if len(raw) > MAX_BYTES:
            raise SuiteError(f"expected at most {MAX_BYTES:,} bytes, got more", str(path))
        try:
            return cls.parse(raw.decode("utf-8"), str(path))
        except UnicodeDecodeError as error:
            raise SuiteError(
                f"expected UTF-8 text, got byte {raw[error.start]:#04x}",
                _place_after(str(path), raw[: error.start].decode("utf-8")),
            ) from None

    @classmethod
    def parse(cls, text: str, file: str) -> Source:
        """Read a suite's text. Raises SuiteError with file:line:col."""
        try:
            _refuse_unneeded(text, file)
            tree = YAML(typ="rt").load(StringIO(text))
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
            problem = (error.problem or error.context or "not YAML").split("\n")[0]
            raise SuiteError(f"expected YAML, got an error: {problem}", where) from None
        except ReaderError as error:
            where = _place_after(file, text[: text.index(chr(error.character))])
            raise SuiteError(f"expected YAML, got {chr(error.character)!r}", where) from None
        except (YAMLError, ValueError, OverflowError, RecursionError) as error:
            reason = str(error).split("\n")[0]
            place = _place_of_bad_value(text, file)
            raise SuiteError(f"expected YAML, got an error: {reason}", place) from None
        if not isinstance(tree, CommentedMap):
            raise SuiteError("expected a mapping with the keys of a suite", f"{file}:1:1")
        source = cls(file, text, {}, {(): f"{file}:1:1"})
        source.data = source._as_plain(tree, ())
        return source

    def _as_plain(self, node: Any, path: KeyPath) -> Any:
        """Return a node of ruamel's tree as plain values, and note the places of its values."""
        if isinstance(node, CommentedMap):
            plain: dict[str, Any] = {}
            for key, value in node.items():
                line, col = node.lc.key(key)
                if not isinstance(key, str) or not key.isprintable():
                    raise SuiteError(
                        f"expected a word as key, got {key!r}",
                        f"{self.file}:{line + 1}:{col + 1}",
                    )
                self.places[(*path, key)] = f"{self.file}:{line + 1}:{col + 1}"
                plain[key] = self._as_plain(value, (*path, key))
            return plain
        if isinstance(node, CommentedSeq):
            for i in range(len(node)):
                line, col = node.lc.item(i)
                self.places[(*path, i)] = f"{self.file}:{line + 1}:{col + 1}"
            return [self._as_plain(value, (*path, i)) for i, value in enumerate(node)]
        return _as_scalar(node)


def _as_scalar(node: Any) -> Any:
    """Return a value of ruamel's number or string types as Python's type."""
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if node is None:
        return None
    return str(node)  # for example a date: no key of a suite needs one


def _refuse_unneeded(text: str, file: str) -> None:
    """Raise SuiteError for YAML that no suite needs, before any value is made.

    That is aliases (a small file with aliases can expand to a huge one), tags, keys that are not
    words, and deep nesting.
    """
    keys: list[bool | None] = []  # per level: whether the next event is a key; None in a list
    for event in YAML(typ="rt").parse(StringIO(text)):
        where = f"{file}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
            raise SuiteError(
                "expected no YAML anchors or aliases; write the value out, or use `each:`", where
            )
        if getattr(event, "value", None) == "<<":
            raise SuiteError("expected no YAML merge keys; write the keys out", where)
        if getattr(event, "tag", None):
            raise SuiteError(f"expected no YAML tags, got {event.tag}", where)
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            if keys and keys[-1]:
                raise SuiteError("expected a word as key, got a group or a list", where)
            keys.append(True if isinstance(event, MappingStartEvent) else None)
            if len(keys) > MAX_DEPTH:
                raise SuiteError(f"expected at most {MAX_DEPTH} levels of nesting", where)
            continue
        if isinstance(event, MappingEndEvent | SequenceEndEvent):
            keys.pop()
        elif not isinstance(event, ScalarEvent):
            continue
        if keys and keys[-1] is not None:
            keys[-1] = not keys[-1]


def _place_after(file: str, text: str) -> str:
    """Return the place that follows the first `text` of a file."""
    return f"{file}:{text.count(chr(10)) + 1}:{len(text) - text.rfind(chr(10))}"


def _place_of_bad_value(text: str, file: str) -> str:
    """Return the place of a value that YAML cannot make, such as a date that does not exist."""
    for event in YAML(typ="rt").parse(StringIO(text)):
        if isinstance(event, ScalarEvent) and event.style is None:
            try:
                YAML(typ="rt").load(StringIO(event.value))
            except Exception:
                return f"{file}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
    return file


def method_names(source: Source) -> list[str]:
    """Return the names and labels of a suite's methods. Malformed entries are skipped."""
    entries = source.data.get("methods")
    return [
        str(entry[key])
        for entry in (entries if isinstance(entries, list) else [])
        for key in ("method", "label")
        if isinstance(entry, dict) and key in entry
    ]


def addition(method: str) -> str:
    """Return the override that adds a method, with its defaults, to the end of a suite's list."""
    return f"methods.+={{method: {method}}}"


def override(source: Source, assignment: str) -> None:
    """Apply one `-o dotted.path=value` to a suite's values.

    An item of a list is named by its first value (`methods.metav.n_queries`), its label or its
    number; `+` is a new item at the end (`methods.+={method: mine}`). The suite's schema checks
    later whether the key exists and the value fits, as it does for the file.
    """
    origin = f"-o {assignment}"
    dotted, equals, text = assignment.partition("=")
    if not equals or not dotted:
        raise SuiteError("expected key=value", origin)
    *front, last = dotted.split(".")
    value = Source.parse(f"value: {text}", origin).data["value"]
    parents: list[tuple[Any, KeyPath]] = [(source.data, ())]
    for name in front:
        parents = [
            child for node, path in parents for child in _children(source, node, path, name, origin)
        ]
    for node, path in parents:
        key: str | int = last
        if isinstance(node, list) and last == "+":
            key = len(node)
            node.append(None)
        elif isinstance(node, list):
            (_, (*_, key)), *_ = _children(source, node, path, last, origin)
        elif not isinstance(node, dict):
            raise SuiteError(f"expected a group of keys before {last!r}", origin)
        node[key] = value
        if path == ("zoo",):
            # These keys exclude each other, so an override of one replaces the other.
            node.pop({"seed": "seeds", "seeds": "seed"}.get(str(key)), None)
        for old in [p for p in source.places if p[: len(path) + 1] == (*path, key)]:
            del source.places[old]
        source.places[(*path, key)] = origin


def _children(
    source: Source, node: Any, path: KeyPath, name: str, origin: str
) -> list[tuple[Any, KeyPath]]:
    """Return the children of a node, with their paths, that one word of a dotted path names."""
    if isinstance(node, dict):
        if name not in node:
            node[name] = {}
            source.places[(*path, name)] = origin
        return [(node[name], (*path, name))]
    if isinstance(node, list):
        named = [
            (item, (*path, i))
            for i, item in enumerate(node)
            if name == str(i)
            or (
                isinstance(item, Mapping)
                and item
                and name in (next(iter(item.values())), item.get("label"))
            )
        ]
        if named:
            return named
        items = [item for item in node if isinstance(item, Mapping) and item]
        known = [str(next(iter(item.values()))) for item in items]
        dotted = ".".join(map(str, path))
        raise SuiteError(f"no {name!r} in {dotted}; {did_you_mean(name, known)}", origin)
    raise SuiteError(f"expected a group of keys before {name!r}", origin)
