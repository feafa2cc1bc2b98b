"""What is known of push servers of version 4, one check after the other (protocol §4 to §9)."""

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import AsyncExitStack

from bitrix_pull.emulator.contract.server import (
    PATIENCE_S,
    Channels,
    Check,
    Difference,
    Run,
    Server,
    bodies,
    close_of,
    frame,
    messages,
    refusal_of,
    same,
)
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.protobuf import Publication, encode_publications, encode_status_request
from bitrix_pull.wire.text import CLOSING, OPENING

CHECKS: list[Check] = []
"""All of them."""

_TRICKY = rb'{"text":"#!NGINXNME!# and #!NGINXNMS!# and \"quotes\""}'
_MID = re.compile(r"[0-9]{26}")


def check(name: str, *needs: str, slow: bool = False) -> Callable[[Run], Run]:
    """Add a check to the list."""

    def add(run: Run) -> Run:
        CHECKS.append(Check(name, run, needs, slow))
        return run

    return add


def _mid_of(message: push_pb2.OutgoingMessage) -> str:
    return message.id.hex()


# -- live messages ------------------------------------------------------------------------------


@check("a message on the private or the shared channel comes at once, as it was published")
async def _(server: Server) -> None:
    channels = Channels()
    for channel_id in (channels.private_id, channels.shared_id):
        async with server.listening(server.subscribed(channels)) as websocket:
            await server.publish(channel_id, b'{"n":1}', 60)
            (message,) = messages(await frame(websocket))
            same("body", message.body, b'{"n":1}')
            same("expiry", message.expiry, 60)
            same("type of the sender", message.sender.type, push_pb2.BACKEND)
            same("a mid of 26 digits", bool(_MID.fullmatch(_mid_of(message))), True)


@check("mids ascend over all channels, by one counter")
async def _(server: Server) -> None:
    first, second = Channels(), Channels()
    async with (
        server.listening(server.subscribed(first)) as one,
        server.listening(server.subscribed(second)) as two,
    ):
        await server.publish(first.private_id, b"{}")
        await server.publish(second.private_id, b"{}")
        (earlier,), (later,) = messages(await frame(one)), messages(await frame(two))
    same("the same epoch", _mid_of(earlier)[:10], _mid_of(later)[:10])
    same("the later mid is greater", _mid_of(earlier) < _mid_of(later), True)


@check("what follows a message within 400 ms is gathered into one frame")
async def _(server: Server) -> None:
    channels = Channels()
    request = push_pb2.Request()
    for number in range(4):
        message = request.incomingMessages.messages.add(body=b"%d" % number, expiry=60)
        message.receivers.add(id=bytes.fromhex(channels.private_id), isPrivate=True)
    async with server.listening(server.subscribed(channels)) as websocket:
        together = push_pb2.RequestBatch(requests=[request]).SerializeToString()
        same("status", (await server.post(server.pub, together, binaryMode="true")).status, 200)
        same("the first frame", bodies(await frame(websocket)), [b"0"])
        began = asyncio.get_running_loop().time()
        same("the second frame", bodies(await frame(websocket)), [b"1", b"2", b"3"])
        same("it comes later", asyncio.get_running_loop().time() - began > 0.1, True)


@check("text is delimited, and a body is passed on as it is, delimiters and all")
async def _(server: Server) -> None:
    channels = Channels()
    async with server.listening(server.subscribed(channels), binary=False) as websocket:
        await server.publish(channels.private_id, _TRICKY)
        received = await frame(websocket)
    same("the marks", (received[: len(OPENING)], received[-len(CLOSING) :]), (OPENING, CLOSING))
    envelope = json.loads(received[len(OPENING) : -len(CLOSING)])
    same("text", envelope["text"], json.loads(_TRICKY))
    same("a mid of 26 digits", bool(_MID.fullmatch(envelope["mid"])), True)


