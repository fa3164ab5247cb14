"""YAML in, plain values and their places out; what a suite has no use for is refused."""

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

Path_ = tuple[str | int, ...]


@dataclass
class Source:
    """A suite's text as plain values, and where each of them stands.

    places: by path into `data`, "file:line:col" of the value's key (of the item in a list).
    """

    file: str
    text: str
    data: dict[str, Any]
    places: dict[Path_, str] = field(default_factory=dict)

    def where(self, path: Path_) -> str:
        """The place of a value, or of the nearest thing around it."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, self.file)

    @classmethod
    def read(cls, path: Path, above: tuple[Path, ...] = ()) -> Source:
        """Read a suite file, and the one it is based on. Raises SuiteError."""
        source = cls._alone(path)
        base = source.data.pop("base", None)
        if base is None:
            return source
        where = source.where(("base",))
        if not isinstance(base, str):
            raise SuiteError(f"base: expected the path of a suite, got {base!r}", where)
        above = (*above, path.resolve())
        file = path.parent / base
        try:
            circle = file.resolve() in above
            regular = file.is_file()  # no device, no pipe: those never end
        except (OSError, ValueError):
            circle = regular = False
        if circle:
            raise SuiteError(f"base: expected suites that end, got a circle at {base}", where)
        if not regular:
            raise SuiteError(f"base: expected a suite at {clipped(str(file))}, found none", where)
        return source._over(cls.read(file, above), Path(base).parent)

    def _over(self, base: Source, folder: Path) -> Source:
        """Return this suite with the keys that it lacks taken, whole, from its base.

        The plugin files of both are kept: what is taken may need those of the base.

        folder: the base's, seen from this suite's.
        """
        data = {**base.data, **self.data}
        places = {p: place for p, place in base.places.items() if p and p[0] not in self.data}
        own, others = self.data.get("plugins", []), base.data.get("plugins", [])
        if isinstance(own, list) and isinstance(others, list) and (own or others):
            data["plugins"] = [*own, *(str(folder / str(other)) for other in others)]
            for i in range(len(others)):
                places["plugins", len(own) + i] = base.where(("plugins", i))
        text = StringIO()
        YAML().dump(data, text)
        return Source(self.file, text.getvalue(), data, {**places, **self.places})

    @classmethod
    def _alone(cls, path: Path) -> Source:
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
                _place(str(path), raw[: error.start].decode("utf-8")),
            ) from None

    @classmethod
    def parse(cls, text: str, file: str) -> Source:
        """Read a suite's text. Raises SuiteError with file:line:col."""
        try:
            _refuse(text, file)
            tree = YAML(typ="rt").load(StringIO(text))
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
            problem = (error.problem or error.context or "not YAML").split("\n")[0]
            raise SuiteError(f"expected YAML, got an error: {problem}", where) from None
        except ReaderError as error:
            where = _place(file, text[: text.index(chr(error.character))])
            raise SuiteError(f"expected YAML, got {chr(error.character)!r}", where) from None
        except (YAMLError, ValueError, OverflowError, RecursionError) as error:
            reason = str(error).split("\n")[0]
            raise SuiteError(f"expected YAML, got an error: {reason}", _odd(text, file)) from None
        if not isinstance(tree, CommentedMap):
            raise SuiteError("expected a mapping with the keys of a suite", f"{file}:1:1")
        source = cls(file, text, {}, {(): f"{file}:1:1"})
        source.data = source._plain(tree, ())
        return source

    def _plain(self, node: Any, path: Path_) -> Any:
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
                plain[key] = self._plain(value, (*path, key))
            return plain
        if isinstance(node, CommentedSeq):
            for i in range(len(node)):
                line, col = node.lc.item(i)
                self.places[(*path, i)] = f"{self.file}:{line + 1}:{col + 1}"
            return [self._plain(value, (*path, i)) for i, value in enumerate(node)]
        return scalar(node)


def scalar(node: Any) -> Any:
    """ruamel's own number and string types as Python's."""
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if node is None:
        return None
    return str(node)  # a date, say: no key of a suite wants one


def _refuse(text: str, file: str) -> None:
    """Refuse aliases (a bomb needs them), tags, keys that are no words, and depth before anything
    is composed."""
    keys: list[bool | None] = []  # per level: is a key next? None in a list
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


def _place(file: str, before: str) -> str:
    """The place that follows some text."""
    return f"{file}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def _odd(text: str, file: str) -> str:
    """Where the value stands that YAML cannot make: a day that is none, say."""
    for event in YAML(typ="rt").parse(StringIO(text)):
        if isinstance(event, ScalarEvent) and event.style is None:
            try:
                YAML(typ="rt").load(StringIO(event.value))
            except Exception:
                return f"{file}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
    return file


def listed(source: Source) -> list[str]:
    """Names and labels of a suite's methods, as far as it is well formed."""
    entries = source.data.get("methods")
    return [
        str(entry[key])
        for entry in (entries if isinstance(entries, list) else [])
        for key in ("method", "label")
        if isinstance(entry, dict) and key in entry
    ]


def addition(method: str) -> str:
    """The override that puts a method, with its defaults, at the end of a suite's list."""
    return f"methods.+={{method: {method}}}"


def override(source: Source, setting: str) -> None:
    """Apply one `-o dotted.path=value` to a suite's values.

    A list's items are named by their first value (`methods.metav.n_queries`) or by number; `+` is
    a new one at its end (`methods.+={method: mine}`).
    Whether the key exists and the value fits is for the suite's schema to say, as for the file.
    """
    origin = f"-o {setting}"
    dotted, equals, text = setting.partition("=")
    if not equals or not dotted:
        raise SuiteError("expected key=value", origin)
    *front, last = dotted.split(".")
    value = Source.parse(f"value: {text}", origin).data["value"]
    targets: list[tuple[Any, Path_]] = [(source.data, ())]
    for name in front:
        targets = [hit for node, path in targets for hit in _step(source, node, path, name, origin)]
    for node, path in targets:
        key: str | int = last
        if isinstance(node, list) and last == "+":
            key = len(node)
            node.append(None)
        elif isinstance(node, list):
            (_, (*_, key)), *_ = _step(source, node, path, last, origin)
        elif not isinstance(node, dict):
            raise SuiteError(f"expected a group of keys before {last!r}", origin)
        node[key] = value
        for old in [p for p in source.places if p[: len(path) + 1] == (*path, key)]:
            del source.places[old]
        source.places[(*path, key)] = origin


def _step(
    source: Source, node: Any, path: Path_, name: str, origin: str
) -> list[tuple[Any, Path_]]:
    """The children of a node that a word of a dotted path names."""
    if isinstance(node, dict):
        if name not in node:
            node[name] = {}
            source.places[(*path, name)] = origin
        return [(node[name], (*path, name))]
    if isinstance(node, list):
        hits = [
            (item, (*path, i))
            for i, item in enumerate(node)
            if name == str(i)
            or (
                isinstance(item, Mapping)
                and item
                and name in (next(iter(item.values())), item.get("label"))
            )
        ]
        if hits:
            return hits
        items = [item for item in node if isinstance(item, Mapping) and item]
        known = [str(next(iter(item.values()))) for item in items]
        inside = ".".join(map(str, path))
        raise SuiteError(f"no {name!r} in {inside}; {did_you_mean(name, known)}", origin)
    raise SuiteError(f"expected a group of keys before {name!r}", origin)
