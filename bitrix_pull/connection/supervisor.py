"""The life of a connection, from top to bottom: configure, connect, read, back off, again."""

import asyncio
import logging
import random
from typing import NoReturn

from bitrix_pull.connection.backoff import RESET_AFTER_S, Backoff
from bitrix_pull.connection.channels import ChannelManager
from bitrix_pull.connection.connector import Connection
from bitrix_pull.connection.endings import TABLE, Action, Ended, Sign, Wait
from bitrix_pull.connection.intake import Intake
from bitrix_pull.connection.states import Lifecycle
from bitrix_pull.connection.websocket import WebSocketConnection
from bitrix_pull.errors import MalformedFrame, NotRunning, PullError, Unreachable
from bitrix_pull.events import State
from bitrix_pull.options import PullOptions
from bitrix_pull.wire.close_codes import ClientClose
from bitrix_pull.wire.formats import DECODERS

logger = logging.getLogger("bitrix_pull.connection")

EVICTED_WAIT_S = 60.0
"""Least wait after the server closed with 4029 (protocol §8)."""


class Supervisor:
    """The one owner of the connection and of its state."""

    def __init__(
        self,
        *,
        channels: ChannelManager,
        intake: Intake,
        lifecycle: Lifecycle,
        options: PullOptions,
    ) -> None:
        """Create a supervisor; ``run`` does the work."""
        self._channels = channels
        self._intake = intake
        self._lifecycle = lifecycle
        self._options = options
        self._backoff = Backoff()
        self._last_sign: Sign | None = None
        self._connection: Connection | None = None
        self.connects = 0
        """Connections opened so far."""

    async def run(self) -> NoReturn:
        """Stay connected until cancelled, which leads to CLOSING.

        Raises:
            PullError: Only a person can help; the state is FAILED.
        """
        try:
            await self._stay_connected()
        except asyncio.CancelledError:
            self._lifecycle.move(State.CLOSING)
            raise

    async def send(self, frame: bytes) -> None:
        """Send a frame over the open connection.

        Raises:
            NotRunning: There is none.
            Ended: It broke.
        """
        if self._connection is None:
            raise NotRunning("the client is not live, so there is no socket to publish over")
        await self._connection.send(frame)

    async def _stay_connected(self) -> NoReturn:
        failure: PullError | None = None
        while True:
            if failure is not None:
                await self._back_off(failure)
            try:
                connection = await self._connect()
            except PullError as error:
                failure = error
            else:
                failure = await self._attend(connection)

    async def _connect(self) -> Connection:
        """Make one attempt, with a new configuration if the present one is no good."""
        if not self._channels.known:
            self._lifecycle.move(State.CONFIGURING)
        endpoint = await self._channels.endpoint()
        self._lifecycle.move(State.CONNECTING)
        decode = DECODERS[endpoint.wire_format]
        return await WebSocketConnection.open(
            endpoint.url(self._intake.cursor.resume_point), decode, self._options
        )

    async def _attend(self, connection: Connection) -> Ended:
        """Read a connection to its end, and say what ended it."""
        resumed = self._intake.cursor.resume_point is not None
        self._intake.cursor.connected(self._channels.portal_now())
        self.connects += 1
        opened = asyncio.get_running_loop().time()
        self._connection = connection
        code = ClientClose.NORMAL
        try:
            return await self._read(connection, resumed=resumed)
        except MalformedFrame as error:
            code = ClientClose.STUCK
            return Ended(Sign.GARBLED, str(error))
        finally:
            self._connection = None
            if asyncio.get_running_loop().time() - opened >= RESET_AFTER_S:
                self._backoff.reset()
                self._last_sign = None
            await connection.close(code)

    async def _read(self, connection: Connection, *, resumed: bool) -> Ended:
        try:
            if resumed:
                self._lifecycle.move(State.CATCHING_UP)
                await self._catch_up(connection)
            self._lifecycle.move(State.LIVE)
            while True:
                await self._intake.room()
                self._intake.take(await connection.receive())
        except Ended as ended:
            return ended

    async def _catch_up(self, connection: Connection) -> None:
        """Take the replay: one frame, which the server sends at once if it holds any."""
        try:
            async with asyncio.timeout(self._options.catch_up_s):
                await self._intake.room()
                self._intake.take(await connection.receive(), replayed=True)
        except TimeoutError:
            return

    async def _back_off(self, failure: PullError) -> None:
        """Wait as the failure demands.

        Raises:
            PullError: The failure itself, if waiting does not help.
        """
        if not failure.retryable:
            self._lifecycle.move(State.FAILED, error=failure)
            raise failure
        action = _action(failure)
        sign = failure.sign if isinstance(failure, Ended) else None
        wait = action.wait_again if sign is not None and sign is self._last_sign else action.wait
        self._last_sign = sign
        if action.new_config:
            self._channels.refuse()
        delay = self._delay_s(wait)
        if delay:
            logger.warning("not connected: %s Next attempt in %.1f s.", failure, delay)
            self._lifecycle.move(State.BACKOFF, error=failure, retry_in_s=delay)
            await asyncio.sleep(delay)
        else:
            logger.info("reconnecting: %s", failure)

    def _delay_s(self, wait: Wait) -> float:
        match wait:
            case Wait.NONE:
                return 0.0
            case Wait.LADDER:
                return self._backoff.next_delay_s(answered=True)
            case Wait.LADDER_UNANSWERED:
                return self._backoff.next_delay_s(answered=False)
            case Wait.LONG:
                return EVICTED_WAIT_S * random.uniform(1.0, 1.2)


def _action(failure: PullError) -> Action:
    """Return what to do about a failure that may pass by itself."""
    if isinstance(failure, Ended):
        return TABLE[failure.sign]
    wait = Wait.LADDER_UNANSWERED if isinstance(failure, Unreachable) else Wait.LADDER
    return Action(wait, wait)
