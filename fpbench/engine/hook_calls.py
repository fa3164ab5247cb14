"""pluggy's calls, in which a plugin that raises stops nobody but itself."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import nullcontext
from typing import Any

import pluggy

from ..api import hooks
from .isolation import contained

Answered = Callable[[str, str, Any, bool], Any]
"""(hook, plugin, answer, whether it is a wrapper's): checks an answer and returns it."""

Failed = Callable[[str, str, BaseException], None]
"""(hook, plugin, error): reports an error, or raises it for the caller of the hook."""


class PluginManager(pluggy.PluginManager):
    """Calls hooks as pluggy documents it: order, pruned arguments, first results and wrappers.

    An implementation that raises counts as one that returned None, and a wrapper that raises as
    one that is not there. What a plugin does to the process ends with its turn, except in
    executors, which may need it.
    """

    def __init__(self, answered: Answered, failed: Failed) -> None:
        super().__init__("fpbench")
        self._answered, self._failed = answered, failed
        self.add_hookspecs(hooks)

    def register(self, plugin: object, name: str | None = None) -> str | None:
        """Register a plugin and guard its implementations."""
        registered = super().register(plugin, name)
        for caller in self.get_hookcallers(plugin) or ():
            for implementation in caller.get_hookimpls():
                if implementation.plugin is not plugin:
                    continue
                if implementation.hookwrapper:
                    raise TypeError(
                        f"expected hookimpl(wrapper=True) at {caller.name}, got hookwrapper=True, "
                        "pluggy's old style"
                    )
                guarded = self._wrapper if implementation.wrapper else self._function
                implementation.function = guarded(  # type: ignore[misc]
                    caller.name, implementation.plugin_name, implementation.function
                )
        return registered

    def _function(self, hook: str, plugin: str, function: Callable[..., Any]) -> Any:
        def guarded(*args: object, **kwargs: object) -> Any:
            def act() -> Any:
                return self._answered(hook, plugin, function(*args, **kwargs), False)

            return self._turn(hook, plugin, None, act)

        return guarded

    def _wrapper(self, hook: str, plugin: str, function: Callable[..., Any]) -> Any:
        def guarded(*args: object, **kwargs: object) -> Generator[None, Any, Any]:
            wrapper = function(*args, **kwargs)
            began = self._turn(hook, plugin, False, lambda: _begin(wrapper))
            answer, error = None, None
            try:
                answer = yield
            except BaseException as raised:  # one of those that `failed` lets through
                error = raised
            if began:
                return self._turn(
                    hook, plugin, answer,
                    lambda: self._answered(hook, plugin, _end(wrapper, answer, error), True),
                )  # fmt: skip
            if error:
                raise error
            return answer

        return guarded

    def _turn(self, hook: str, plugin: str, otherwise: Any, act: Callable[[], Any]) -> Any:
        """Return what a plugin's act returns, or `otherwise` if it raises."""
        try:
            with nullcontext() if hook == "fpbench_executor" else contained():
                return act()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._failed(hook, plugin, error)
            return otherwise


def _begin(wrapper: Generator[None, Any, Any]) -> bool:
    """Run a wrapper up to its yield."""
    try:
        next(wrapper)
    except StopIteration:
        raise RuntimeError("expected a wrapper to yield once, it did not yield") from None
    return True


def _end(wrapper: Generator[None, Any, Any], answer: Any, error: BaseException | None) -> Any:
    """Run a wrapper from its yield to its end, and return its answer."""
    try:
        wrapper.throw(error) if error else wrapper.send(answer)
    except StopIteration as end:
        return end.value
    wrapper.close()
    raise RuntimeError("expected a wrapper to yield once, it yielded again")
