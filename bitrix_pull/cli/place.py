"""The options about where a hub's portals are kept, and over what hubs share them."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from bitrix_pull.errors import InvalidArgument

NAME = "bitrix-pull"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The options of a command line about a hub's portals, as they were given.

    Each field is an option; see ``option_groups.takes``.
    """

    portals: Annotated[
        Path | None,
        typer.Option(
            "--portals",
            metavar="FILE",
            help="Database of portals, tokens and resume points. Default: --valkey keeps them.",
        ),
    ] = None
    valkey: Annotated[
        str | None,
        typer.Option(
            "--valkey",
            metavar="URL",
            help="Valkey or Redis, over which hubs on any machines share the portals. Or BITRIX_PULL_VALKEY.",
        ),
    ] = field(default=None, repr=False)
    name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="With --valkey: tells these hubs from others there."),
    ] = NAME
    cipher_keys: Annotated[
        Path | None,
        typer.Option(
            "--cipher-keys",
            metavar="FILE",
            help="Fernet keys, by which --valkey keeps portals and tokens encrypted. "
            "Or BITRIX_PULL_CIPHER_KEYS.",
        ),
    ] = None

    @property
    def engine(self) -> str | None:
        """The address of a Valkey or Redis, by the option or the environment; None: one machine has all."""
        return self.valkey or os.environ.get("BITRIX_PULL_VALKEY") or None

    @property
    def keys(self) -> Path | None:
        """The file of keys, by the option or the environment; None: nothing is encrypted."""
        named = os.environ.get("BITRIX_PULL_CIPHER_KEYS")
        return self.cipher_keys or (Path(named) if named else None)

    def check(self) -> None:
        """Refuse options that would have no effect.

        Raises:
            InvalidArgument: There is one, or no place at all.
        """
        if self.portals is None and self.engine is None:
            raise InvalidArgument("the portals are missing", advice="Give --portals FILE, or --valkey URL.")
        if self.cipher_keys is not None and self.portals is not None:
            raise InvalidArgument(
                "--cipher-keys is for what --valkey keeps: the database of --portals is not encrypted",
                advice="Leave one of the two out.",
            )
        if self.name != NAME and self.engine is None:
            raise InvalidArgument("--name goes with --valkey")


def valkey() -> Any:
    """Return ``bitrix_pull.hub.valkey``, which only some have a use for.

    Raises:
        InvalidArgument: What it takes is not installed.
    """
    try:
        from bitrix_pull.hub import valkey
    except ImportError:
        raise InvalidArgument(
            "--valkey takes the package redis", advice="pip install 'bitrix-pull[hub]'."
        ) from None
    return valkey
