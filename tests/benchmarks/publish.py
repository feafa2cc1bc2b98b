"""Publishing many events, by the publish endpoint and over REST."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal

import aiohttp
import orjson

from bitrix_pull import AccessToken, Message, PullClient, PullOptions
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.protobuf import Publication, encode_publications
from bitrix_pull.wire.urls import publication_url
from tests.benchmarks.comparison import Comparison, Figures
from tests.benchmarks.served_emulator import ServedEmulator, serving

Route = Literal["endpoint", "rest"]

_MESSAGES: dict[Route, int] = {"endpoint": 10_000, "rest": 2_000}
_A_REQUEST = 100
_AT_ONCE = 4
_EXPIRY_S = 86_400
_USER = 1


def comparisons(scale: float) -> Iterable[Comparison]:
    """``publish_many`` by the endpoint and over REST, against bare posts of the same bytes."""
    for route, most in _MESSAGES.items():
        messages = max(int(most * scale), 1)
        yield Comparison(
            f"{messages:,} messages by {route}",
            partial(client, route, messages),
            partial(bare_posts, route, messages),
        )


def _params(number: int) -> dict[str, Any]:
    return {"id": number, "status": "paid", "note": "n" * 300}


def _figures(messages: int, cpu_s: float, wall_s: float) -> Figures:
    return {"cpu_us": cpu_s / messages * 1e6, "messages_per_s": messages / wall_s}


def client(route: Route, messages: int) -> Figures:
    """Let a ``PullClient`` publish; the messages are made before."""

    async def main() -> Figures:
        async with serving() as served:
            pull = PullClient(
                AccessToken(served.portal_url, served.token), options=PullOptions(rest_limit=None)
            )
            # Not part of it: the configuration is fetched once in a client's life.
            await pull.publish("first", users=_USER, route=route)
            many = [
                Message("order_update", _params(number), users=_users(route, number))
                for number in range(messages)
            ]
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            receipt = await pull.publish_many(many, route=route)
            cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
            assert not receipt.failures
            await pull.close()
            return _figures(messages, cpu_s, wall_s)

    return asyncio.run(main())


def _users(route: Route, number: int) -> int:
    # Over REST a call is one message, and those to one user go one after the other.
    return _USER if route == "endpoint" else 1 + number % _AT_ONCE


def bare_posts(route: Route, messages: int) -> Figures:
    """Let aiohttp alone post the same bytes, with as many requests under way."""

    async def main() -> Figures:
        async with serving() as served, aiohttp.ClientSession() as http:
            if route == "endpoint":
                address, requests = await _endpoint_requests(http, served, messages)
                at_once = 1
            else:
                address, requests = _rest_requests(served, messages)
                at_once = _AT_ONCE
            await _post(http, address, requests[:1])
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            await asyncio.gather(*(_post(http, address, requests[n::at_once]) for n in range(at_once)))
            return _figures(messages, time.process_time() - cpu_s, time.perf_counter() - wall_s)

    return asyncio.run(main())


async def _post(http: aiohttp.ClientSession, address: str, requests: Sequence[bytes]) -> None:
    headers = {
        "Content-Type": "application/json" if address.endswith(".json") else "application/octet-stream"
    }
    for request in requests:
        async with http.post(address, data=request, headers=headers) as response:
            await response.read()
            response.raise_for_status()


async def _endpoint_requests(
    http: aiohttp.ClientSession, served: ServedEmulator, messages: int
) -> tuple[str, list[bytes]]:
    call = f"{served.portal_url}/rest/pull.application.config.get"
    async with http.post(call, json={"auth": served.token}) as response:
        config = (await response.json())["result"]
    channels = config["channels"]
    receiver = PublicChannel.parse(channels["private"]["public_id"])
    publications = [
        Publication(
            [receiver],
            orjson.dumps({"module_id": "application", "command": "order_update", "params": _params(number)}),
            _EXPIRY_S,
        )
        for number in range(messages)
    ]
    address = publication_url(
        config["server"]["publish"], [channels["private"]["id"], channels["shared"]["id"]]
    )
    return address, [
        encode_publications(publications[start : start + _A_REQUEST])
        for start in range(0, messages, _A_REQUEST)
    ]


def _rest_requests(served: ServedEmulator, messages: int) -> tuple[str, list[bytes]]:
    requests = [
        orjson.dumps(
            {
                "COMMAND": "order_update",
                "PARAMS": _params(number),
                "MODULE_ID": "application",
                "USER_ID": str(_users("rest", number)),
                "auth": served.token,
            }
        )
        for number in range(messages)
    ]
    return f"{served.portal_url}/rest/pull.application.event.add.json", requests
