"""Options that several commands take together: a dataclass, each of whose fields is one."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from typing import Any, get_type_hints


def takes(
    group: type[Any], *, without: Sequence[str] = ()
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command the options of a dataclass where its signature has one of that type, which it gets.

    Args:
        group: The dataclass, its fields annotated as typer wants options to be.
        without: Fields whose options the command does not take.
    """
    options = get_type_hints(group, include_extras=True)
    taken = [
        inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=options[each.name]
        )
        for each in fields(group)
        if each.name not in without
    ]

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        parameters: list[inspect.Parameter] = []
        name = ""
        for each in inspect.signature(command).parameters.values():
            if each.annotation is group:
                name = each.name
                parameters += taken
            else:
                parameters.append(each.replace(kind=inspect.Parameter.KEYWORD_ONLY))

        @wraps(command)
        def decorated(**given: Any) -> int:
            given[name] = group(**{each.name: given.pop(each.name) for each in taken})
            return command(**given)

        # What typer reads, and help and completion with it.
        decorated.__dict__["__signature__"] = inspect.Signature(parameters, return_annotation=int)
        decorated.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": int}
        return decorated

    return decorate
