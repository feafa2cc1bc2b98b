import pytest

from bitrix_pull.emulator.tokens import Grant, Tokens
from tests.emulator.conftest import Clock


@pytest.fixture
def tokens(clock: Clock) -> Tokens:
    return Tokens("key", clock)


def test_a_token_says_whose_it_is(tokens: Tokens) -> None:
    token = tokens.issue("access", 7)
    assert tokens.open("access", token) == Grant(7, expired=False)


def test_every_token_is_another(tokens: Tokens) -> None:
    issued = [tokens.issue("access", user_id, life) for user_id in (1, 1, 2) for life in (None, 60.0)]
    assert len(set(issued)) == 6


def test_a_token_expires(tokens: Tokens, clock: Clock) -> None:
    forever, brief = tokens.issue("access", 1), tokens.issue("access", 1, 60.0)
    clock.now += 59.9
    assert tokens.open("access", brief) == Grant(1, expired=False)
    clock.now += 0.2
    assert tokens.open("access", brief) == Grant(1, expired=True)
    assert tokens.open("access", forever) == Grant(1, expired=False)
    tokens.expire(forever)
    assert tokens.open("access", forever) == Grant(1, expired=True)


def test_tokens_of_an_earlier_process_with_the_same_key_are_known(tokens: Tokens, clock: Clock) -> None:
    token = tokens.issue("access", 1, 3600.0)
    assert Tokens("key", clock).open("access", token) == Grant(1, expired=False)
    assert Tokens("other key", clock).open("access", token) is None


def test_the_first_token_without_an_end_follows_from_the_key(tokens: Tokens, clock: Clock) -> None:
    token = tokens.issue("access", 1)
    clock.now += 1000
    assert Tokens("key", clock).issue("access", 1) == token


@pytest.mark.parametrize("token", ["", "no hex", "00", "0" * 80, "é"])
def test_nonsense_is_no_token(tokens: Tokens, token: str) -> None:
    assert tokens.open("access", token) is None


def test_a_refresh_token_is_no_access_token(tokens: Tokens) -> None:
    assert tokens.open("access", tokens.issue("refresh", 1)) is None
