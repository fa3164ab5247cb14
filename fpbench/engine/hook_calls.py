"""Call hooks by pluggy so that a plugin that raises does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import nullcontext
from typing import Any

import pluggy

from ..api import hooks
from .isolation import isolated

CheckAnswer = Callable[[str, str, Any, bool], Any]
"""(hook, plugin, answer, whether a wrapper gave it): checks an answer and returns it."""

ReportError = Callable[[str, str, BaseException], None]
"""(hook, plugin, error): reports an error, or raises it for the caller of the hook."""


class PluginManager(pluggy.PluginManager):
    """Calls hooks as pluggy documents it: order, pruned arguments, first results and wrappers.

    An implementation that raises counts as one that returned None. A wrapper that raises counts as
    absent. Changes to the process are undone after each call, except those of executors, which may
    need them.
    """

    def __init__(self, check_answer: CheckAnswer, report_error: ReportError) -> None:
        super().__init__("fpbench")
        self._check_answer, self._report_error = check_answer, report_error
        self.add_hookspecs(hooks)

    def register(self, plugin: object, name: str | None = None) -> str | None:
        """Register a plugin, and guard its implementations: errors and changes stay local."""
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
                guard = self._guard_wrapper if implementation.wrapper else self._guard_function
                implementation.function = guard(  # type: ignore[misc]
                    caller.name, implementation.plugin_name, implementation.function
                )
        return registered

    def _guard_function(self, hook: str, plugin: str, function: Callable[..., Any]) -> Any:
        """Return a function that calls an implementation and checks its answer."""

        def guarded(*args: object, **kwargs: object) -> Any:
            def call() -> Any:
                return self._check_answer(hook, plugin, function(*args, **kwargs), False)

            return self._guard(hook, plugin, None, call)

        return guarded

    def _guard_wrapper(self, hook: str, plugin: str, function: Callable[..., Any]) -> Any:
        """Return a wrapper that runs a plugin's wrapper and checks its answer."""

        def guarded(*args: object, **kwargs: object) -> Generator[None, Any, Any]:
            wrapper = function(*args, **kwargs)
            began = self._guard(hook, plugin, False, lambda: _begin(wrapper))
            answer, error = None, None
            try:
                answer = yield
            except BaseException as raised:  # an error that `report_error` raised for the caller
                error = raised
            if began:
                return self._guard(
                    hook, plugin, answer,
                    lambda: self._check_answer(hook, plugin, _end(wrapper, answer, error), True),
                )  # fmt: skip
            if error:
                raise error
            return answer

        return guarded

    def _guard(self, hook: str, plugin: str, default: Any, call: Callable[[], Any]) -> Any:
        """Return the result of a call into a plugin, or `default` if the call raises."""
        try:
            with nullcontext() if hook == "fpbench_executor" else isolated():
                return call()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._report_error(hook, plugin, error)
            return default


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
