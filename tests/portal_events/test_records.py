"""Records of the queue, whatever a portal writes there."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.portal_events.records import read_record

RECORD = {
    "ID": "1",
    "TIMESTAMP_X": "2026-09-17T12:32:31+02:00",
    "EVENT_NAME": "onCrmDealUpdate",
    "EVENT_DATA": {"FIELDS": {"ID": "123"}},
    "EVENT_ADDITIONAL": {"user_id": "1"},
    "MESSAGE_ID": "b0c7f7c2a3f1e4d5c6b7a8f9e0d1c2b3",
    "PROCESS_ID": "",
    "ERROR": "0",
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(RECORD)), JSON))
def test_whatever_stands_in_a_record_it_is_an_event_or_none(odd: dict[str, Any]) -> None:
    record = read_record({**RECORD, **odd})
    if record is not None:
        event = record.event("sync")
        assert event.name == event.name.upper()
        assert event.id is None or event.id > 0
        assert hash(event.entity) is not None
        assert event.label.startswith(event.name)


@given(JSON)
def test_what_is_no_record(value: Any) -> None:
    assert read_record(value) is None


@pytest.mark.parametrize(
    ("name", "data", "found", "entity"),
    [
        ("ONCRMDEALADD", {"FIELDS": {"ID": "7"}}, 7, ("ONCRMDEAL", "", 7)),
        ("ONCRMDEALUPDATE", {"FIELDS": {"ID": 7}}, 7, ("ONCRMDEAL", "", 7)),
        ("ONTASKUPDATE", {"FIELDS_BEFORE": {"ID": "5"}, "FIELDS_AFTER": {"ID": 5}}, 5, ("ONTASK", "", 5)),
        (
            "ONCRMDYNAMICITEMUPDATE",
            {"FIELDS": {"ID": "7", "ENTITY_TYPE_ID": "130"}},
            7,
            ("ONCRMDYNAMICITEM", "130", 7),
        ),
        ("ONVOXIMPLANTCALLEND", {"CALL_ID": "x"}, None, RECORD["MESSAGE_ID"]),
        ("ONCRMDEALUPDATE", {"FIELDS": {"ID": "0"}}, None, RECORD["MESSAGE_ID"]),
    ],
)
def test_what_an_event_is_about(name: str, data: Any, found: int | None, entity: object) -> None:
    record = read_record({**RECORD, "EVENT_NAME": name, "EVENT_DATA": data})
    assert record is not None
    event = record.event("")
    assert (event.id, event.entity) == (found, entity)
