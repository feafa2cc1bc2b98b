"""What ends a connection, and what to do: protocol §8, row by row."""

import pytest

from bitrix_pull.connection.disconnects import TABLE, Ended, Sign, Wait, ended_by_close, ended_by_status
from bitrix_pull.errors import ConnectionLost
from bitrix_pull.wire.close_codes import ClientClose, ServerClose


def test_every_sign_has_an_action() -> None:
    assert set(TABLE) == set(Sign)


ROWS = {
    "handshake 400 Wrong Channel Id.": (ended_by_status(400), Sign.CHANNEL_REFUSED),
    "close 4036": (ended_by_close(4036), Sign.CHANNEL_REFUSED),
    "poll 403": (ended_by_status(403, poll=True), Sign.CHANNEL_REFUSED),
    "poll 429": (ended_by_status(429, poll=True), Sign.EVICTED),
    "close 1008 of version 2": (
        ended_by_close(1008, '{"http_status": 403, "explain": "Subscriber could not create channels."}'),
        Sign.CHANNEL_REFUSED,
    ),
    "poll 400 4010": (ended_by_close(4010), Sign.CHANNEL_REFUSED),
    "close 4010": (ended_by_close(4010), Sign.CHANNEL_REFUSED),
    "close 4011": (ended_by_close(4011), Sign.HISTORY_UNREADABLE),
    **{f"close {code}": (ended_by_close(code), Sign.PUBLISH_REFUSED) for code in range(4012, 4022)},
    "close 4029": (ended_by_close(4029), Sign.EVICTED),
    **{
        f"close {code}": (ended_by_close(code), Sign.SERVER_TROUBLE)
        for code in (1000, 1001, 1006, 1012, 1013, 4009, 4022)
    },
    "no close frame": (ended_by_close(None), Sign.UNANSWERED),
    **{
        f"status {status}": (ended_by_status(status), Sign.SERVER_TROUBLE)
        for status in (200, 302, 401, 404, 405, 407, 410, 426, 429, 500, 502, 503, 504)
    },
    "close 1008": (ended_by_close(1008), Sign.BLOCKED),
    "handshake 403": (ended_by_status(403), Sign.BLOCKED),
    **{
        f"poll {status}": (ended_by_status(status, poll=True), Sign.SERVER_TROUBLE)
        for status in (302, 401, 404, 500, 502)
    },
}


@pytest.mark.parametrize(("ended", "sign"), ROWS.values(), ids=ROWS)
def test_what_was_seen_is_recognised(ended: Ended, sign: Sign) -> None:
    assert ended.sign is sign


ACTIONS = {
    # sign: (wait, wait the second time in a row, fetch the configuration first)
    Sign.CHANNEL_REFUSED: (Wait.NONE, Wait.LADDER, True),
    Sign.HISTORY_UNREADABLE: (Wait.LADDER, Wait.LADDER, False),
    Sign.PUBLISH_REFUSED: (Wait.NONE, Wait.LADDER, False),
    Sign.EVICTED: (Wait.LONG, Wait.LONG, False),
    Sign.SERVER_TROUBLE: (Wait.LADDER, Wait.LADDER, False),
    Sign.UNANSWERED: (Wait.LADDER_UNANSWERED, Wait.LADDER_UNANSWERED, False),
    Sign.BLOCKED: (Wait.LADDER, Wait.LADDER, False),
    Sign.SILENT: (Wait.LADDER_UNANSWERED, Wait.LADDER_UNANSWERED, False),
    Sign.GARBLED: (Wait.LADDER, Wait.LADDER, False),
    # Control messages (protocol §5).
    Sign.CONFIG_EXPIRED: (Wait.SPREAD, Wait.SPREAD, True),
    Sign.SERVER_RESTART: (Wait.SPREAD, Wait.SPREAD, True),
}


@pytest.mark.parametrize("sign", Sign)
def test_what_is_done_about_it(sign: Sign) -> None:
    action = TABLE[sign]
    assert (action.wait, action.wait_again, action.new_config) == ACTIONS[sign]


@pytest.mark.parametrize(
    ("sign", "code"),
    [
        (Sign.SILENT, ClientClose.STUCK),
        (Sign.CONFIG_EXPIRED, ClientClose.CONFIG_EXPIRED),
        (Sign.SERVER_RESTART, ClientClose.SERVER_RESTARTED),
    ],
)
def test_the_code_to_close_with_says_why(sign: Sign, code: ClientClose) -> None:
    assert TABLE[sign].close_code is code


def test_an_ending_is_a_lost_connection_that_a_retry_can_mend() -> None:
    ended = ended_by_close(4029)
    assert isinstance(ended, ConnectionLost)
    assert ended.retryable
    assert ended.code == 4029


@pytest.mark.parametrize("code", ServerClose)
def test_the_code_stands_once_in_the_text(code: ServerClose) -> None:
    text = str(ended_by_close(code))
    assert text.count(str(code.value)) == 1
    assert code.text in text