@check("pings are answered")
async def _(server: Server) -> None:
    async with server.listening(server.subscribed(Channels())) as websocket:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await (await websocket.ping())
        except TimeoutError:
            raise Difference("no pong came") from None


# -- history ----------------------------------------------------------------------------------------


async def _published(server: Server, channels: Channels) -> list[str]:
    """Publish 1 to 4, on both channels in turn, and return their mids."""
    mids: list[str] = []
    for number in range(1, 5):
        channel_id = channels.private_id if number % 2 else channels.shared_id
        async with server.listening(server.subscribed(channels)) as websocket:
            await server.publish(channel_id, b"%d" % number)
            mids += map(_mid_of, messages(await frame(websocket)))
    return mids


@check("mid= replays what is newer, both channels merged, in one response before what is live")
async def _(server: Server) -> None:
    channels = Channels()
    mids = await _published(server, channels)
    async with server.listening(server.subscribed(channels), mid=mids[1]) as websocket:
        await server.publish(channels.private_id, b"live")
        same("the replay", bodies(await frame(websocket)), [b"3", b"4"])
        same("then", bodies(await frame(websocket)), [b"live"])


@check("a mid of zeros replays all, one that is none is ignored, and expiry 0 is not kept")
async def _(server: Server) -> None:
    channels = Channels()
    await _published(server, channels)
    await server.publish(channels.private_id, b"brief", 0)
    async with server.listening(server.subscribed(channels), mid="0" * 26) as websocket:
        same("the replay", bodies(await frame(websocket)), [b"1", b"2", b"3", b"4"])
    async with server.listening(server.subscribed(channels), mid="0" * 25) as websocket:
        await server.publish(channels.private_id, b"live", 0)
        same("the first frame", bodies(await frame(websocket)), [b"live"])


@check("a poll with mid= is answered with the history, without one with what comes")
async def _(server: Server) -> None:
    channels = Channels()
    mids = await _published(server, channels)
    channel_id = server.subscribed(channels)
    replay = await server.get(server.sub, CHANNEL_ID=channel_id, binaryMode="true", mid=mids[0])
    same("status", replay.status, 200)
    same("type", replay.headers.get("Content-Type"), "application/octet-stream")
    same("the replay", bodies(replay.body), [b"2", b"3", b"4"])
    async with server.polling(channel_id) as poll:
        await server.publish(channels.shared_id, b'"live"')
        answer = await poll
    same("type of text", answer.headers.get("Content-Type", "").partition(";")[0], "text/plain")
    same("opening mark", answer.body[: len(OPENING)], OPENING)


@check("an idle poll ends after 40 s with 304, and names the newest mid", slow=True)
async def _(server: Server) -> None:
    channels = Channels()
    mids = await _published(server, channels)
    answer = await server.get(server.sub, CHANNEL_ID=server.subscribed(channels), binaryMode="true")
    same("status", answer.status, 304)
    same("Last-Message-Id", answer.headers.get("Last-Message-Id"), mids[-1])
    same("Expires", answer.headers.get("Expires"), "Thu, 01 Jan 1973 11:11:01 GMT")


# -- channels that are refused ----------------------------------------------------------------------


async def _refused(server: Server, channel_id: str) -> None:
    same("the handshake", await refusal_of(server.connect(channel_id)), (400, b"Wrong Channel Id."))
    poll = await server.get(server.sub, CHANNEL_ID=channel_id)
    same("the poll", (poll.status, poll.body), (400, b"4010: Wrong Channel Id."))


@check("no channel, one in capitals, and a trailing slash are refused")
async def _(server: Server) -> None:
    good = server.private(Channels())
    for channel_id in ("", good.upper(), f"{good}/"):
        await _refused(server, channel_id)


@check("a wrong signature is refused, also beside a good one", "has_key")
async def _(server: Server) -> None:
    good = server.private(Channels())
    bad = good[:-1] + ("1" if good.endswith("0") else "0")
    for channel_id in (bad, f"{good}/{bad}", server.public(Channels()).text):
        await _refused(server, channel_id)


