"""What waits in the portal's queue of its own events."""

from datetime import UTC, datetime, timedelta

from bitrix_pull.doctor.findings import Finding, failed
from bitrix_pull.doctor.patient import Patient
from bitrix_pull.errors import PullError
from bitrix_pull.portal_events.binding import Bindings
from bitrix_pull.portal_events.queue import OfflineQueue

CHECK = "portal events"

STALE = timedelta(minutes=10)
"""What has waited for longer is taken by nobody: a client does so within a moment, or some minutes."""


async def portal_events(patient: Patient) -> Finding:
    """Look what is bound, and what waits, is reserved, and has failed."""
    connector = patient.options.connector
    if patient.mode != "application":
        return Finding(CHECK, "ok", "they are for applications only")
    if patient.is_administrator is False:
        return Finding(CHECK, "ok", "not looked at: that takes an administrator")
    queue = OfflineQueue(patient.rest, connector)
    try:
        bound = await Bindings(patient.rest, patient.mode, connector).fetch()
        waiting = await queue.waiting(None, None, 0)
        reserved = await queue.reserved()
        failures = await queue.failed(0)
    except PullError as error:
        return failed(CHECK, error, level="warn")
    many = "at least " if waiting.full else ""
    told = (
        f"{len(bound)} bound, {many}{len(waiting.records)} waiting, {len(reserved)} reserved,"
        f" {'at least ' if failures.full else ''}{len(failures.records)} failed"
    )
    now = datetime.fromtimestamp(patient.rest.http.clock.now(), UTC)
    oldest = min((record.changed_at for record in waiting.records if record.changed_at), default=now)
    if now - oldest > STALE:
        age = timedelta(seconds=round((now - oldest).total_seconds()))
        return Finding(
            CHECK,
            "warn",
            f"{told}; the oldest has waited for {age}",
            "Nobody takes them: run a client with @on_portal_event for them, or unbind them with"
            " `bitrix-pull events --unbind`.",
        )
    if failures.records:
        return Finding(
            CHECK,
            "warn",
            told,
            "Handlers have failed on some for good: look at the log, and list them with event.offline.list.",
        )
    return Finding(CHECK, "ok", told)


async def limits(patient: Patient) -> Finding:
    """Say which limits of REST are kept, and which the portal has shown."""
    limit, waits_s = patient.rest.limit, patient.rest.next_call_in_s
    told = (
        "no limit of REST calls is known"
        if limit is None
        else f"{limit.burst} REST calls at once, then {limit.per_s:g} a second"
    )
    seen = ", ".join(f"{code} ({count})" for code, count in patient.rest.refused_calls.items())
    if seen:
        told = f"{told}; the portal has refused calls of this program: {seen}"
    if waits_s >= 1.0:
        told = f"{told}; the next one has to wait for {waits_s:.0f} s"
    if not seen and waits_s < 1.0:
        return Finding("limits", "ok", told)
    return Finding(
        "limits",
        "warn",
        told,
        "This program, or others at this address, use the limit up: make fewer calls, or several in one"
        " batch_call.",
    )
