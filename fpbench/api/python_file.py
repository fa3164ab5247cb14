"""Python files that a user names by their path: plugin files, and files of architectures."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType


def load(file: Path, name: str) -> ModuleType:
    """Run a Python file as a new module; it may import the modules that lie beside it.

    name: the module's name in `sys.modules`, where pickle and dataclasses look it up.

    Raises ValueError for a file that is no Python file, and whatever the file raises.
    """
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"expected a Python file (.py), got {file}")
    NEIGHBOURS.add(str(file.resolve().parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class Neighbours:
    """Finds modules in the folders of the loaded files.

    It is the last finder that Python asks, so a neighbour never hides an installed or a standard
    module. Two folders that hold a module of one name are an error, because a process has one
    module of a name.
    """

    def __init__(self) -> None:
        self._folders: list[str] = []
        self._found: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module, as `importlib.abc.MetaPathFinder` says. Raises ImportError for two."""
        if path is not None:  # it is inside a package, which has a path of its own
            return None
        specs = [spec for folder in self._folders if (spec := PathFinder.find_spec(name, [folder]))]
        if len(specs) > 1:
            raise ImportError(
                f"expected one module {name!r} beside the plugin files, found "
                f"{' and '.join(str(spec.origin) for spec in specs)}; rename one"
            )
        self._found.update(spec.name for spec in specs)
        return specs[0] if specs else None

    def add(self, folder: str) -> None:
        """Search a folder too. Raises ImportError if it holds a module that another gave."""
        if self not in sys.meta_path:
            sys.meta_path.append(self)
        if folder not in self._folders:
            self._folders.append(folder)
            for name in self._found & sys.modules.keys():
                self.find_spec(name)

    def forget(self) -> None:
        """Search no folder, and read what was found anew when it is imported next."""
        for name in [*sys.modules]:
            if name.partition(".")[0] in self._found:
                del sys.modules[name]
        self._folders.clear()
        self._found.clear()
        importlib.invalidate_caches()


NEIGHBOURS = Neighbours()
