"""What befalls one WebSocket: its messages, its frames, its bytes."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from websockets.frames import Frame, Opcode

End = Literal["fin", "reset", "silence"]
"""How a connection ends: closed, reset, or half-open, with no sign of it at all."""


@dataclass(slots=True, kw_only=True)
class ConnectionFaults:
    """What befalls one WebSocket. Everything may be changed while it is open.

    Parts are probabilities from 0 to 1, and ``dice`` decides.

    Attributes:
        overtaken: Part of the messages that the next message overtakes.
        duplicated: Part of the frames that are sent twice.
        garbled: Part of the frames whose payload is turned into bytes that mean nothing.
        fragment_bytes: Frames go out in fragments of so many bytes; None: whole.
        gather_s: How long messages are gathered into one frame; None: as the server does.
        close_after_frames: After so many frames it is closed with ``close_code``; None: never.
        close_code: That code.
        cut_after_bytes: How many bytes are still written before ``end``; None: no end.
        end: How it then ends.
        bytes_per_s: How fast what is written trickles out; None: at once.
        stall_after_bytes: How many bytes are still written before a pause of ``stall_s``.
        stall_s: That pause; nothing is lost by it.
        deaf: The server stops reading: what the client sends, pings and FIN too, goes nowhere.
        mute: What the server writes, pongs and FIN too, goes nowhere.
        dice: Decides where there is a choice.
    """

    overtaken: float = 0.0
    duplicated: float = 0.0
    garbled: float = 0.0
    fragment_bytes: int | None = None
    gather_s: float | None = None
    close_after_frames: int | None = None
    close_code: int = 1012
    cut_after_bytes: int | None = None
    end: End = "fin"
    bytes_per_s: float | None = None
    stall_after_bytes: int | None = None
    stall_s: float = 0.0
    deaf: bool = False
    mute: bool = False
    dice: random.Random = field(default_factory=random.Random)

    @classmethod
    def drawn(cls, random_source: random.Random) -> Self:
        """Return one fault, or none, drawn by chance."""
        faults = cls(dice=random_source)
        draw = random_source.choice(_DRAWS)
        draw(faults, random_source)
        return faults

    def happens(self, part: float) -> bool:
        """Throw the dice."""
        return part > 0 and self.dice.random() < part

    def pieces(self, frame: bytes) -> Sequence[bytes]:
        """Return what is written in place of a frame (a server's: not masked)."""
        if not (self.duplicated or self.garbled or self.fragment_bytes):
            return (frame,)
        opcode, payload = _opened(frame)
        if self.happens(self.garbled):
            # No varint, and no UTF-8: all codecs see at once that this is nothing.
            payload = b"\xff" * max(len(payload), 16)
        size = self.fragment_bytes or len(payload)
        parts = [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]
        written = [
            Frame(Opcode.CONT if index else opcode, part, fin=index == len(parts) - 1).serialize(mask=False)
            for index, part in enumerate(parts)
        ]
        return written * 2 if self.happens(self.duplicated) else written


def seeded(seed: int) -> Callable[[int], ConnectionFaults]:
    """Return a script for ``PushFaults``: each connection has some fault, by chance but repeatable."""
    return lambda number: ConnectionFaults.drawn(random.Random(f"{seed}/{number}"))


def _overtake(faults: ConnectionFaults, rng: random.Random) -> None:
    faults.overtaken = rng.uniform(0, 0.5)


def _duplicate(faults: ConnectionFaults, rng: random.Random) -> None:
    faults.duplicated = rng.uniform(0, 1)


def _garble(faults: ConnectionFaults, rng: random.Random) -> None:
    faults.garbled = rng.uniform(0, 0.2)


def _fragment(faults: ConnectionFaults, rng: random.Random) -> None:
    faults.fragment_bytes = rng.randrange(1, 100)


def _merge(faults: ConnectionFaults, rng: random.Random) -> None:
    faults.gather_s = rng.uniform(0, 3)


def _close(faults: ConnectionFaults, rng: random.Random) -> None:
    faults.close_after_frames = rng.randrange(1, 50)
    faults.close_code = rng.choice([1000, 1001, 1011, 1012, 1013, 4011, 4013])


def _cut(faults: ConnectionFaults, rng: random.Random) -> None:
    faults.cut_after_bytes = rng.randrange(0, 20_000)
    faults.end = rng.choice(["fin", "reset", "silence"])


def _dribble(faults: ConnectionFaults, rng: random.Random) -> None:
    faults.bytes_per_s = rng.uniform(500, 5_000)
    _cut(faults, rng)


def _stall(faults: ConnectionFaults, rng: random.Random) -> None:
    faults.stall_after_bytes = rng.randrange(0, 20_000)
    faults.stall_s = rng.uniform(0.1, 30)


_DRAWS = (_overtake, _duplicate, _garble, _fragment, _merge, _close, _cut, _dribble, _stall)


def _opened(frame: bytes) -> tuple[Opcode, bytes]:
    """Return opcode and payload of an unmasked frame."""
    header_bytes = {126: 4, 127: 10}.get(frame[1], 2)
    return Opcode(frame[0] & 0x0F), frame[header_bytes:]
