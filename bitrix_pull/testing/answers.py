"""REST calls of handlers: written down, and answered as a test has said."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitrix_pull.dispatch.policy import is_async
from bitrix_pull.errors import InvalidArgument, MethodNotFound, PortalError
from bitrix_pull.portal.answers import RestAnswer
from bitrix_pull.portal.batches import BATCH
from bitrix_pull.portal.rest import RestClient

Result = Any
"""JSON values, an exception to raise, or a function that returns such for the call's parameters."""


@dataclass(slots=True, frozen=True)
class Call:
    """A REST call that a handler made.

    Attributes:
        method: The method, as the handler wrote it.
        params: The parameters.
    """

    method: str
    params: Mapping[str, Any]


class Answers:
    """What methods answer, and what was asked. It is no way to a portal, and says so."""

    def __init__(self) -> None:
        """Begin with no answer."""
        self.calls: list[Call] = []
        """What was asked, the oldest first."""
        # The newest answer of a method comes last.
        self._results: dict[str, list[_Answer]] = {}

    def give(self, method: str, result: Result, times: int | None) -> None:
        """Answer a method with a result, from now on or so many times.

        Raises:
            InvalidArgument: It would be no times, or the function is a coroutine function.
        """
        if is_async(result):
            raise InvalidArgument("an answer is a plain function: what is awaited for it, nobody would await")
        if times is not None and times < 1:
            raise InvalidArgument("times must be 1 or more; leave it out for every call")
        self._results.setdefault(method.lower(), []).append(_Answer(result, times))

    def has(self, method: str) -> bool:
        """Tell whether there is an answer."""
        return bool(self._results.get(method.lower()))

    def take(self, method: str, params: Mapping[str, Any]) -> Any:
        """Return the result of a call that there is an answer to.

        Raises:
            Exception: That is the answer.
        """
        answers = self._results[method.lower()]
        answer = answers[-1]
        if answer.times is not None:
            answer.times -= 1
            if not answer.times:
                answers.pop()
        result = answer.result(params) if callable(answer.result) else answer.result
        if isinstance(result, BaseException):
            raise result
        return result

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        """Refuse a call that there is no answer to.

        Raises:
            MethodNotFound: Always.
        """
        raise MethodNotFound(
            f"the test has no answer to {method}",
            code="ERROR_METHOD_NOT_FOUND",
            method=method,
            advice=f'Give it one: client.answer("{method}", …), or run it with emulator=True.',
        )


@dataclass(slots=True)
class _Answer:
    result: Result
    times: int | None


class AnsweringRest(RestClient):
    """Calls of handlers: what the test answers does not go any further."""

    def __init__(self, inner: RestClient, answers: Answers) -> None:
        """Answer from ``answers``, and ask ``inner`` what they do not have."""
        super().__init__(answers)
        self._inner = inner
        self._answers = answers

    @property
    def sees_whole_answers(self) -> bool:
        """An answer of a test's is a whole list."""
        return True

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        first: bool = False,
    ) -> RestAnswer:
        """See ``RestClient``."""
        given = dict(params or {})
        if method == BATCH and isinstance(given.get("cmd"), dict):
            return RestAnswer(await self._batch(given))
        self._answers.calls.append(Call(method, given))
        if self._answers.has(method):
            return RestAnswer(self._answers.take(method, given))
        return await self._inner.ask(method, params, timeout_s=timeout_s, first=first)

    async def _batch(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Make the calls of a batch one by one."""
        from urllib.parse import parse_qsl

        from bitrix_pull.emulator.php import read_form

        results: dict[str, Any] = {}
        errors: dict[str, Any] = {}
        for key, command in params["cmd"].items():
            method, _, query = str(command).partition("?")
            given = read_form(parse_qsl(query, keep_blank_values=True))
            try:
                results[key] = (await self.ask(method, given)).result
            except PortalError as error:
                errors[key] = {"error": error.code, "error_description": error.args[0]}
        return {"result": results, "result_error": errors}
