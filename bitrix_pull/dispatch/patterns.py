"""What events are wanted: by the names that they have, of the kind that they are."""

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import Event, PortalEvent, PullEvent

DEFAULT_MODULE = "application"
"""The module of what applications publish (protocol §2, ``MODULE_ID``)."""


class Pattern(Protocol):
    """Says which events of one kind are wanted."""

    @property
    def kind(self) -> type[Event]:
        """The kind: no events of another are compared with this."""
        ...

    def matches(self, topic: Any) -> bool:
        """Tell whether events of this topic are wanted: what ``kind.topic_of`` gives."""
        ...

    def names(self) -> Iterable[str]:
        """Return what is wanted as topics are written, ``im.message``, as far as it has names."""
        ...


@dataclass(slots=True, frozen=True)
class Names:
    """A set of names: those that are given, and all that begin like one that ends in ``*``.

    Where none is given, it is the set of all.
    """

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    @classmethod
    def of(cls, what: str, names: Sequence[object]) -> Self:
        """Return the set of what the user wrote.

        Args:
            what: What they are names of, for the error's text.
            names: Texts; a ``*`` may stand at the end of each, and nowhere else. None is no name.

        Raises:
            InvalidArgument: One of them is none.
        """
        exact: set[str] = set()
        prefixes: set[str] = set()
        for name in names:
            if name is None:
                continue
            if callable(name):
                raise InvalidArgument("write @pull.on() with parentheses to take every event")
            text = checked_name(what, name)
            if "*" in text[:-1]:
                raise InvalidArgument(f"{what} {text!r:.80} has a * that is not at its end")
            if text.endswith("*"):
                prefixes.add(text[:-1])
            else:
                exact.add(text)
        return cls(frozenset(exact), tuple(sorted(prefixes)))

    def written(self) -> Iterable[str]:
        """Return them as they were given."""
        return (*self.exact, *(f"{prefix}*" for prefix in self.prefixes))

    def __contains__(self, name: str) -> bool:
        """Tell whether a name is in the set."""
        if name in self.exact or name.startswith(self.prefixes):
            return True
        return not self.exact and not self.prefixes


@dataclass(slots=True, frozen=True)
class StreamPattern:
    """Messages of the stream: of some commands or all, of one module or all (None)."""

    commands: Names
    module: str | None

    @classmethod
    def of(cls, commands: Sequence[object], module: object, default_module: str | None) -> Self:
        """Build a pattern from what the user wrote.

        Commands alone mean those of the default module; nothing at all means everything, or
        everything of a router's own module.

        Raises:
            InvalidArgument: One of these is no name.
        """
        names = Names.of("command", commands)
        if module is not None:
            module = checked_name("module", module)
        else:
            module = default_module if names == Names() else default_module or DEFAULT_MODULE
        # The protocol compares modules in lower case, commands as they are.
        return cls(names, module.lower() if module is not None else None)

    @property
    def kind(self) -> type[Event]:
        """Messages of the stream."""
        return PullEvent

    def matches(self, topic: tuple[str, str]) -> bool:
        """Tell whether messages of this module and command are wanted."""
        module, command = topic
        return self.module in (None, module) and command in self.commands

    def names(self) -> Iterable[str]:
        """Return its commands with their module."""
        return (f"{self.module or '*'}.{command}" for command in self.commands.written())


_PORTAL_EVENT = re.compile(r"[A-Za-z0-9_.:\\-]{1,255}")


@dataclass(slots=True, frozen=True)
class PortalPattern:
    """The portal's own events of some names, in capitals."""

    events: frozenset[str]

    @classmethod
    def of(cls, names: Sequence[object]) -> Self:
        """Build a pattern from what the user wrote, in any case.

        Raises:
            InvalidArgument: There is none, or one of them can be none.
        """
        if not names or callable(names[0]):
            raise InvalidArgument('name the events: @pull.on_portal_event("ONCRMDEALUPDATE")')
        for name in names:
            if not isinstance(name, str) or not _PORTAL_EVENT.fullmatch(name):
                raise InvalidArgument(f"{name!r:.80} is no name of a portal's event")
        return cls(frozenset(str(name).upper() for name in names))

    @property
    def kind(self) -> type[Event]:
        """The portal's own events."""
        return PortalEvent

    def matches(self, topic: str) -> bool:
        """Tell whether events of this name are wanted."""
        return topic in self.events

    def names(self) -> Iterable[str]:
        """Return their names."""
        return sorted(self.events)


def wanted(
    commands: Sequence[object], module: object, model: object, default_module: str | None
) -> tuple[StreamPattern, object]:
    """Return the pattern and the model that the arguments of ``on`` and ``subscribe`` mean.

    Raises:
        InvalidArgument: They do not go together, or one of them is no name.
    """
    first = commands[0] if commands else None
    if not inspect.isclass(first):
        return StreamPattern.of(commands, module, default_module), model
    # Whoever names commands does not wait for pydantic.
    from pydantic import BaseModel

    from bitrix_pull.catalogue.base import PortalModel

    if not issubclass(first, BaseModel):
        return StreamPattern.of(commands, module, default_module), model
    if not (issubclass(first, PortalModel) and first.pull_commands):
        raise InvalidArgument(
            f"{first.__qualname__} does not say which commands it is of",
            advice=f'Write on("…", model={first.__qualname__}), or derive it from catalogue.PortalModel.',
        )
    if commands[1:] or module is not None or model is not None:
        raise InvalidArgument(
            f"{first.__qualname__} says itself which commands of which module it is of",
            advice="Give it alone, and register the function once more for others.",
        )
    return StreamPattern.of(first.pull_commands, first.pull_module, None), first


def checked_name(what: str, value: object) -> str:
    """Return a name that the user wrote.

    Raises:
        InvalidArgument: It is none.
    """
    if isinstance(value, str) and value:
        return value
    raise InvalidArgument(f"{what} must be a non-empty string, not {value!r:.80}")
