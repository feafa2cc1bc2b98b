"""What befalls the requests of publishing clients, and the limits that are set (protocol §7)."""

from typing import Any

import aiohttp
import orjson
import pytest

from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.faults import PublishFault
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.close_codes import ServerClose
from bitrix_pull.wire.protobuf import Publication, encode_publications
from bitrix_pull.wire.urls import publication_url

pytestmark = pytest.mark.every_loop


def request(emu: Emulator, *, messages: int = 1, receivers: int = 1) -> tuple[str, bytes]:
    """Return where user 1 publishes to itself, and what."""
    config = emu.portal.config("application", 1)
    own = config["channels"]["private"]
    channel = PublicChannel.parse(own["public_id"])
    body = encode_publications([Publication([channel] * receivers, b"{}", 60)] * messages)
    return publication_url(emu.rest_url, [own["id"]]), body


FAULTS: list[tuple[dict[str, Any], int, str]] = [
    ({"status": 502}, 502, ""),
    ({"refusal": ServerClose.PRIVATE_RECEIVER}, 400, "4020: Private channel is not allowed."),
    ({"status": 429, "retry_after_s": 7}, 429, ""),
]


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize(("fault", "status", "body"), FAULTS, ids=str)
async def test_a_request_is_spoilt_before_or_after_it_is_carried_out(
    emulator: Emulator,
    session: aiohttp.ClientSession,
    fault: dict[str, Any],
    status: int,
    body: str,
    applied: bool,
) -> None:
    url, content = request(emulator)
    emulator.push.faults.publishing = lambda n: PublishFault(applied=applied, **fault) if n == 0 else None
    async with session.post(url, data=content) as answer:
        assert (answer.status, await answer.text()) == (status, body)
        assert answer.headers.get("Retry-After") == (str(7) if status == 429 else None)
    assert emulator.push.counters.messages == applied
    async with session.post(url, data=content) as answer:
        assert answer.status == 200


async def test_a_request_without_an_answer(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    url, content = request(emulator)
    emulator.push.faults.publishing = lambda number: PublishFault(cut=True, applied=True)
    with pytest.raises(aiohttp.ClientError):
        await session.post(url, data=content)
    assert emulator.push.counters.messages == 1


@pytest.mark.parametrize(
    ("limit", "size", "status", "body"),
    [
        ("messages", {"messages": 3}, 400, "4016: Request exceeded the maximum number of messages."),
        ("receivers", {"receivers": 3}, 400, "4018: Request exceeded the maximum number of channels."),
        ("request_bytes", {}, 413, ""),
    ],
)
async def test_limits_can_be_set(
    emulator: Emulator,
    session: aiohttp.ClientSession,
    limit: str,
    size: dict[str, int],
    status: int,
    body: str,
) -> None:
    setattr(emulator.push.limits, limit, 2)
    url, content = request(emulator, **size)
    async with session.post(url, data=content) as answer:
        assert (answer.status, await answer.text()) == (status, body)


async def test_integers_pass_through_the_portal_exactly(
    emulator: Emulator, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[bytes] = []
    publish = emulator.push.publish

    def kept(channels: Any, body: bytes, *rest: Any) -> str:
        bodies.append(body)
        return publish(channels, body, *rest)

    monkeypatch.setattr(emulator.push, "publish", kept)
    url = f"{emulator.portal_url}/rest/pull.application.event.add.json"
    params = f'{{"n": {2**70}, "m": {-(2**64)}}}'
    for content in (params, orjson.dumps(params).decode()):
        call = f'{{"COMMAND": "x", "PARAMS": {content}, "auth": "{emulator.token}"}}'
        async with session.post(url, data=call, headers={"Content-Type": "application/json"}) as answer:
            assert answer.status == 200
        assert f'"params":{{"n":{2**70},"m":{-(2**64)}}}'.encode() in bodies.pop()
