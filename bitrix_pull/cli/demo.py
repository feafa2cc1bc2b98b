"""``bitrix-pull demo``: the main job in one command, without an account."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.text import Text

from bitrix_pull.cli.output import Columns, JsonLines, Shown
from bitrix_pull.cli.streams import say
from bitrix_pull.client import PullClient
from bitrix_pull.emulator import Emulator
from bitrix_pull.portal.auth import AccessToken
from bitrix_pull.publish.publisher import Route
from bitrix_pull.publish.receipt import Receipt

PAUSE_S = 0.6
"""Between two events: slow enough to read along."""

_CUSTOMERS = ("Ada", "Юрий", "Grace", "José", "Linus")


@dataclass(frozen=True, slots=True)
class Step:
    """One event of the story.

    Attributes:
        users: Who gets it; None: everybody who has the application.
    """

    command: str
    params: dict[str, Any]
    users: list[int] | None = None
    route: Route = "rest"


@dataclass(frozen=True, slots=True)
class Deal:
    """Somebody changes a deal on the portal, which tells the application by itself."""

    title: str
    stage: str


async def demo(events: int | None, *, as_json: bool) -> None:
    """Publish events on an emulated portal and show them as they arrive.

    Ends after ``events`` of them, or when cancelled.
    """
    say("An emulated Bitrix24 portal on this machine: no account, nothing leaves it.")
    if events is None:
        say("Ctrl-C stops it.")
    lines = JsonLines()
    columns = Columns()
    received = 0
    try:
        async with Emulator() as portal:
            pull = PullClient(AccessToken(portal.portal_url, portal.token))
            deal_id = portal.portal.deals.add({"TITLE": "Chairs"})
            async with (
                pull,
                pull.portal_events("ONCRMDEALUPDATE") as changes,
                pull.subscribe(module="application") as arriving,
            ):
                for step in itertools.islice(story(), events):
                    event: Shown
                    if isinstance(step, Deal):
                        portal.portal.deals.update(deal_id, {"TITLE": step.title, "STAGE_ID": step.stage})
                        if not as_json:
                            _show_change(columns, step)
                        event = await anext(changes)
                    else:
                        receipt = await pull.publish(
                            step.command, step.params, users=step.users, route=step.route
                        )
                        if not as_json:
                            _show_sent(columns, step, receipt)
                        event = await anext(arriving)
                    if as_json:
                        lines.show(event)
                    else:
                        columns.show(event, mark="←", at=datetime.now())
                    received += 1
                    if received != events:
                        await asyncio.sleep(PAUSE_S)
    except asyncio.CancelledError:
        _say_goodbye(received)
        raise
    _say_goodbye(received)


def story() -> Iterator[Step | Deal]:
    """Yield what happens on the demo's portal, without end."""
    for order, customer in zip(itertools.count(1001), itertools.cycle(_CUSTOMERS), strict=False):
        yield Step("order_new", {"id": order, "for": customer})
        yield Step("order_update", {"id": order, "status": "paid"})
        yield Step("task_new", {"title": f"Pack order {order}"}, users=[1])
        yield Step("chat_message", {"text": "Packed!"}, users=[1], route="endpoint")
        yield Step("order_update", {"id": order, "status": "sent"}, users=[1], route="socket")
        yield Deal(f"Order {order} of {customer}", "WON")


_WAYS = {"rest": "REST", "endpoint": "endpoint", "socket": "socket"}


def _show_sent(columns: Columns, step: Step, receipt: Receipt) -> None:
    receivers = "the shared channel" if step.users is None else f"user {step.users[0]}"
    columns.row(
        datetime.now().astimezone(),
        Text(step.command, "dim"),
        Text(_WAYS[receipt.route], "magenta"),
        Text(f"to {receivers}", "dim"),
        mark="→",
    )


def _show_change(columns: Columns, deal: Deal) -> None:
    columns.row(
        datetime.now().astimezone(),
        Text("a deal is changed", "dim"),
        Text("portal", "magenta"),
        Text(f"{deal.title}: {deal.stage}", "dim"),
        mark="→",
    )


def _say_goodbye(received: int) -> None:
    say(f"Published and received over real sockets: {received} event{'' if received == 1 else 's'}.")
    say("Next, with your own portal: bitrix-pull listen --webhook URL")
