"""What the control API can do: one table, which its routes, its description and its page are made from."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from bitrix_pull.emulator import orders
from bitrix_pull.emulator.clock import AdjustableClock
from bitrix_pull.emulator.server import Emulator


@dataclass(slots=True, frozen=True)
class Call:
    """One call of an operation.

    Attributes:
        emulator: The portal that it is for.
        clock: The clock of all portals.
        order: The body, read; None where there is none.
        id: From the path, where it has one.
        query: The other parameters of the query.
    """

    emulator: Emulator
    clock: AdjustableClock
    order: Any
    id: int
    query: "dict[str, list[str]]"


@dataclass(slots=True, frozen=True)
class Operation:
    """One of them.

    Attributes:
        answers: What it does; what it returns is the answer.
        order: The model of its body, or None.
        query: Names and meanings of its parameters, beside ``portal``.
    """

    verb: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    summary: str
    answers: Callable[[Call], Any | Awaitable[Any]]
    order: type[orders.Order] | None = None
    query: tuple[tuple[str, str], ...] = ()


def _send(call: Call) -> Any:
    event: orders.Event = call.order
    mid = call.emulator.portal.send(
        event.command,
        event.params,
        module=event.module,
        users=event.users,
        audience=event.audience,
        expiry_s=event.expiry_s,
    )
    return {"mid": mid}


def _change(call: Call) -> None:
    change: orders.Change = call.order
    call.emulator.portal.change(change.name, change.data, user_id=change.user_id)


def _expire_token(call: Call) -> None:
    call.emulator.portal.expire_token(call.order.token or call.emulator.token)


def _issue_token(call: Call) -> Any:
    wanted: orders.TokenWanted = call.order
    return {"token": call.emulator.portal.issue_token(wanted.user_id, wanted.expires_in_s)}


async def _end(call: Call) -> Any:
    return {"connections": await orders.end(call.emulator, call.order)}


def _fail_rest(call: Call) -> None:
    failures: orders.RestFailures = call.order
    call.emulator.portal.faults.fail_rest(
        failures.times, failures.status, failures.body, failures.content_type, applied=failures.applied
    )


def _advance(call: Call) -> Any:
    call.clock.ahead_s += call.order.seconds
    return {"now": call.clock()}


async def _restart(call: Call) -> None:
    await call.emulator.restart(keep_history=call.order.keep_history)


async def _move(call: Call) -> Any:
    await call.emulator.move_push_server(call.order.epoch)
    return orders.described(call.emulator)


def _journal(call: Call) -> Any:
    kinds = [kind for value in call.query.get("kind", []) for kind in value.split(",")]
    after = call.query.get("after", ["0"])[0]
    return orders.journal(call.emulator, kinds, int(after) if after.isdigit() else 0)


def _users(call: Call) -> None:
    call.order.apply(call.emulator)


OPERATIONS = (
    Operation("GET", "/portals/{id}", "Addresses, tokens and ids of one portal, from 0 on",
              lambda call: orders.described(call.emulator)),
    Operation("POST", "/events", "Send an event", _send, orders.Event),
    Operation("POST", "/changes", "Queue an offline event, and announce it", _change, orders.Change),
    Operation("GET", "/deals", "All deals", lambda call: call.emulator.portal.deals.all()),
    Operation("POST", "/deals", "Add a deal",
              lambda call: {"id": call.emulator.portal.deals.add(call.order.fields)}, orders.Deal),
    Operation("PATCH", "/deals/{id}", "Change a deal",
              lambda call: call.emulator.portal.deals.update(call.id, call.order.fields), orders.Deal),
    Operation("DELETE", "/deals/{id}", "Delete a deal",
              lambda call: call.emulator.portal.deals.delete(call.id)),
    Operation("POST", "/tokens", "Issue an access token", _issue_token, orders.TokenWanted),
    Operation("POST", "/tokens/expire", "Let a token be expired", _expire_token, orders.TokenExpired),
    Operation("POST", "/users", "Set rights of a user, or dismiss one", _users, orders.User),
    Operation("POST", "/channels/rotate", "Replace channels, and announce it",
              lambda call: call.emulator.portal.rotate(*call.order.chosen), orders.Channels),
    Operation("POST", "/channels/expire", "Let channels be at their end, in silence",
              lambda call: call.emulator.portal.expire(*call.order.chosen), orders.Channels),
    Operation("POST", "/channels/remove", "Remove channels as the portal's hourly agent does",
              lambda call: call.emulator.portal.remove(*call.order.chosen), orders.Channels),
    Operation("GET", "/connections", "Who is connected", lambda call: orders.connections(call.emulator)),
    Operation("POST", "/connections/end", "Close, cut, stall or half-open connections", _end, orders.Ending),
    Operation("POST", "/history/drop", "Lose messages that are kept for replay",
              lambda call: call.emulator.push.drop_history(call.order.until), orders.Forgetting),
    Operation("POST", "/history/flush", "Empty the push server's Redis: mids begin again",
              lambda call: call.emulator.push.flush()),
    Operation("POST", "/restart", "Restart portal and push server", _restart, orders.Restart),
    Operation("POST", "/push-server/move", "Move the portal to another push server", _move, orders.Move),
    Operation("POST", "/push-server/settings-changed", "Let an administrator have changed its settings",
              lambda call: call.emulator.portal.change_settings()),
    Operation("POST", "/failures", "Let the next REST calls fail", _fail_rest, orders.RestFailures),
    Operation("PATCH", "/faults", "Misbehave from now on, or no longer",
              lambda call: call.order.apply(call.emulator), orders.Faults),
    Operation("PATCH", "/settings", "Settings of portal and push server",
              lambda call: call.order.apply(call.emulator), orders.Settings),
    Operation("POST", "/clock/advance", "Put the clock of all portals forward", _advance, orders.Advance),
    Operation("GET", "/journal", "What clients did, the oldest first", _journal,
              query=(("kind", "Only these kinds, with commas between them."),
                     ("after", "Only what came after the entry with this number."))),
    Operation("DELETE", "/journal", "Forget what clients did", lambda call: call.emulator.journal.clear()),
)  # fmt: skip
