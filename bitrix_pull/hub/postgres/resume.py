"""Resume points in PostgreSQL, under the fence of who may write them."""

from typing import TYPE_CHECKING, Any

import orjson

from bitrix_pull.connection.resume_point import ResumePoint
from bitrix_pull.errors import InvalidArgument, LeaseLost, ResumeStoreFailed
from bitrix_pull.hub.ciphers import Cipher, checked_cipher
from bitrix_pull.hub.cluster import Lease, checked_keys
from bitrix_pull.hub.postgres.database import Connection, Database
from bitrix_pull.hub.postgres.tokens import PostgresTokenStore

if TYPE_CHECKING:
    from typing import LiteralString

_FENCE = """
    WITH fence AS (
        INSERT INTO {schema}.resume_owner AS present (portal, epoch) VALUES (%(portal)s, %(epoch)s)
        ON CONFLICT (portal) DO UPDATE SET epoch = excluded.epoch WHERE present.epoch <= excluded.epoch
        RETURNING portal
    )
"""
"""Shuts earlier owners out, and gives no row where a later one was here. It locks the portal's row,
so what follows in the same statement is one step with it."""

_RAISE = f"{_FENCE} SELECT true FROM fence"

_SAVE = f"""
    {_FENCE}, whole AS (
        INSERT INTO {{schema}}.resume_point (portal, key, record)
        SELECT portal, %(key)s, %(record)s FROM fence
        ON CONFLICT (portal, key) DO UPDATE SET record = excluded.record
    ), old AS (
        DELETE FROM {{schema}}.resume_advance USING fence
        WHERE resume_advance.portal = fence.portal AND resume_advance.key = %(key)s
    )
    SELECT true FROM fence
"""

_ADVANCE = f"""
    {_FENCE}, added AS (
        INSERT INTO {{schema}}.resume_advance (portal, key, record)
        SELECT point.portal, point.key, %(record)s
        FROM {{schema}}.resume_point AS point JOIN fence USING (portal) WHERE point.key = %(key)s
        RETURNING id
    )
    SELECT (SELECT count(*) FROM added) FROM fence
"""

_LOAD = """
    SELECT record FROM {schema}.resume_point WHERE portal = %(portal)s AND key = %(key)s
"""

_LOAD_ADVANCES = """
    SELECT record FROM {schema}.resume_advance WHERE portal = %(portal)s AND key = %(key)s ORDER BY id
"""


class PostgresStore:
    """Keeps resume points and tokens in PostgreSQL (12 or newer); of many clients, on any machines.

    Example:
        store = PostgresStore("postgresql://…")
        hub = Hub(portals, cluster=ValkeyCluster("redis://…"), resume=store)
        auth = OAuth("acme.bitrix24.com", …, tokens=store.tokens("member-id"))

    Args:
        database: Its address: ``postgresql://USER@HOST/DATABASE``, or libpq's ``key=value``.
        schema: The PostgreSQL schema that its tables are in. It is made when the store is first
            opened; who may not make one gets one made beforehand, with all rights to it.
        cipher: Encrypts tokens; None: they are kept as they are. What was kept without one is
            read all the same, and encrypted by the next refresh.
        connections: How many connections to open at most, and as many again for refreshes.
        hold_s: For how long one worker may be refreshing tokens without a word before the server
            lets another one. One that has died does not hold others up.
        timeout_s: For how long to wait for the database.

    Raises:
        InvalidArgument: An argument cannot work.
    """

    def __init__(
        self,
        database: str,
        *,
        schema: str = "bitrix_pull",
        cipher: Cipher | None = None,
        connections: int = 4,
        hold_s: float = 30.0,
        timeout_s: float = 5.0,
    ) -> None:
        self._database = Database(database, schema=schema, connections=connections, timeout_s=timeout_s)
        self._cipher = checked_cipher(cipher)
        self._hold_s = hold_s

    def under(self, lease: Lease) -> "PostgresPoints":
        """Return the store of one portal for one owner of it: once a later one has loaded, it refuses."""
        checked_keys([lease.key])
        return PostgresPoints(self._database, lease.key, lease)

    def tokens(self, key: str) -> PostgresTokenStore:
        """Return where the tokens of one application on one portal are.

        Args:
            key: Tells them from others. A portal keeps its ``member_id`` for good. With several
                applications, name that too.

        Raises:
            InvalidArgument: It can be none.
        """
        return PostgresTokenStore(self._database, key, cipher=self._cipher, hold_s=self._hold_s)

    async def open(self) -> None:
        """Connect, and make the tables if need be; see ``ResumeStore``.

        Raises:
            InvalidArgument: The database refuses us, or the schema is of something else.
            EngineUnavailable: The database does not answer.
        """
        await self._database.open()

    async def load(self, key: str) -> ResumePoint | None:
        """Return what was kept last; see ``ResumeStore``."""
        return await self._points(key).load(key)

    async def save(self, key: str, point: ResumePoint) -> None:
        """Keep this in place of what was kept before; see ``ResumeStore``."""
        await self._points(key).save(key, point)

    async def advance(self, key: str, news: ResumePoint) -> None:
        """Keep what is new; see ``GrowingStore``."""
        await self._points(key).advance(key, news)

    async def close(self) -> None:
        """Let go of the database; it may be opened again."""
        await self._database.close()

    def _points(self, key: str) -> "PostgresPoints":
        return PostgresPoints(self._database, key, None)

    def __repr__(self) -> str:
        return f"PostgresStore({self._database.name}, {self._database.schema})"


