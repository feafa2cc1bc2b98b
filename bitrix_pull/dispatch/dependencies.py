"""What a handler asks for beside its event, by the names of its arguments, and who has it."""

import functools
import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from bitrix_pull.dispatch.policy import described, refuse_generator
from bitrix_pull.errors import InvalidArgument


@dataclass(slots=True, frozen=True)
class Wish:
    """One argument of a user's function, beside those that it is always given.

    Attributes:
        name: The argument's name.
        annotation: Its type, as far as it can be told; text where it cannot.
        required: False if the function can do without.
    """

    name: str
    annotation: object
    required: bool


@dataclass(slots=True, frozen=True)
class Signature:
    """What a user's function takes.

    Attributes:
        given: The names under which it takes what it is always given, as far as it has names.
        wishes: All else.
    """

    given: tuple[str, ...] = ()
    wishes: tuple[Wish, ...] = ()


@dataclass(slots=True, frozen=True)
class Supply:
    """What a client has for its handlers.

    Attributes:
        by_name: Values for arguments of that name.
        by_type: Values for arguments of that type, whatever their name.
    """

    by_name: Mapping[str, Any] = field(default_factory=dict[str, Any])
    by_type: Mapping[type, object] = field(default_factory=dict[type, Any])

    def of_type(self, wish: Wish) -> object | None:
        """Return the value for an argument by its type, or None."""
        for kind, value in self.by_type.items():
            if any(_means(annotation, kind, value) for annotation in _parts(wish.annotation)):
                return value
        return None


def _parts(annotation: object) -> Sequence[object]:
    """Return what an annotation allows: itself, and what stands in a union or an ``Optional``."""
    if isinstance(annotation, str):
        return re.split(r"[|\[\]\s]+", annotation)
    return (annotation, *get_args(annotation))


def _means(annotation: object, kind: type, value: object) -> bool:
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2] == kind.__name__
    return isinstance(annotation, type) and issubclass(annotation, kind) and isinstance(value, annotation)


def signature_of(what: str, callback: Any, *given: str) -> Signature:
    """Return what a function takes, of which the first arguments are always given, by position.

    Args:
        what: What the function is, for the error's text.
        callback: The function.
        given: What it is always given.

    Raises:
        InvalidArgument: It does not take those, has others that cannot be given by name, or is a generator.
    """
    if not callable(callback):
        raise InvalidArgument(f"{what} must be callable, not {callback!r:.80}")
    refuse_generator(what, callback)
    try:
        parameters = list(inspect.signature(callback).parameters.values())
    except (TypeError, ValueError):
        return Signature()  # A builtin that tells nothing about its parameters.
    shown = described(callback)
    by_place = [
        item for item in parameters if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)
    ]
    if len(by_place) < len(given) and not any(item.kind is item.VAR_POSITIONAL for item in parameters):
        raise InvalidArgument(
            f"{what} {shown} must take {' and '.join(given)} as its first argument{'s' * (len(given) > 1)}"
        )
    names = tuple(item.name for item in by_place[: len(given)])
    others = by_place[len(given) :] + [item for item in parameters if item.kind is item.KEYWORD_ONLY]
    wishes: list[Wish] = []
    for item in others:
        required = item.default is item.empty
        if item.kind is item.POSITIONAL_ONLY:
            if required:
                raise InvalidArgument(
                    f"{what} {shown} takes {item.name} by position only:"
                    " whatever is more than the event is given by name"
                )
        elif item.name == "event":
            raise InvalidArgument(
                f"{what} {shown} has an argument event that is not its first:"
                " the event is the first one, whatever its name"
            )
        else:
            wishes.append(Wish(item.name, _resolved(item.annotation, callback), required))
    return Signature(names, tuple(wishes))


def _resolved(annotation: object, callback: Any) -> object:
    """Return the type that an annotation means, or its text if it is there for type checkers alone."""
    if not isinstance(annotation, str):
        return annotation
    while isinstance(callback, functools.partial):
        callback = cast("functools.partial[object]", callback).func
    function = callback if hasattr(callback, "__globals__") else getattr(callback, "__call__", None)  # noqa: B004
    try:
        return eval(annotation, getattr(inspect.unwrap(cast("Any", function)), "__globals__", {}))
    except Exception:  # Whatever can stand in an annotation, this is what Python makes of it.
        return annotation


@dataclass(slots=True, frozen=True)
class Arguments:
    """Where the arguments of a function come from, beside those that it is always given.

    Attributes:
        known: Values that are the same for every event.
        later: Names of what middleware provides.
    """

    known: Mapping[str, Any]
    later: Sequence[str]

    @classmethod
    def of(
        cls, what: str, name: str, signature: Signature, supply: Supply, provided: Collection[str] = ()
    ) -> "Arguments":
        """Find what a function asks for.

        Args:
            what: What the function is, for the error's text.
            name: Its name.
            signature: What it takes.
            supply: What the client has.
            provided: Names of what middleware provides.

        Raises:
            InvalidArgument: It asks for what nothing provides, or a name has two meanings.
        """
        for given in signature.given:
            if given in supply.by_name or given in provided:
                raise InvalidArgument(
                    f"{what} {name} calls one of its own arguments {given}, and so does the context another",
                    advice="Call one of the two by another name.",
                )
        known: dict[str, Any] = {}
        later: list[str] = []
        for wish in signature.wishes:
            if (value := supply.of_type(wish)) is not None:
                known[wish.name] = value
            elif wish.name in provided:
                later.append(wish.name)
            elif wish.name in supply.by_name:
                known[wish.name] = supply.by_name[wish.name]
            elif wish.required:
                raise InvalidArgument(
                    f"{what} {name} asks for {wish.name}, which nothing provides",
                    advice=f'Give it with PullClient(…, context={{"{wish.name}": …}}), or put it into the'
                    f' context in a middleware that says so: @router.middleware(provides=["{wish.name}"]).',
                )
        return cls(known, tuple(later))

    def later_ones(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return those that middleware has put into the context of one event.

        Raises:
            LookupError: One of them is missing.
        """
        try:
            return {name: context[name] for name in self.later}
        except KeyError as missing:
            raise LookupError(
                f"{missing.args[0]} is not in the context: its middleware has not put it there"
            ) from None


def checked_context(context: object) -> dict[str, Any]:
    """Return a copy of the context that the user gave.

    Raises:
        InvalidArgument: It is no mapping, or has keys that no argument can be called.
    """
    if context is not None and not isinstance(context, Mapping):
        raise InvalidArgument(f"context must be a mapping of names to values, not {type(context).__name__}")
    given = cast("Mapping[str, Any]", context or {})
    check_names("context", given.keys())
    return dict(given)


def check_names(what: str, names: object) -> tuple[str, ...]:
    """Return names that arguments can have.

    Raises:
        InvalidArgument: These are none.
    """
    if isinstance(names, str) or not isinstance(names, Collection):
        raise InvalidArgument(f"{what} must be a collection of names, not {names!r:.80}")
    given = tuple(cast("Collection[str]", names))
    for name in given:
        if not (isinstance(name, str) and name.isidentifier()):
            raise InvalidArgument(f"{what} must hold names that an argument can have, not {name!r:.80}")
    return given