async def _hundred_come(server: Server, channel_id: str, stack: AsyncExitStack) -> None:
    for _ in range(100):
        await stack.enter_async_context(server.connect(channel_id))


@check("over 100 connections on a private channel the oldest is closed with 4029", slow=True)
async def _(server: Server) -> None:
    channel_id = server.private(Channels())
    async with AsyncExitStack() as stack, server.listening(channel_id) as first:
        await _hundred_come(server, channel_id, stack)
        same("the close", await close_of(first), (4029, "4029: Too many connections"))


@check("over 100 connections on a private channel the oldest poll is answered with 429", slow=True)
async def _(server: Server) -> None:
    channel_id = server.private(Channels())
    async with AsyncExitStack() as stack, server.polling(channel_id) as poll:
        await _hundred_come(server, channel_id, stack)
        answer = await poll
    same("the poll", (answer.status, answer.body), (429, b"4029: Too many connections"))


# -- publishing by clients -----------------------------------------------------------------------------


def _request(*receivers: PublicChannel, messages: int = 1, body: bytes = b"{}") -> bytes:
    return encode_publications([Publication(receivers, body, 60)] * messages)


def _private_receiver(channel: PublicChannel) -> bytes:
    request = push_pb2.Request()
    message = request.incomingMessages.messages.add(body=b"{}", expiry=60)
    message.receivers.add(id=channel.id, isPrivate=True, signature=channel.signature)
    return push_pb2.RequestBatch(requests=[request]).SerializeToString()


_STATS = push_pb2.RequestBatch(
    requests=[push_pb2.Request(serverStats=push_pb2.ServerStatsRequest())]
).SerializeToString()


def _refusals(server: Server, channels: Channels) -> dict[str, bytes]:
    """Return requests by what they are refused with."""
    own = server.public(channels)
    refusals = {
        "4013: Wrong Request Data.": b"\xffnot protobuf",
        "4014: Request command is not allowed.": _STATS,
        "4016: Request exceeded the maximum number of messages.": _request(own, messages=101),
        "4017: No channels found.": _request(),
        "4018: Request exceeded the maximum number of channels.": _request(*[own] * 101),
        "4020: Private channel is not allowed.": _private_receiver(own),
    }
    if server.has_key:
        refusals["4021: Channel has an invalid signature."] = _request(PublicChannel(own.id, bytes(20)))
    return refusals


@check("a client publishes by endpoint and by socket, and hears itself", "rest")
async def _(server: Server) -> None:
    channels = Channels()
    own = server.public(channels)
    async with server.listening(server.subscribed(channels)) as websocket:
        answer = await server.post(server.rest, _request(own), CHANNEL_ID=server.private(channels))
        same("the answer", (answer.status, answer.body), (200, b""))
        (by_endpoint,) = messages(await frame(websocket))
        await websocket.send(_request(own))
        (by_socket,) = messages(await frame(websocket))
    for message in (by_endpoint, by_socket):
        same("type of the sender", message.sender.type, push_pb2.CLIENT)
        same("id of the sender", message.sender.id, own.id)


@check("the endpoint refuses what it should, by the code that is known", "rest")
async def _(server: Server) -> None:
    channels = Channels()
    for text, request in _refusals(server, channels).items():
        answer = await server.post(server.rest, request, CHANNEL_ID=server.subscribed(channels))
        same(f"the answer to {text[:4]}", (answer.status, answer.body), (400, text.encode()))
    shared = server.signer.sign(channels.shared_id)
    answer = await server.post(server.rest, _request(server.public(channels)), CHANNEL_ID=shared)
    same("without a public channel", (answer.status, answer.body[:5]), (400, b"4012:"))
    large = _request(server.public(channels), body=bytes(1_048_576))
    answer = await server.post(server.rest, large, CHANNEL_ID=server.subscribed(channels))
    same("status over 1 MiB", answer.status, 413)


