"""From a change on the portal to a handler, by both ways of taking."""

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from pydantic import BaseModel, ValidationError

from bitrix_pull import AccessToken, HandlerFailed, PortalEvent, PullClient, PullOptions
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import EventNotFound
from tests import virtual_time
from tests.portal_events.stand import (
    ADD,
    DELETE,
    READING,
    RESERVING,
    UPDATE,
    Program,
    deal,
    emulator,
    rest_calls,
    running,
    until,
)
from tests.virtual_time import unix_time

both_ways = pytest.mark.parametrize("reservation", [RESERVING, READING])


@both_ways
def test_a_change_is_handled_and_taken_out(reservation: str) -> None:
    async def main() -> None:
        async with emulator(reservation) as emu, running(Program(emu)) as program:
            await asyncio.sleep(2)
            emu.portal.change("OnCrmDealUpdate", deal(7), user_id=5)
            changed_at = unix_time()
            await program.handled(1)
            (event,) = program.events
            assert (event.name, event.id, event.user_id, event.fields) == (UPDATE, 7, 5, {"ID": "7"})
            assert (event.data, event.connector, event.attempts) == (deal(7), "", 1)
            assert event.changed_at is not None
            assert event.changed_at.timestamp() == int(changed_at)
            assert event.client is program
            await until(lambda: not emu.portal.offline.records)
            # By reading: once the second of the change is over.
            assert program.handled_at[0] - changed_at < (0.5 if reservation == RESERVING else 2.1)

    virtual_time.run(main)


@both_ways
def test_what_happened_while_nobody_ran_is_handled_at_the_start(reservation: str) -> None:
    async def main() -> None:
        async with emulator(reservation) as emu:
            async with running(Program(emu)):
                pass
            for number in range(1, 121):
                emu.portal.change(UPDATE, deal(number))
            await asyncio.sleep(100)
            async with running(Program(emu)) as program:
                await program.handled(120)
                await until(lambda: not emu.portal.offline.records)
            assert program.ids == list(range(1, 121))

    virtual_time.run(main)


@both_ways
def test_announcements_that_are_lost_cost_the_interval(reservation: str) -> None:
    async def main() -> None:
        async with emulator(reservation) as emu, running(Program(emu)) as program:
            emu.portal.faults.lose_announcements = True
            await asyncio.sleep(10)
            emu.portal.change(UPDATE, deal(7))
            await asyncio.sleep(200)
            assert program.events == []
            await program.handled(1, within_s=110)

    virtual_time.run(main)


def test_a_thousand_announcements_are_one_drain() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Program(emu)) as program:
            await asyncio.sleep(1)
            before = emu.portal.calls["event.offline.get"]
            for number in range(1000):
                emu.portal.change(UPDATE, deal(number % 40))
            await program.handled(40)
            await asyncio.sleep(5)
            assert len(program.events) == 40
            assert emu.portal.calls["event.offline.get"] - before <= 2

    virtual_time.run(main)


@both_ways
def test_a_change_while_the_last_one_is_handled_is_handled_after_it(reservation: str) -> None:
    async def main() -> None:
        async with emulator(reservation) as emu, running(Program(emu)) as program:
            program.takes_s = 5.0
            emu.portal.change(UPDATE, deal(7))
            await asyncio.sleep(4)
            emu.portal.change(UPDATE, deal(7))
            second_at = unix_time()
            await program.handled(2)
            assert program.handled_at[1] - program.takes_s >= second_at
            await until(lambda: not emu.portal.offline.records)
            await asyncio.sleep(10)
            assert len(program.events) == 2

    virtual_time.run(main)


@pytest.mark.parametrize("after_s", [0.05, 0.3, 0.6, 0.9])
@both_ways
def test_a_change_in_the_same_second_is_never_missed(reservation: str, after_s: float) -> None:
    async def main() -> None:
        async with emulator(reservation) as emu, running(Program(emu)) as program:
            await asyncio.sleep(10 - unix_time() % 1 + 0.05)
            emu.portal.change(UPDATE, deal(7))
            await asyncio.sleep(after_s)
            emu.portal.change(UPDATE, deal(7))
            last_at = unix_time()
            await until(lambda: not emu.portal.offline.records)
            assert program.handled_at[-1] >= last_at

    virtual_time.run(main)


@both_ways
def test_a_record_that_changes_all_the_time_is_handled_now_and_then(reservation: str) -> None:
    async def main() -> None:
        async with emulator(reservation) as emu, running(Program(emu)) as program:
            for _ in range(60):
                emu.portal.change(UPDATE, deal(7))
                await asyncio.sleep(0.5)
            assert len(program.events) >= 3
            last_at = unix_time()
            await until(lambda: not emu.portal.offline.records)
            assert program.handled_at[-1] >= last_at - 0.5

    virtual_time.run(main)


