"""Everything that reads what others wrote, each as a function of bytes that must never surprise.

A target may raise the errors that it documents, and nothing else; whatever it returns must
be fit for what comes after it.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import typer

from bitrix_pull.cli.account import Account
from bitrix_pull.cli.app import app
from bitrix_pull.cli.config import summarize
from bitrix_pull.cli.credentials import credentials_of
from bitrix_pull.cli.output import Columns, event_as_json
from bitrix_pull.cli.publish import read_params
from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.connection.resume_point import Beginning
from bitrix_pull.errors import InvalidArgument, MalformedFrame, PortalError
from bitrix_pull.events import BACKEND_SENDER, PullEvent
from bitrix_pull.options import check_proxy
from bitrix_pull.portal.addresses import (
    named_oauth_address,
    oauth_address,
    require_tls,
    rest_endpoint,
    webhook_endpoint,
)
from bitrix_pull.portal.answers import read_rest_answer, read_token_answer
from bitrix_pull.portal.http import HttpAnswer
from bitrix_pull.portal.models import read_config, read_public_channels
from bitrix_pull.portal.token_files import read_tokens, write_tokens
from bitrix_pull.portal.tokens import Tokens
from bitrix_pull.wire.channel_ids import PublicChannel, channel_key
from bitrix_pull.wire.close_codes import read_refusal
from bitrix_pull.wire.formats import PART_READERS, READERS, WireFormat
from bitrix_pull.wire.json_text import parser_for
from bitrix_pull.wire.messages import Control, Incoming, Malformed, Position, read_message
from bitrix_pull.wire.skim import skim
from bitrix_pull.wire.urls import publication_url, subscription_url
from tests.fuzz import seeds

UsageError: Any = typer.BadParameter.__base__


class Target(NamedTuple):
    """Something that reads bytes of others.

    Attributes:
        run: Reads them; raises nothing.
        seeds: Gives honest examples.
    """

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _check(error: Exception) -> None:
    """Check what may be logged and shown."""
    assert str(error).isprintable()
    assert len(str(error)) < 2000


# -- frames -----------------------------------------------------------------------


def _reader(wire_format: WireFormat) -> Callable[[bytes], object]:
    read = READERS[wire_format]

    def run(frame: bytes) -> object:
        try:
            messages = list(read(frame))
        except MalformedFrame as error:
            _check(error)
            return None
        cursor = Cursor()
        cursor.connected(Beginning(1_800_000_000.0, None))
        for message in messages:
            _use(message, cursor)
        return messages

    return run


def _part_reader(wire_format: WireFormat) -> Callable[[bytes], object]:
    """Read a frame part by part; its first two bytes tell how large parts and messages may be."""

    def run(content: bytes) -> object:
        part_bytes, max_bytes = content[:1] or b"\x00", content[1:2] or b"\x00"
        size, frame = part_bytes[0] + 1, content[2:]
        reader = PART_READERS[wire_format](4 * max_bytes[0] + 1)
        messages: list[Incoming] = []
        try:
            for at in range(0, len(frame), size):
                messages += reader.feed(frame[at : at + size])
            messages += reader.end()
        except MalformedFrame as error:
            _check(error)
        cursor = Cursor()
        cursor.connected(Beginning(1_800_000_000.0, None))
        for message in messages:
            _use(message, cursor)
        return messages or None

    return run


def _unread(body: bytes) -> object:
    """Tell what a body is about without parsing it, and hold that against what parsing it tells."""
    topics = {(module, command) for module in ("application", "im", "m") for command in ("x", "c", "message")}
    told = skim(body, [body], topics)
    if told is None or told[0] is None:
        return None
    message = read_message("", body, BACKEND_SENDER, parse=parser_for(body, len(body)))
    if isinstance(message, PullEvent):
        assert told[0] == ((message.module_id, message.command), message.extra["server_time_unix"])
    else:
        assert isinstance(message, Malformed)
    return message


def _in_parts(frames: Callable[[], list[bytes]]) -> Callable[[], list[bytes]]:
    return lambda: [bytes((number * 37 % 256, 255)) + frame for number, frame in enumerate(frames())]


def _use(message: Incoming, cursor: Cursor) -> None:
    """Do with a message what a client does with it."""
    if isinstance(message, PullEvent | Control | Malformed):
        cursor.admit(message.mid, 0.0)
        point = cursor.resume_point
        assert point is not None
        assert len(point) == 26
        assert point.isascii()
        assert point.isdigit()
    match message:
        case PullEvent():
            assert isinstance(message.module_id, str)
            assert isinstance(message.command, str)
            assert message.created is None or message.created.year >= 1970
            hash(message)
        case Control():
            assert isinstance(message.params, dict)
        case Malformed():
            assert message.reason.isprintable()
        case Position():
            subscription_url("wss://push.example/", ["x"], WireFormat.TEXT, position=message)
        case _:
            pass


# -- answers ----------------------------------------------------------------------

_HEADERS = {"Date": "Sun, 22 Nov 2026 02:16:35 GMT"}


def _answer(content: bytes) -> HttpAnswer:
    """Take the first line for status and headers, as far as it is that."""
    line, _, body = content.partition(b"\n")
    status, _, value = line.partition(b" ")
    code = int(status) if len(status) == 3 and status.isdigit() else 200
    date = {"Date": _text(value)} if value else _HEADERS
    return HttpAnswer(code, {**date, "Location": _text(value), "Retry-After": _text(value)}, body)


def _rest(content: bytes) -> object:
    answer = _answer(content)
    read_refusal(answer.body)
    try:
        return read_rest_answer(answer, "server.time", ("secret-of-app",))
    except PortalError as error:
        _check(error)
        return None


def _config(content: bytes) -> object:
    with contextlib.suppress(PortalError):
        config = read_config(read_rest_answer(_answer(content), "x", ()).result, "x")
        end = config.earliest_end
        assert end is None or isinstance(end.timestamp(), float)
        assert orjson.dumps(summarize(config))
        with contextlib.suppress(InvalidArgument, ValueError):
            subscription_url(
                config.websocket_url or "",
                config.channel_ids,
                WireFormat.PROTOBUF,
                client_id=config.client_id,
                jwt=config.jwt,
            )
        return config
    return None


def _public_channels(content: bytes) -> object:
    with contextlib.suppress(PortalError):
        channels = read_public_channels(read_rest_answer(_answer(content), "x", ()).result, "x")
        for channel in channels.values():
            with contextlib.suppress(InvalidArgument):
                PublicChannel.parse(f"{channel.public_id}.{channel.signature}")
        return channels
    return None


def _tokens(content: bytes) -> object:
    with contextlib.suppress(PortalError, InvalidArgument):
        answer = read_token_answer(_answer(content), ("secret-of-app",))
        given = Tokens(access_token="a", refresh_token="b")
        renewed = given.renewed(answer, 1_800_000_000.0)
        renewed.expired(1_800_000_000.0)
        return read_tokens(write_tokens(renewed), "the tokens")
    return None


# -- addresses ----------------------------------------------------------------------


def _addresses(content: bytes) -> object:
    text = _text(content)
    for read in (rest_endpoint, webhook_endpoint, oauth_address, PublicChannel.parse):
        with contextlib.suppress(InvalidArgument):
            read(text)
    with contextlib.suppress(InvalidArgument):
        require_tls(text, [text])
    with contextlib.suppress(InvalidArgument):
        check_proxy(text, "proxy")
    with contextlib.suppress(ValueError):  # It is documented to.
        named_oauth_address(text)
    channel_key(text)
    return None


def _urls(content: bytes) -> object:
    """Ids are anything that JSON can hold, which is no lone surrogate."""
    address, _, rest = content.decode("utf-8", "replace").partition("\n")
    channel, _, value = rest.partition("\n")
    with contextlib.suppress(InvalidArgument):
        require_tls(address, [])
        for wire_format in WireFormat:
            url = subscription_url(address, [channel], wire_format, mid=value, client_id=value, jwt=value)
            assert url.isascii() or not address.isascii()
        publication_url(address, [channel, value], client_id=value)
    return None


# -- the command line -----------------------------------------------------------------


def _cli_params(content: bytes) -> object:
    with contextlib.suppress(InvalidArgument):
        params = read_params(_text(content))
        assert isinstance(params, dict)
        return params
    return None


def _cli_account(content: bytes) -> object:
    fields = [_text(field) or None for field in content.split(b"\n")[:6]]
    webhook, portal, token, *environment = fields + [None] * (6 - len(fields))
    names = ("BITRIX_PULL_WEBHOOK", "BITRIX_PULL_PORTAL", "BITRIX_PULL_TOKEN")
    given = {name: value for name, value in zip(names, environment, strict=True) if value}
    with contextlib.suppress(InvalidArgument):
        return repr(credentials_of(Account(webhook=webhook, portal=portal, token=token), given))
    return None


_STOP = "--no-such-option-of-ours"
_nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
_command: Any = typer.main.get_command(app)


def _cli_options(content: bytes) -> object:
    """Read a command line that ends with a wrong option, so that nothing is ever run."""
    arguments = [_text(argument) for argument in content.split(b"\n") if argument]
    if "--" in arguments:
        return None
    # Twice, as the first may be taken for the value of what stands before it.
    arguments += [_STOP, _STOP]
    with contextlib.suppress(UsageError, typer.Exit, typer.Abort), contextlib.redirect_stdout(_nowhere):
        return _command(["listen", *arguments], prog_name="bitrix-pull", standalone_mode=False)
    return None


def _cli_output(content: bytes) -> object:
    """Show whatever events a frame holds."""
    with contextlib.suppress(MalformedFrame):
        for message in READERS[WireFormat.JSONRPC](content):
            if isinstance(message, PullEvent):
                with contextlib.suppress(orjson.JSONEncodeError):
                    line = orjson.dumps(event_as_json(message))
                    assert b"\n" not in line
                with contextlib.redirect_stdout(_nowhere):
                    Columns().show(message)
    return None


TARGETS: dict[str, Target] = {
    "protobuf": Target(_reader(WireFormat.PROTOBUF), seeds.binary_frames),
    "text": Target(_reader(WireFormat.TEXT), seeds.text_frames),
    "json": Target(_reader(WireFormat.JSON), seeds.json_frames),
    "jsonrpc": Target(_reader(WireFormat.JSONRPC), seeds.jsonrpc_frames),
    "unread": Target(_unread, seeds.portal_bodies),
    "protobuf-parts": Target(_part_reader(WireFormat.PROTOBUF), _in_parts(seeds.binary_frames)),
    "text-parts": Target(_part_reader(WireFormat.TEXT), _in_parts(seeds.text_frames)),
    "json-parts": Target(_part_reader(WireFormat.JSON), _in_parts(seeds.json_frames)),
    "jsonrpc-parts": Target(_part_reader(WireFormat.JSONRPC), _in_parts(seeds.jsonrpc_frames)),
    "rest": Target(_rest, seeds.rest_answers),
    "config": Target(_config, seeds.configs),
    "public-channels": Target(_public_channels, seeds.public_channels),
    "tokens": Target(_tokens, seeds.token_answers),
    "addresses": Target(_addresses, seeds.addresses),
    "urls": Target(_urls, seeds.urls),
    "cli-params": Target(_cli_params, seeds.params),
    "cli-account": Target(_cli_account, seeds.accounts),
    "cli-options": Target(_cli_options, seeds.options),
    "cli-output": Target(_cli_output, seeds.jsonrpc_frames),
}
