"""What all models of the catalogue have in common: they take PHP as it comes, and never complain."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar, cast

from pydantic import (
    AliasChoices,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from bitrix_pull.errors import InvalidArgument

T = TypeVar("T")


class Tolerant(BaseModel):
    """A model that nothing fails, as long as all its fields have defaults.

    A field that is missing, or of another form than expected, has its default: None, or empty.
    Fields are found as ``chatId``, ``chat_id`` and ``CHAT_ID``. What else comes is kept as it
    is in ``model_extra``; it is no part of the repr, as it may be secret or personal.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="allow",
        populate_by_name=True,
        protected_namespaces=(),
        alias_generator=AliasGenerator(
            validation_alias=lambda name: AliasChoices(to_camel(name), name, name.upper())
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _take_a_map(cls, value: object) -> object:
        # PHP writes an empty map as [], and false where it has none.
        return cast("object", value) if isinstance(value, dict | cls) else {}

    @field_validator("*", mode="wrap")
    @classmethod
    def _tolerate(cls, value: object, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
        try:
            return validate(value)
        except Exception:
            field = cls.model_fields[info.field_name or ""]
            if field.is_required():
                raise
            return field.get_default(call_default_factory=True, validated_data={})

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.repr and value is not None and value not in ({}, []):
                yield name, value


class PortalModel(Tolerant):
    """The params of some commands of one module of the portal.

    ``@pull.on(Model)`` takes those commands. A model of your own is made in the same way::

        class Ordered(PortalModel, module="application", commands=("order_new", "order_paid")):
            id: Number = None

    Attributes:
        pull_module: The module.
        pull_commands: The commands, today's first; one that ends in ``*`` is a prefix.
    """

    pull_module: ClassVar[str] = ""
    pull_commands: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, module: str = "", commands: tuple[str, ...] = (), **options: Any) -> None:
        """Take note of what the model is of.

        Raises:
            InvalidArgument: Another model is of one of these commands.
        """
        super().__init_subclass__(**options)
        if not module and not commands:
            return  # It is of what the model above is of.
        if not (isinstance(module, str) and module and isinstance(commands, tuple) and commands):
            raise InvalidArgument(f'{cls.__qualname__} takes module="…" and commands=("…",), both')
        for command in commands:
            known = _MODELS.get((module, command))
            if known not in (None, _name(cls)):
                raise InvalidArgument(
                    f"{cls.__qualname__} is for {module}.{command}, which {known} is for already",
                    advice="Derive from that one, or take the event with on(…, model=…).",
                )
        _MODELS.update(dict.fromkeys(((module, command) for command in commands), _name(cls)))
        cls.pull_module = module
        cls.pull_commands = commands


_MODELS: dict[tuple[str, str], str] = {}
"""Which model is of a module's command."""


def _name(model: type) -> str:
    return f"{model.__module__}.{model.__qualname__}"


# -- what PHP writes, by what is meant ----------------------------------------------


def _or_none(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    try:
        return validate(value)
    except Exception:  # Whatever came, it is not this.
        return None


def _number(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    return None if isinstance(value, bool) else _or_none(value, validate)


def _text(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return _or_none(str(value) if is_number else value, validate)


def _flag(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    # Not what pydantic takes for one besides: "on", "off", "t", "f".
    known = {"Y": True, "N": False, "1": True, "0": False, "true": True, "false": False}
    return known.get(value) if isinstance(value, str) else _or_none(value, validate)


def _map(value: object) -> object:
    if isinstance(value, list):
        # A PHP array with keys from 0 on; an empty one may have been any map.
        return {str(key): item for key, item in enumerate(cast("list[object]", value))}
    return value


def _items(value: object) -> object:
    if isinstance(value, dict):
        # A PHP array with a hole in its keys.
        return list(cast("dict[str, object]", value).values())
    return value


Number = Annotated[int | None, WrapValidator(_number)]
"""A whole number, such as an id: also written as text."""

Text = Annotated[str | None, WrapValidator(_text)]
"""Text: also a number; ``false`` is none."""

Flag = Annotated[bool | None, WrapValidator(_flag)]
"""Yes or no: ``true``, ``"Y"``, ``1``, ``"1"``."""

Date = Annotated[datetime | None, WrapValidator(_number)]
"""A point in time, as ISO text or unix time; ``false`` is none."""

Map = Annotated[dict[str, T], BeforeValidator(_map)]
"""A map, whose keys are text; ``[]`` and ``false`` are empty."""

Items = Annotated[list[T], BeforeValidator(_items)]
"""A list, also where PHP wrote a map."""
