"""Every fault of the emulator that a diagnosis can see is named by it, and first."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pytest

from bitrix_pull import AccessToken
from bitrix_pull.doctor import trips
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.faults import ConnectionFaults, PortalFaults, PublishFault
from bitrix_pull.emulator.push_faults import ClosedAtOnce, PushFaults
from bitrix_pull.wire.close_codes import ServerClose
from tests.doctor.examining import assert_cause, diagnosis_of, finding_of, token_of

QUICK = {"connect_timeout_s": 0.5, "ping_timeout_s": 0.5}


@dataclass(frozen=True)
class Case:
    """A fault, and what the diagnosis must say first.

    Attributes:
        fault: Its name: a class, and what of it.
        order: Lets an emulator have it.
        check: Of the finding.
        level: Of the finding.
        words: That it holds.
        options: Of the diagnosis.
    """

    fault: str
    order: Callable[[Emulator], object]
    check: str
    level: str
    words: Sequence[str]
    options: dict[str, Any]


def case(fault: str, order: Callable[[Emulator], object], found: str, *words: str, **options: Any) -> Case:
    check, _, level = found.rpartition(" ")
    return Case(fault, order, check, level, words, options)


def portal(name: str, value: object, found: str, *words: str, **options: Any) -> Case:
    def order(emu: Emulator) -> None:
        setattr(emu.portal.faults, name, value)

    return case(f"PortalFaults.{name}", order, found, *words, **options)


def push(name: str, value: object, found: str, *words: str, **options: Any) -> Case:
    def order(emu: Emulator) -> None:
        setattr(emu.push.faults, name, value)

    return case(f"PushFaults.{name}", order, found, *words, **options)


def line(faults: dict[str, Any], found: str, *words: str, **options: Any) -> Case:
    def order(emu: Emulator) -> None:
        emu.push.faults.script = lambda number: ConnectionFaults(**faults)

    return case(f"ConnectionFaults.{[*faults][-1]}", order, found, *words, **options)


def publishing(fault: PublishFault, name: str, *words: str) -> Case:
    def order(emu: Emulator) -> None:
        emu.push.faults.publishing = lambda number: fault

    return case(f"PublishFault.{name}", order, "publishing by endpoint fail", *words, publish=True)


def limit_calls(emu: Emulator) -> None:
    emu.portal.limits.burst, emu.portal.limits.per_s = 2, 0.01


def exhaust(emu: Emulator) -> None:
    emu.portal.limits.exhaust("pull.application.config.get", int(time.time()) + 600)


def allow_no_connection(emu: Emulator) -> None:
    emu.push.max_connections_per_channel = 0


def change_key(emu: Emulator) -> None:
    emu.push.change_security_key("another than the portal's")


def reduce_plan(emu: Emulator) -> None:
    emu.portal.features = dict.fromkeys(emu.portal.features, "N")


def switch_off(emu: Emulator) -> None:
    emu.portal.push_configured = False


def leave_failures(emu: Emulator) -> None:
    emu.portal.offline.bindings.append(("ONCRMDEALUPDATE", ""))
    emu.portal.change("ONCRMDEALUPDATE", {"FIELDS": {"ID": "7"}})
    queue = emu.portal.offline
    process_id = queue.reserve(queue.records)
    queue.fail(process_id, [record.message_id for record in queue.records], "")


WARN = "websocket warn"
TAKES_OVER = "long polling takes over"
CASES = (
    portal("delay_s", 2.0, "portal fail", "no complete answer", rest_timeout_s=0.5),
    portal("maintenance", "PORTAL_DELETED", "portal fail", "PORTAL_DELETED"),
    portal("maintenance", "PAYMENT_REQUIRED", "portal fail", "subscription", "renew"),
    portal("maintenance", "SERVER_ERROR", "portal fail", "not configured", "enable"),
    portal("locked_channels", frozenset({"private"}), "configuration warn", "left out the private"),
    portal("locked_channels", frozenset({"private", "shared"}), "configuration fail", "no channel", "load"),
    case("PortalFaults.fail_rest", lambda emu: emu.portal.faults.fail_rest(1), "portal fail", "HTTP 502"),
    case(
        "PortalFaults.fail_locks",
        lambda emu: emu.portal.faults.fail_locks(1, "shared"),
        "configuration warn",
        "left out the shared",
    ),
    case("Portal.push_configured", switch_off, "configuration fail", "not configured"),
    case("Portal.features", reduce_plan, "portal events warn", "plan", connector="crm"),
    case("OfflineQueue.fail", leave_failures, "portal events warn", "1 failed", "event.offline.list"),
    case("RestLimits.burst", limit_calls, "limits fail", "QUERY_LIMIT_EXCEEDED", "often", rest_timeout_s=1.0),
    case("RestLimits.exhaust", exhaust, "limits fail", "OPERATION_TIME_LIMIT", "600 s"),
    case("PushServer.change_security_key", change_key, "websocket fail", "same security key"),
    case("PushServer.max_connections_per_channel", allow_no_connection, "websocket fail", "4029", "Over 100"),
    push("websocket_refusal", 403, WARN, TAKES_OVER, "status 403"),
    push("websocket_refusal", "reset", WARN, TAKES_OVER),
    push("websocket_refusal", "black_hole", WARN, TAKES_OVER, "in time", **QUICK),
    push("websocket_refusal", ClosedAtOnce(1008), WARN, TAKES_OVER, "1008"),
    push("poll_refusal", 503, "polling warn", "503"),
    push("poll_refusal", 429, "polling warn", "429", "Over 100 connections"),
    push("poll_refusal", "reset", "polling warn", "did not answer"),
    push("refuse_channels", True, "websocket fail", "same security key"),
    push("keeps_nothing", True, "history fail", "not replayed", "Redis", publish=True),
    line({"cut_after_bytes": 0}, WARN, TAKES_OVER),
    line({"cut_after_bytes": 0, "end": "silence"}, WARN, TAKES_OVER, **QUICK),
    line({"mute": True}, WARN, TAKES_OVER, "link is dead", **QUICK),
    line({"deaf": True}, WARN, TAKES_OVER, "link is dead", **QUICK),
    line({"stall_s": 60, "stall_after_bytes": 0}, WARN, TAKES_OVER, "link is dead", **QUICK),
    line(
        {"garbled": 1.0},
        "publishing by rest fail",
        "protobuf",
        "rewrites it",
        publish=True,
        start_timeout_s=1.0,
    ),
    publishing(PublishFault(refusal=ServerClose.WRONG_REQUEST), "refusal", "4013"),
    publishing(PublishFault(refusal=ServerClose.INVALID_SIGNATURE), "refusal", "4021", "same security key"),
    publishing(PublishFault(status=503), "status", "503", "see what answers"),
    publishing(PublishFault(cut=True), "cut", "broke", "see what answers"),
)

NOT_SEEN = {
    "PortalFaults.lose_announcements": "what changes on the portal later, and not by us",
    "PushFaults.ignore_token_ends": "a server that takes more than it should does no harm",
    "PushFaults.publishing": "gives the faults of PublishFault",
    "PushFaults.script": "gives those of ConnectionFaults",
    "PushFaults.poll_script": "gives those of the answer to a poll, which may be 40 s away",
    "PushFaults.replay_race": "a matter of moments, which the client heals",
    "ConnectionFaults.overtaken": "the client resumes earlier, and drops what it knows",
    "ConnectionFaults.duplicated": "the client drops what it knows",
    "ConnectionFaults.fragment_bytes": "as good as whole frames",
    "ConnectionFaults.gather_s": "as good as the usual time",
    "ConnectionFaults.close_after_frames": "the client connects again, and loses nothing",
    "ConnectionFaults.close_code": "the same",
    "ConnectionFaults.bytes_per_s": "slow, and shows as the time that a round trip takes",
    "ConnectionFaults.stall_s": "goes with stall_after_bytes",
    "ConnectionFaults.dice": "no fault",
    "PublishFault.applied": "goes with the others",
    "PublishFault.retry_after_s": "goes with status",
}
"""What no diagnosis can find, or need not, and why."""


@pytest.mark.parametrize("case", CASES, ids=[f"{case.fault} {number}" for number, case in enumerate(CASES)])
async def test_the_first_line_names_it(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trips, "ARRIVAL_S", 1.0)
    async with Emulator() as emu:
        case.order(emu)
        diagnosis = await diagnosis_of(token_of(emu), **case.options)
    assert_cause(diagnosis, case.check, case.level, *case.words)


def test_no_fault_is_left_out() -> None:
    known = {
        f"{kind.__name__}.{each.name}"
        for kind in (PortalFaults, PushFaults, ConnectionFaults, PublishFault)
        for each in fields(kind)
        if not each.name.startswith("_")
    }
    tested = {case.fault for case in CASES}
    assert known - tested - NOT_SEEN.keys() == set()
    assert tested & NOT_SEEN.keys() == set()


async def test_limits_that_the_portal_has_shown_are_told() -> None:
    async with Emulator() as emu:
        # The last calls of a diagnosis before the limits are too many, and wait, also on a slow machine.
        emu.portal.limits.burst, emu.portal.limits.per_s = 4, 0.5
        diagnosis = await diagnosis_of(AccessToken(emu.portal_url, emu.token))
    limits = finding_of(diagnosis, "limits")
    assert limits.level == "warn"
    assert "QUERY_LIMIT_EXCEEDED" in limits.told
    assert "batch_call" in limits.advice
