"""Errors travel: into other processes, through queues, and as copies."""

import copy
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

import bitrix_pull
from bitrix_pull.connection.disconnects import Ended, Sign
from bitrix_pull.errors import ConnectionLost, OutcomeUnknown, PullError, RateLimited, Unreachable

ARGUMENTS: dict[str, Any] = {
    "message": "it broke",
    "advice": "Mend it.",
    "code": 4021,
    "status": 400,
    "method": "pull.x",
    "retry_after_s": 2.5,
    "unsent": True,
    "sign": Sign.SILENT,
}


def _all_errors() -> list[type[PullError]]:
    for module in pkgutil.walk_packages(bitrix_pull.__path__, "bitrix_pull."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def with_descendants(kind: type[PullError]) -> list[type[PullError]]:
        return [kind, *(one for child in kind.__subclasses__() for one in with_descendants(child))]

    return sorted({one for one in with_descendants(PullError)}, key=lambda kind: kind.__name__)


def _made(kind: type[PullError], *, advice: bool) -> PullError:
    names = [name for name in inspect.signature(kind).parameters if advice or name != "advice"]
    error = kind(**{name: ARGUMENTS[name] for name in names})
    error.add_note("seen by a test")
    return error


def _pickled(error: Any) -> Any:
    return pickle.loads(pickle.dumps(error))


TRAVELS: dict[str, Callable[[Any], Any]] = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": _pickled}


@pytest.mark.parametrize("travel", TRAVELS.values(), ids=list(TRAVELS))
@pytest.mark.parametrize("kind", _all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_arrives_as_it_was(kind: type[PullError], travel: Callable[[Any], Any]) -> None:
    for advice in (True, False):
        error = _made(kind, advice=advice)
        arrived = travel(error)
        assert type(arrived) is kind
        assert (str(arrived), repr(arrived), arrived.args) == (str(error), repr(error), error.args)
        assert arrived.advice == error.advice
        assert vars(arrived) == vars(error)


def test_the_loop_misses_none() -> None:
    assert {ConnectionLost, Ended, Unreachable} <= set(_all_errors())
    assert len(_all_errors()) >= 59


def test_what_was_set_later_arrives_too() -> None:
    error = RateLimited("too often")
    error.retry_after_s = 3.0
    assert _pickled(error).retry_after_s == 3.0


def test_a_cause_of_ours_arrives_and_another_one_does_not_keep_the_error_from_it() -> None:
    unknown = OutcomeUnknown("sent, and no answer")
    unknown.__cause__ = Ended(Sign.SILENT, "the link is dead", 1006)
    arrived = _pickled(unknown)
    assert str(arrived.__cause__) == "the link is dead"
    assert (arrived.__cause__.sign, arrived.__cause__.code) == (Sign.SILENT, 1006)

    unknown.__cause__ = OSError(lambda: "cannot be pickled")
    assert str(_pickled(unknown)) == str(unknown)