@both_ways
def test_what_happens_to_one_record_is_handled_in_order(reservation: str) -> None:
    async def main() -> None:
        emu = emulator(reservation)
        async with emu:
            program = Program(emu, ADD, UPDATE, DELETE)
            attempts: list[str] = []

            @program.on_portal_event(ADD, UPDATE, DELETE, retries=3, retry_delay=1.0, concurrency=10)
            async def flaky(event: PortalEvent[Any]) -> None:
                attempts.append(f"{event.name} {event.id} {event.attempts}")
                if event.name == ADD and event.attempts < 3:
                    raise ValueError("not yet")

            async with running(program):
                for name in (ADD, UPDATE, DELETE):
                    emu.portal.change(name, deal(7))
                await until(lambda: not emu.portal.offline.records and len(attempts) >= 5)
            assert attempts == [f"{ADD} 7 1", f"{ADD} 7 2", f"{ADD} 7 3", f"{UPDATE} 7 1", f"{DELETE} 7 1"]

    virtual_time.run(main)


@both_ways
def test_two_processes_leave_nothing_unhandled(reservation: str) -> None:
    async def main() -> None:
        async with (
            emulator(reservation) as emu,
            running(Program(emu)) as one,
            running(Program(emu)) as other,
        ):
            for number in range(1, 301):
                emu.portal.change(UPDATE, deal(number))
                await asyncio.sleep(0.01)
            await until(lambda: not emu.portal.offline.records)
            assert {*one.ids, *other.ids} == set(range(1, 301))
            if reservation == RESERVING:
                assert len(one.ids) + len(other.ids) == 300

    virtual_time.run(main)


def test_events_of_another_program_are_left_alone() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Program(emu, ADD)) as adder:
            async with running(Program(emu, UPDATE)) as updater:
                for number in range(10):
                    emu.portal.change(ADD, deal(number))
                    emu.portal.change(UPDATE, deal(number))
                await until(lambda: len(adder.events) == 10 and len(updater.events) == 10)
            assert {event.name for event in adder.events} == {ADD}
            emu.portal.change(UPDATE, deal(1))
            await asyncio.sleep(30)
            assert [record.name for record in emu.portal.offline.records] == [UPDATE]
            # It is still there for who wants it.
            async with running(Program(emu, UPDATE)) as updater:
                await updater.handled(1)

    virtual_time.run(main)


@both_ways
def test_own_changes_come_back_only_through_another_connector(reservation: str) -> None:
    async def main() -> None:
        async with emulator(reservation) as emu:
            emu.portal.deals.add({"TITLE": "Chairs"})
            async with (
                running(Program(emu, connector="sync")) as own,
                running(Program(emu, connector="other")) as other,
            ):
                await own.call("crm.deal.update", {"id": 1, "fields": {"TITLE": "Tables"}})
                await other.handled(1)
                await asyncio.sleep(30)
                assert (own.events, len(other.events)) == ([], 1)
                assert other.events[0].connector == "other"
                emu.portal.deals.update(1, {"TITLE": "Lamps"})
                await own.handled(1)
                await other.handled(2)

    virtual_time.run(main)


@pytest.mark.parametrize(
    "data", [False, [], "", None, "text", {}, {"FIELDS": []}, {"FIELDS": {"ID": "x"}}, 7]
)
@both_ways
def test_odd_data_is_no_obstacle(reservation: str, data: Any) -> None:
    async def main() -> None:
        async with emulator(reservation) as emu, running(Program(emu)) as program:
            emu.portal.change(UPDATE, data, user_id=None)
            await program.handled(1)
            (event,) = program.events
            assert (event.id, event.user_id) == (None, None)
            assert event.data == (data or {})
            assert event.fields == ({"ID": "x"} if data == {"FIELDS": {"ID": "x"}} else {})
            await until(lambda: not emu.portal.offline.records)

    virtual_time.run(main)


def test_a_model_types_the_data() -> None:
    class Call(BaseModel):
        CALL_ID: str

    async def main() -> None:
        async with emulator() as emu:
            program = Program(emu)
            calls: list[str] = []

            @program.on_portal_event("ONVOXIMPLANTCALLEND", model=Call)
            async def ended(event: PortalEvent[Call]) -> None:
                calls.append(event.data.CALL_ID)

            async with running(program):
                emu.portal.change("ONVOXIMPLANTCALLEND", {"CALL_ID": "a"})
                emu.portal.change("ONVOXIMPLANTCALLEND", {"CALL": "b"})
                await until(lambda: bool(calls and program.failures))
            assert calls == ["a"]
            assert isinstance(program.failures[0], HandlerFailed)
            assert isinstance(program.failures[0].error, ValidationError)

    virtual_time.run(main)


def test_handlers_get_what_they_ask_for_and_only_what_they_want() -> None:
    async def main() -> None:
        async with emulator() as emu:
            program = Program(emu)
            program.context["shop"] = "chairs"
            seen: list[tuple[int | None, str]] = []

            @program.middleware
            async def seven_only(event: Any, call_next: Any, context: Any) -> object:
                return await call_next(event) if event.id == 7 else None

            @program.on_portal_event(ADD, where=lambda event: event.user_id == 5)
            async def added(event: PortalEvent[Any], shop: str) -> None:
                seen.append((event.id, shop))

            async with running(program):
                emu.portal.change(ADD, deal(6), user_id=5)
                emu.portal.change(ADD, deal(7), user_id=5)
                emu.portal.change(ADD, deal(8))
                await until(lambda: not emu.portal.offline.records and bool(seen))
            assert seen == [(7, "chairs")]

    virtual_time.run(main)


