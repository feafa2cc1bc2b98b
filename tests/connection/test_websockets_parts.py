"""What ``frame_socket.py`` and its neighbours build on inside of the ``websockets`` library.

These are parts that the library documents little or not at all, so a new release may move them.
If a test here fails, look at what became of the part, and mend those modules before raising the
upper bound of the dependency.
"""

import inspect
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

METHODS: list[tuple[type[Any], str, Sequence[str]]] = [
    (ClientConnection, "process_event", ["event"]),
    (ClientConnection, "data_received", ["data"]),
    (ClientConnection, "eof_received", []),
    (ClientConnection, "connection_lost", ["exc"]),
    (ClientConnection, "send", ["message", "text"]),
    (ClientConnection, "close", ["code", "reason"]),
    (ClientConnection, "wait_closed", []),
    (ClientConnection, "ping", ["data"]),
    (connect, "process_redirect", ["exc"]),
    (connect, "__init__", ["uri", "create_connection", "compression", "max_size", "open_timeout"]),
    (connect, "__init__", ["close_timeout", "ping_interval", "proxy", "logger"]),
    (Frame, "serialize", ["mask"]),
    (ConnectionClosedError, "__init__", ["rcvd", "sent", "rcvd_then_sent"]),
]


@pytest.mark.parametrize(("kind", "name", "parameters"), METHODS)
def test_methods_that_are_overridden_or_called(kind: type[Any], name: str, parameters: Sequence[str]) -> None:
    method: Callable[..., Any] | None = getattr(kind, name, None)
    assert method is not None, moved(f"{kind.__name__}.{name}")
    missing = set(parameters) - inspect.signature(method).parameters.keys()
    assert not missing, moved(f"{kind.__name__}.{name}({', '.join(sorted(missing))})")


@pytest.mark.parametrize(
    "name", ["state", "close_rcvd", "close_sent", "close_rcvd_then_sent", "max_message_size"]
)
def test_attributes_of_the_protocol(name: str) -> None:
    protocol = ClientProtocol(parse_uri("ws://push.example/"))
    assert hasattr(protocol, name), moved(f"ClientProtocol.{name}")


@pytest.mark.parametrize("name", ["loop", "transport", "protocol", "response"])
def test_attributes_of_the_connection(name: str) -> None:
    sources = [inspect.getsource(kind) for kind in ClientConnection.__mro__[:2]]
    assert any(f"self.{name}" in source for source in sources), moved(f"ClientConnection.{name}")


def test_frames_and_states() -> None:
    assert {State.CONNECTING, State.OPEN} <= set(State), moved("protocol.State")
    assert {Opcode.TEXT, Opcode.BINARY, Opcode.CONT} <= set(Opcode), moved("frames.Opcode")
    frame = Frame(Opcode.TEXT, b"x")
    assert (frame.opcode, frame.data, frame.fin) == (Opcode.TEXT, b"x", True), moved("frames.Frame")


def test_bytes_are_masked_by_a_function_of_the_library() -> None:
    try:
        from websockets.speedups import apply_mask
    except ImportError:
        from websockets.utils import apply_mask
    assert apply_mask(b"abcde", b"\x01\x02\x03\x04") == b"\x60\x60\x60\x60\x64", moved("apply_mask")


def moved(part: str) -> str:
    return f"websockets {version('websockets')} has moved {part}, which connection/frame_socket.py builds on"
