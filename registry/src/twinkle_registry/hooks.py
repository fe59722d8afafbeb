"""Calling the hooks of installed plugins, with pluggy.

A manifest names the hooks that a plugin implements and the module that holds them; that module is imported when the first of them
is called. What breaks in a plugin's hook costs one warning and is reported beside the others' results. Knows no hook by name: the
module with their specifications is handed in.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import logging
from collections.abc import Callable, Sequence
from threading import RLock
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from twinkle_registry.errors import PluginLoadError, RegistryError
from twinkle_registry.rows import PluginRow

if TYPE_CHECKING:
    from pluggy import PluginManager

PROJECT = "twinkle"
"""The name of the ``pluggy`` markers that hook implementations may carry; a manifest that names the hook is enough."""

_logger = logging.getLogger(__name__)


class HookResult(NamedTuple):
    """What one plugin's implementation gave: a value, or the error that it raised (or that kept it from being called)."""

    plugin: PluginRow
    value: Any
    error: Exception | None = None


class Hooks:
    """The hooks of the plugins that ``plugins`` lists.

    Args:
        plugins: lists the installed plugins; asked at each call, so that a newly installed one takes part.
        load: imports the hook module of a plugin.
        specifications: the module that specifies the hooks, or its name, imported when a hook is first called.
    """

    def __init__(
        self,
        plugins: Callable[[], Sequence[PluginRow]],
        load: Callable[[PluginRow], ModuleType],
        specifications: ModuleType | str | None = None,
    ) -> None:
        self._plugins = plugins
        self._load = load
        self._specifications = specifications
        self._manager: PluginManager | None = None
        self._importing: set[tuple[str, str]] = set()
        self._ready: set[tuple[str, str]] = set()
        self._lock = RLock()
        self._unusable: list[tuple[str, HookResult]] = []
        self._warned: set[tuple[str, str]] = set()

    def call(self, name: str, **arguments: Any) -> list[Any]:
        """Call the hook ``name`` of every plugin that implements it; return what they gave, without ``None`` and failures.

        Raises:
            RegistryError: there is no such hook.
        """
        return [result.value for result in self.results(name, **arguments) if result.error is None]

    def results(self, name: str, **arguments: Any) -> list[HookResult]:
        """As ``call``, with the plugin that gave each value; failures are among them, each already logged as a warning."""
        implementers = [plugin for plugin in self._plugins() if name in plugin.hook_names]
        if not implementers:
            return []
        manager = self._ready_manager(implementers)
        caller = getattr(manager.hook, name, None)
        if self._specifications is not None and (caller is None or not caller.has_spec()):
            raise RegistryError(f"There is no hook named {name!r}.{self._near(manager, name)}")
        given: list[HookResult] = caller(**arguments) if caller else []
        return given + [failure for hook, failure in self._unusable if hook == name]

    def _ready_manager(self, implementers: Sequence[PluginRow]) -> PluginManager:
        """The manager, once the hooks of ``implementers`` are in it."""
        keys = {(plugin.distribution, plugin.package): plugin for plugin in implementers}
        if self._manager is not None and keys.keys() <= self._ready:
            return self._manager
        # Another thread waits until a check is there, and doesn't go on as if there were none. What a hook module imports may
        # itself load components, in this thread: it goes on without its own plugin.
        with self._lock:
            manager = self._manager = self._manager or self._new_manager()
            for key, plugin in keys.items():
                if key not in self._ready | self._importing:
                    self._importing.add(key)
                    try:
                        self._register(manager, plugin)
                        self._ready.add(key)
                    finally:
                        self._importing.remove(key)
            return manager

    def _new_manager(self) -> PluginManager:
        from pluggy import PluginManager

        manager = PluginManager(PROJECT)
        if isinstance(self._specifications, str):
            self._specifications = importlib.import_module(self._specifications)
        if self._specifications is not None:
            manager.add_hookspecs(self._specifications)
        return manager

    def _register(self, manager: PluginManager, plugin: PluginRow) -> None:
        try:
            module = self._load(plugin)
        except RegistryError as error:
            self._warn(plugin, "", f"its hooks can't be used: {error}")
            self._unusable += [(name, HookResult(plugin, None, error)) for name in plugin.hook_names]
            return
        for name in plugin.hook_names:
            try:
                manager.register(
                    self._implementation(manager, plugin, module, name), name=f"{plugin.label}: {plugin.package}: {name}"
                )
            except Exception as error:  # pluggy refuses what doesn't fit the specification, in several ways
                self._warn(plugin, name, f"its hook {name!r} can't be used: {error}")
                self._unusable.append((name, HookResult(plugin, None, error)))

    def _implementation(self, manager: PluginManager, plugin: PluginRow, module: ModuleType, name: str) -> SimpleNamespace:
        """An object that pluggy takes for a plugin with this one hook, whose failures are contained."""
        from pluggy import HookimplMarker

        if self._specifications is not None and not hasattr(manager.hook, name):
            raise PluginLoadError(f"there is no hook of that name.{self._near(manager, name)}")
        function = getattr(module, name, None)
        if not callable(function):
            raise PluginLoadError(f"its manifest names it, and {module.__name__!r} has no such function")
        options = getattr(function, f"{PROJECT}_impl", None) or {}
        if options.get("wrapper") or options.get("hookwrapper"):
            raise PluginLoadError("it wraps other plugins' hooks, which a plugin may not do")

        @functools.wraps(function)
        def contained(*args: Any, **kwargs: Any) -> HookResult | None:
            try:
                value = function(*args, **kwargs)
            except Exception as error:
                self._warn(plugin, name, f"its hook {name!r} raised {type(error).__name__}: {error}")
                return HookResult(plugin, None, error)
            return None if value is None else HookResult(plugin, value)

        return SimpleNamespace(**{name: contained if options else HookimplMarker(PROJECT)(contained)})

    def _near(self, manager: PluginManager, name: str) -> str:
        known = sorted(hook for hook in vars(manager.hook) if not hook.startswith("_"))
        near = difflib.get_close_matches(name, known, 1)
        return f" Did you mean {near[0]!r}?" if near else f" Hooks: {', '.join(known)}."

    def _warn(self, plugin: PluginRow, name: str, message: str) -> None:
        if (plugin.label, name) not in self._warned:
            self._warned.add((plugin.label, name))
            _logger.warning("The plugin %s: %s", plugin.label, message)
