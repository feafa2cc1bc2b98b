"""What names lead to, remembered for some seconds."""

import asyncio
import ipaddress
import socket

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]
"""What ``socket.getaddrinfo`` tells of an address."""

KEPT_S = 10.0
"""How long an answer is good for: clients that start together, or come back together, ask once."""

_Question = tuple[str, int, socket.AddressFamily]


class Names:
    """Resolves names; whoever asks the same at the same time, or soon after, gets the same answer."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        self._answers: dict[_Question, asyncio.Future[list[AddressInfo]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def look_up(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[AddressInfo]:
        """Return the addresses of a host.

        Raises:
            OSError: The name cannot be resolved. That is not remembered.
        """
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return list(await asyncio.shield(self._answer((host, port, family))))
        if address.version == 6:
            return [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))]
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]

    def _answer(self, question: _Question) -> "asyncio.Future[list[AddressInfo]]":
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._answers.clear()
        if (known := self._answers.get(question)) is not None:
            return known
        answer = self._answers[question] = loop.create_task(_ask(*question), name="bitrix_pull name")

        def answered(answer: "asyncio.Future[list[AddressInfo]]") -> None:
            if answer.cancelled() or answer.exception() is not None:
                self._forget(question, answer)
            else:
                loop.call_later(KEPT_S, self._forget, question, answer)

        answer.add_done_callback(answered)
        return answer

    def _forget(self, question: _Question, answer: object) -> None:
        if self._answers.get(question) is answer:
            del self._answers[question]


async def _ask(host: str, port: int, family: socket.AddressFamily) -> list[AddressInfo]:
    loop = asyncio.get_running_loop()
    return list(await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM))
