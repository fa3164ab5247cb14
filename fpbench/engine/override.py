"""`-o dotted.path=value`: a key of a suite set from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api.errors import SuiteError, did_you_mean
from .source import Path_, Source


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
