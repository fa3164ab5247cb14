"""Loading of Python files that a user names by path: plugin files and files of architectures."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType


def load(file: Path, name: str) -> ModuleType:
    """Run a Python file as a new module. It may import the modules in its own folder.

    name: the module's name in `sys.modules`, where pickle and dataclasses look it up.

    Raises ValueError for a file that is no Python file, and any exception that the file raises.
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

    Python asks it after all other finders, so a neighbour never hides an installed or a standard
    module. Two folders with modules of the same name are an error, because a process can hold only
    one module of that name.
    """

    def __init__(self) -> None:
        self._folders: list[str] = []
        self._found: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module as `importlib.abc.MetaPathFinder` does.

        Raises ImportError if two folders have a module of this name.
        """
        if path is not None:  # the module is inside a package, which has its own path
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
        """Add a folder to search.

        Raises ImportError if it has a module that was already loaded from another folder.
        """
        if self not in sys.meta_path:
            sys.meta_path.append(self)
        if folder not in self._folders:
            self._folders.append(folder)
            for name in self._found & sys.modules.keys():
                self.find_spec(name)

    def forget(self) -> None:
        """Remove all folders, and unload the modules from them so that imports read them again."""
        for name in [*sys.modules]:
            if name.partition(".")[0] in self._found:
                del sys.modules[name]
        self._folders.clear()
        self._found.clear()
        importlib.invalidate_caches()


NEIGHBOURS = Neighbours()
