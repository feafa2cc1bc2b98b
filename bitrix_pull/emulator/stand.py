"""Some portals on one clock, and the control API that drives them."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

from bitrix_pull.emulator.certificates import Certificates, make_certificates
from bitrix_pull.emulator.channels import CHANNEL_LIFE_S
from bitrix_pull.emulator.clock import AdjustableClock
from bitrix_pull.emulator.control import ControlApi
from bitrix_pull.emulator.orders import Faults, User, described
from bitrix_pull.emulator.push_server import Mode
from bitrix_pull.emulator.server import Emulator
from bitrix_pull.emulator.site import Site

Licence = Literal["full", "basic"]
"""What the portal's plan includes: everything, or no extended offline queue and no connectors."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Setup:
    """What a stand is made of.

    Attributes:
        host: Name or IPv4 address to listen at.
        port: Of the first portal; the others follow. 0 takes free ones.
        control_port: Of the control API; 0 takes a free one, None does without it.
        portals: How many.
        security_key: What tokens, webhooks and channels are made from; None: a random one.
        version: Of the push server.
        mode: Of the push server.
        channel_life_s: Seconds until a portal replaces a channel.
        licence: What the portal's plan includes.
        users: Rights of users; user 1 is an administrator.
        faults: How all portals misbehave from the start.
        static: Results of REST methods that the emulator does not know.
        gather_s: How long messages are gathered after one has gone out.
        latency_s: How long all that is written is on its way to the client.
        rest_limit: REST calls at once, and a second after that; None: any number.
        tls: Serve over TLS, with a certificate of an authority to throw away.
    """

    host: str = "127.0.0.1"
    port: int = 0
    control_port: int | None = None
    portals: int = 1
    security_key: str | None = None
    version: int = 4
    mode: Mode = "personal"
    channel_life_s: float = CHANNEL_LIFE_S
    licence: Licence = "full"
    users: Sequence[User] = ()
    faults: Faults | None = None
    static: Mapping[str, Any] = field(default_factory=dict[str, Any])
    gather_s: float = 0.4
    latency_s: float = 0.0
    rest_limit: tuple[int, float] | None = None
    tls: bool = False


class Stand:
    """Portals that are served, and perhaps their control API.

    Attributes:
        emulators: The portals.
        clock: Theirs.
        authority: In PEM, whom clients must trust; "" without TLS.
        control_url: Where the control API is; "" where there is none.
    """

    def __init__(self, setup: Setup) -> None:
        self.emulators: Sequence[Emulator] = ()
        self.clock: AdjustableClock = AdjustableClock()
        self.authority: str = ""
        self.control_url: str = ""
        self._setup = setup
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Serve.

        Raises:
            OSError: A port is taken.
            NoOpenssl: There is nothing to make a certificate with.
            ValueError: There is no such version, or not in shared mode.
        """
        setup = self._setup
        certificates = await asyncio.to_thread(make_certificates, setup.host) if setup.tls else None
        self.authority = certificates.authority if certificates else ""
        async with self._stack as stack:
            self.emulators = [
                await stack.enter_async_context(self._emulator(number, certificates))
                for number in range(setup.portals)
            ]
            if setup.control_port is not None:
                api = ControlApi(self.emulators, self.clock, self.authority)
                control = Site(setup.host, setup.control_port, _leave, api.add_routes)
                await control.start()
                stack.push_async_callback(control.stop)
                self.control_url = f"http://{control.address}"
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def described(self) -> dict[str, Any]:
        """Return all that a client needs: the first portal's, and of the others a list."""
        first, *others = map(described, self.emulators)
        return {
            **first,
            **({"control": self.control_url} if self.control_url else {}),
            **({"others": others} if others else {}),
        }

    def _emulator(self, number: int, certificates: Certificates | None) -> Emulator:
        setup = self._setup
        key = setup.security_key
        emulator = Emulator(
            setup.host,
            setup.port + number if setup.port else 0,
            f"{key}/{number}" if key and number else key,
            version=setup.version,
            mode=setup.mode,
            channel_life_s=setup.channel_life_s,
            clock=self.clock,
            tls=certificates.context if certificates else None,
            latency_s=setup.latency_s,
        )
        emulator.push.gather_s = setup.gather_s
        portal = emulator.portal
        if setup.rest_limit is not None:
            portal.limits.burst, portal.limits.per_s = setup.rest_limit
        if setup.licence == "basic":
            portal.features = dict.fromkeys(portal.features, "N")
        portal.static = {method.lower(): result for method, result in setup.static.items()}
        for user in setup.users:
            user.apply(emulator)
        if setup.faults is not None:
            setup.faults.apply(emulator)
        return emulator


async def _leave(request: web.Request, response: web.StreamResponse) -> None:
    """Leave answers as they are."""
