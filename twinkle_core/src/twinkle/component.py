"""Components by reference: find, load and build them.

``load_component`` gives the class or function behind a reference, ``make_component`` an instance of it with its configuration
checked. Leans on ``twinkle_registry`` for everything about finding and trust; knows nothing of any one kind's behaviour.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from twinkle.errors import ComponentNotFoundError, ConfigError
from twinkle.kinds import Kind, get_kind
from twinkle.run_record import record_component

if TYPE_CHECKING:
    from twinkle_registry.registry import Registry


@functools.cache
def default_registry() -> Registry:
    """The registry of this process: installed plugins, the project's aliases, and the hubs that are known."""
    from twinkle.cli.ask import terminal_asker
    from twinkle_registry.registry import Registry

    return Registry(
        hook_specifications="twinkle.hookspecs", base_class=lambda kind: get_kind(kind).base_class(), ask=terminal_asker()
    )


def load_component(kind: str, reference: object) -> Any:
    """Return the class or function that ``reference`` stands for.

    ``reference`` is a class or function (returned as it is), a hub reference, a project alias, ``distribution/Name``, or a bare
    ``Name`` that exactly one installed plugin provides.

    Raises:
        ComponentNotFoundError: nothing has that name; the message holds the nearest ones.
        AmbiguousComponentError: more than one plugin has it.
        TrustError: the reference points to a hub and nothing allows it to be loaded.
        ConfigError: what was found doesn't fit the kind.
    """
    row = get_kind(kind)
    found = default_registry().load(kind, reference) if isinstance(reference, str) else reference
    record_component(kind, reference, _checked(row, found, reference))
    return found


def make_component(kind: str, reference: object, /, **config: Any) -> Any:
    """Return an instance of the component that ``reference`` stands for, built with ``config``.

    An instance is returned as it is. A function is returned as it is, with ``config`` bound to it where there is any.

    Raises:
        ConfigError: ``config`` doesn't fit the component's signature or its manifest, or an instance came with ``config``.
        TwinkleError: as ``load_component``.
    """
    row = get_kind(kind)
    if not isinstance(reference, str) and isinstance(reference, row.base_class()):
        if config:
            raise ConfigError(
                f"{type(reference).__name__} is already built; its configuration ({', '.join(config)}) can't be changed here. "
                f"Give the class, or its name, together with the configuration."
            )
        record_component(kind, reference, type(reference), made=reference)
        return reference
    found = load_component(kind, reference)
    if isinstance(reference, str):
        default_registry().check_config(kind, reference, config)
    _check_signature(kind, found, config)
    made = found(**config) if inspect.isclass(found) else functools.partial(found, **config) if config else found
    record_component(kind, reference, found, made=made, config=config)
    return made


def component_attributes(
    module: str, kinds: Iterable[str], namespace: Mapping[str, Any]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` for a module ``twinkle.<kind>``: other names are looked up among installed plugins."""
    kinds = tuple(kinds)

    def __getattr__(name: str) -> Any:  # noqa: N807 - becomes the module's (PEP 562)
        # Only names that could be a component's: introspection asks modules for many other things, and wants AttributeError.
        if not name[:1].isalpha() or name.islower():
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        for kind in kinds[:-1]:
            try:
                return load_component(kind, name)
            except ComponentNotFoundError:
                continue
        return load_component(kinds[-1], name)

    def __dir__() -> list[str]:  # noqa: N807 - likewise
        registry = default_registry()
        return sorted({*namespace, *(row.name for kind in kinds for row in registry.components(kind))})

    return __getattr__, __dir__


def _checked(kind: Kind, found: Any, reference: object) -> Any:
    if inspect.isclass(found):
        if not issubclass(found, kind.base_class()):
            raise ConfigError(
                f"{found.__name__} (from {reference!r}) is no {kind.name}: it doesn't derive from {kind.module}.{kind.base}."
            )
    elif not callable(found):
        raise ConfigError(f"{reference!r} is no {kind.name}: it is neither a class nor callable.")
    elif not kind.functions and not isinstance(found, kind.base_class()):
        raise ConfigError(f"A {kind.name} has to be a class that derives from {kind.module}.{kind.base}, not {found!r}.")
    return found


def _check_signature(kind: str, found: Any, config: Mapping[str, Any]) -> None:
    if not inspect.isclass(found) and not config:
        return
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # built in C: it checks for itself
        return
    try:
        signature.bind(**config) if inspect.isclass(found) else signature.bind_partial(**config)
    except TypeError as error:
        name = getattr(found, "__name__", repr(found))
        raise ConfigError(f"The {kind} {name!r} can't be built: {error}. Its signature: {name}{signature}.") from None
