"""A process that needs tokens: ``python -m tests.soak.token_user PORTAL CLIENT_ID STORE [LOG]``.

The application's secret is the first line of stdin. Without a log, each further line lets
many tasks call the portal at once; the answer is how many failed. With a log, it refreshes
until killed, and writes there each refresh token that it was told is stored.
"""

import asyncio
import os
import sys
from pathlib import Path

from bitrix_pull import FileTokenStore, OAuth, PullError, SqliteTokenStore
from bitrix_pull.portal.rest import RestClient

CLIENTS = 5
TASKS = 50
DATABASE = "tokens.db"


def token_store(path: Path) -> FileTokenStore | SqliteTokenStore:
    """Return the kind of store that the file's name tells."""
    return SqliteTokenStore(path, "portal 1") if path.name == DATABASE else FileTokenStore(path)


async def main(portal: str, client_id: str, store: str, log: str = "") -> None:
    """Serve until stdin ends, or refresh until killed."""
    secret = await _next_line()
    told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if log else -1

    def client() -> RestClient:
        return RestClient(
            OAuth(
                portal,
                client_id=client_id,
                client_secret=secret,
                tokens=token_store(Path(store)),
                oauth_url=f"{portal}/oauth/token/",
                # One system call, so that a kill leaves whole lines behind.
                on_token=lambda tokens: os.write(told, f"{tokens.refresh_token}\n".encode()) if log else None,
            )
        )

    if log:
        await _refresh_for_ever(client())
    while await _next_line():
        clients = [client() for _ in range(CLIENTS)]
        failed = [error for error in await asyncio.gather(*map(_calls, clients)) if error]
        print(len(failed), *failed[:1], flush=True)  # noqa: T201
        for one in clients:
            await one.close()


async def _calls(client: RestClient) -> str:
    answers = (client.call("server.time") for _ in range(TASKS // CLIENTS))
    results = await asyncio.gather(*answers, return_exceptions=True)
    return " ".join(repr(result) for result in results if isinstance(result, BaseException))


async def _refresh_for_ever(client: RestClient) -> None:
    while True:
        try:
            await client.call("server.time")
        except PullError as error:
            # Each new token has expired when it arrives.
            if "expired_token" not in str(error):
                raise


async def _next_line() -> str:
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.strip()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