# -- as an iterator, and later ------------------------------------------------------


def test_iterating() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Program(emu, ADD)) as program:
            async with program.portal_events(UPDATE) as events:
                # Bound when it was entered, so nothing after that is missed.
                for number in (1, 2, 3):
                    emu.portal.change(UPDATE, deal(number))
                first = await anext(events)
                second = await anext(events)
                assert (first.id, second.id) == (1, 2)
            # The second was in hand, and counts as handled; the third stays.
            await asyncio.sleep(10)
            assert [record.data for record in emu.portal.offline.records] == [deal(3)]
            async with program.portal_events(UPDATE) as events:
                assert (await asyncio.wait_for(anext(events), 60)).id == 3

    virtual_time.run(main)


def test_what_nobody_else_wants_is_bound_when_its_iterator_is_entered() -> None:
    async def main() -> None:
        async with emulator() as emu, PullClient(AccessToken(emu.portal_url, emu.token)) as pull:
            with pytest.raises(EventNotFound, match="ONNOTHING"):
                async with pull.portal_events("OnNothing"):
                    pass
            async with pull.portal_events(UPDATE) as events:
                emu.portal.change(UPDATE, deal(1))
                assert (await asyncio.wait_for(anext(events), 60)).id == 1

    virtual_time.run(main)


@both_ways
def test_an_iterator_that_fails_leaves_its_events_to_the_next_one(reservation: str) -> None:
    async def fail(program: Program, emu: Emulator) -> None:
        async with program.portal_events(UPDATE) as events:
            for number in (1, 2, 3):
                emu.portal.change(UPDATE, deal(number))
            assert (await anext(events)).id == 1
            await asyncio.sleep(5)
            raise ValueError("broken")

    async def main() -> None:
        async with emulator(reservation) as emu, running(Program(emu, ADD)) as program:
            with pytest.raises(ValueError, match="broken"):
                await fail(program, emu)
            await asyncio.sleep(40)
            assert len(emu.portal.offline.records) == 3
            async with program.portal_events(UPDATE) as events:
                again = {(await asyncio.wait_for(anext(events), 60)).id for _ in range(3)}
            assert again == {1, 2, 3}
            await until(lambda: not emu.portal.offline.records)

    virtual_time.run(main)


def test_an_unknown_event_is_an_error_of_its_iterator_alone() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Program(emu)) as program:
            with pytest.raises(EventNotFound, match="ONNOTHING"):
                async with program.portal_events("OnNothing"):
                    pass
            emu.portal.change(UPDATE, deal(7))
            await program.handled(1)

    virtual_time.run(main)


def test_a_handler_that_is_registered_later_is_bound_then() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Program(emu)) as program:
            added: list[int | None] = []
            program.on_portal_event(ADD)(lambda event: added.append(event.id))
            await until(lambda: (ADD, "") in emu.portal.offline.bindings)
            emu.portal.change(ADD, deal(7))
            await until(lambda: added == [7])

    virtual_time.run(main)


def test_a_client_without_such_handlers_asks_the_portal_for_nothing() -> None:
    async def main() -> None:
        async with emulator() as emu:
            async with PullClient(AccessToken(emu.portal_url, emu.token)):
                await asyncio.sleep(1000)
            assert set(emu.portal.calls) == {"pull.application.config.get"}

    virtual_time.run(main)


def test_calls_of_a_quiet_day_are_few() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Program(emu, ping_interval_s=3600.0)):
            await asyncio.sleep(3600)
            # Every five minutes: what waits, and what others have left behind.
            assert rest_calls(emu) <= 2 * (12 + 2) + 1

    virtual_time.run(main)


def test_a_portal_that_does_not_heed_the_filter_is_not_asked_for_ever() -> None:
    """Each page would be the first one again."""

    class Own:
        """A REST client of the user's own, of which one method answers the same always."""

        def __init__(self, emu: Emulator) -> None:
            self.emu = emu
            self.lists = 0

        async def call(self, method: str, params: Mapping[str, Any]) -> Any:
            if method == "event.offline.list":
                self.lists += 1
                await asyncio.sleep(0.01)
                return [
                    {
                        "ID": str(number),
                        "EVENT_NAME": UPDATE,
                        "MESSAGE_ID": f"{number:032}",
                        "PROCESS_ID": "p",
                    }
                    for number in range(1, 51)
                ]
            url = f"{self.emu.portal_url}/rest/{method}.json"
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, json={**params, "auth": self.emu.token}) as answer,
            ):
                return (await answer.json())["result"]

    async def main() -> None:
        async with emulator() as emu:
            own = Own(emu)
            pull = PullClient(own, mode="application", options=PullOptions(allow_http_hosts={"127.0.0.1"}))

            @pull.on_portal_event(UPDATE)
            async def handle(event: PortalEvent) -> None: ...

            async with pull:
                await asyncio.sleep(10)
            assert 1 <= own.lists <= 30

    virtual_time.run(main)