@check("the socket closes with the same codes, and texts that open with them")
async def _(server: Server) -> None:
    channels = Channels()
    for text, request in _refusals(server, channels).items():
        async with server.listening(server.subscribed(channels)) as websocket:
            await websocket.send(request)
            same("the close", await close_of(websocket), (int(text[:4]), text))
    async with server.listening(server.signer.sign(channels.shared_id)) as websocket:
        await websocket.send(_request(server.public(channels)))
        same(
            "without a public channel",
            await close_of(websocket),
            (4012, "4012: Public Channel Id is Required."),
        )
    async with server.listening(server.subscribed(channels)) as websocket:
        await websocket.send(_request(server.public(channels), body=bytes(1_048_576)))
        same("the close over 1 MiB", await close_of(websocket), None)


@check("in text, frames of clients are ignored")
async def _(server: Server) -> None:
    channels = Channels()
    async with server.listening(server.subscribed(channels), binary=False) as websocket:
        await websocket.send(_request(server.public(channels)))
        await server.publish(channels.private_id, b'"after"')
        same("the first frame holds", b'"after"' in await frame(websocket), True)


@check("channelStats tells who is online")
async def _(server: Server) -> None:
    here, away = Channels(), Channels()
    async with server.listening(server.subscribed(here)) as websocket:
        await websocket.send(encode_status_request([server.public(here), server.public(away)]))
        batch = push_pb2.ResponseBatch.FromString(await frame(websocket))
    stats = {channel.id.hex(): channel.isOnline for channel in batch.responses[0].channelStats.channels}
    same("online", stats, {here.public_id: True, away.public_id: False})


# -- the portal's side -------------------------------------------------------------------------------


@check("the portal asks which channels are online")
async def _(server: Server) -> None:
    here, away = Channels(), Channels()
    async with server.listening(server.subscribed(here)):
        answer = await server.get(server.pub, CHANNEL_ID=f"{here.private_id}/{away.private_id}")
    infos = json.loads(answer.body)["infos"]
    same("infos", [info["channel"] for info in infos], [here.private_id])
    answer = await server.get(server.pub, CHANNEL_ID="")
    same("without channels", (answer.status, answer.body), (400, b"4017: No channels found."))


@check("the portal publishes to private channels in protobuf, and is told of ids that are none")
async def _(server: Server) -> None:
    channels = Channels()
    request = _private_receiver(PublicChannel(bytes.fromhex(channels.private_id), b""))
    async with server.listening(server.subscribed(channels)) as websocket:
        answer = await server.post(server.pub, request, binaryMode="true")
        same("status", answer.status, 200)
        same("the frame", bodies(await frame(websocket)), [b"{}"])
    answer = await server.post(server.pub, _private_receiver(PublicChannel(b"short", b"")), binaryMode="true")
    same("an id of 5 bytes", (answer.status, answer.body), (400, b"4019: Request has an invalid channel id."))


@check("the statistics are a list with an object a process", "stat")
async def _(server: Server) -> None:
    stats = json.loads((await server.get(server.stat)).body)
    names = {
        "pid",
        "date",
        "processUniqueId",
        "channels",
        "limits",
        "clusterMode",
        "websockets",
        "pollings",
        "daily",
    }
    same("is a list", isinstance(stats, list), True)
    same("missing", sorted(names - set(stats[0])), [])


# -- browsers ------------------------------------------------------------------------------------------


@check("pages of any origin may subscribe")
async def _(server: Server) -> None:
    answer = await server.get(server.sub, CHANNEL_ID="")
    same("of a refusal", answer.headers.get("Access-Control-Allow-Origin"), "*")
    same("exposed", answer.headers.get("Access-Control-Expose-Headers"), "Last-Message-Id")
    preflight = await server.get(server.sub, "OPTIONS")
    same("status of OPTIONS", preflight.status, 200)
    same("allowed methods", "GET" in preflight.headers.get("Access-Control-Allow-Methods", ""), True)