class PostgresPoints:
    """A ``ResumeStore`` of one portal, for one owner of it. See ``GrowingStore``.

    Args:
        database: Where to keep them.
        portal: The portal's key.
        lease: Whose right it is; None where nobody else has it.
    """

    def __init__(self, database: Database, portal: str, lease: Lease | None) -> None:
        self._database = database
        self._portal = portal
        self._lease = lease

    async def open(self) -> None:
        """Connect; see ``PostgresStore.open``."""
        await self._database.open()

    async def close(self) -> None:
        """Let go."""
        await self._database.close()

    async def load(self, key: str) -> ResumePoint | None:
        """Return what was kept last, with all that is settled since, and shut earlier owners out.

        Raises:
            LeaseLost: A later owner was here.
            InvalidArgument: What is kept cannot be read.
            EngineUnavailable: The database does not answer.
        """
        async with self._database.connection() as connection, connection.transaction():
            await self._write(connection, _RAISE)
            # Asked only now that earlier owners are shut out: what they have written is there.
            records = [
                record
                for query in (_LOAD, _LOAD_ADVANCES)
                for record in await self._records(connection, query, key)
            ]
        if not records:
            return None
        try:
            whole, *advances = [ResumePoint.read(orjson.loads(record)) for record in records]
        except ValueError:
            raise InvalidArgument(
                f"the resume point of {key!r:.80} in {self._database.name} is damaged",
                advice="Delete it, and fetch the portal's state anew over REST.",
            ) from None
        return whole.joined(advances)

    async def save(self, key: str, point: ResumePoint) -> None:
        """Keep this in place of what was kept before.

        Raises:
            LeaseLost: A later owner was here.
            EngineUnavailable: The database does not answer.
        """
        async with self._database.connection() as connection:
            await self._write(connection, _SAVE, key, point)

    async def advance(self, key: str, news: ResumePoint) -> None:
        """Keep what is new; see ``GrowingStore.advance``. Raises as ``save`` does."""
        async with self._database.connection() as connection:
            if not await self._write(connection, _ADVANCE, key, news):
                raise ResumeStoreFailed(
                    f"the database at {self._database.name} has lost the resume point that was saved in it"
                )

    async def _write(
        self, connection: Connection, query: "LiteralString", key: str = "", point: ResumePoint | None = None
    ) -> Any:
        """Run a statement under the fence, and return what it says."""
        if self._lease is not None:
            self._lease.require()
        record = None if point is None else orjson.dumps(point.write()).decode()
        epoch = 0 if self._lease is None else self._lease.epoch
        values = {"portal": self._portal, "epoch": epoch, "key": key, "record": record}
        row = await (await connection.execute(self._database.sql(query), values)).fetchone()
        if row is not None:
            return row[0]
        if self._lease is None:
            raise ResumeStoreFailed(f"a hub has the resume point of {self._portal!r:.60}")
        self._lease.end()
        raise LeaseLost(f"another worker has the portal {self._portal!r:.60} by now")

    async def _records(self, connection: Connection, query: "LiteralString", key: str) -> list[Any]:
        values = {"portal": self._portal, "key": key}
        cursor = await connection.execute(self._database.sql(query), values)
        return [record for (record,) in await cursor.fetchall()]
