"""The first tokens, for the code of an authorisation; and tokens that are listed and forgotten."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bitrix_pull import FileTokenStore, MemoryTokenStore, OAuth, PullClient, SqliteTokenStore, Tokens
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import GrantRefused, InvalidArgument, Unreachable

Store = MemoryTokenStore | FileTokenStore | SqliteTokenStore


@pytest.fixture
async def emu() -> AsyncIterator[Emulator]:
    async with Emulator() as emulator:
        yield emulator


async def authorize(emu: Emulator, code: str, **changes: Any) -> OAuth:
    arguments = {
        "portal": emu.portal_url,
        "client_id": emu.portal.client_id,
        "client_secret": emu.portal.client_secret,
        "oauth_url": emu.oauth_url,
        **changes,
    }
    return await OAuth.authorize(code, **arguments)


async def test_a_code_becomes_tokens_that_are_stored_and_work(emu: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "acme.json"
    told: list[Tokens] = []
    auth = await authorize(emu, emu.portal.issue_code(5), tokens=path, on_token=told.append)
    stored = await FileTokenStore(path).load()
    assert stored.fields["member_id"] == emu.portal.member_id
    assert stored.fields["user_id"] == 5
    pull = PullClient(auth)
    assert (await pull.call("profile"))["ID"] == "5"
    assert [tokens.access_token for tokens in told] == [stored.access_token]

    emu.portal.expire_token(stored.access_token)
    assert (await pull.call("profile"))["ID"] == "5"
    assert (await FileTokenStore(path).load()).access_token != stored.access_token
    await pull.close()


async def test_without_a_store_they_are_kept_in_memory(emu: Emulator) -> None:
    pull = PullClient(await authorize(emu, emu.portal.issue_code(1)))
    assert (await pull.call("profile"))["ID"] == "1"
    await pull.close()


async def test_a_code_works_once_and_not_for_long(emu: Emulator, tmp_path: Path) -> None:
    code, late = emu.portal.issue_code(), emu.portal.issue_code()
    await authorize(emu, code)
    emu.portal.expire_token(late)
    for bad in (code, late, "made-up", emu.refresh_token):
        with pytest.raises(GrantRefused, match="Authorise the application") as caught:
            await authorize(emu, bad, tokens=tmp_path / "acme.json")
        assert bad not in str(caught.value)
    assert not (tmp_path / "acme.json").exists()


async def test_nothing_is_sent_that_cannot_work(emu: Emulator, tmp_path: Path) -> None:
    code = emu.portal.issue_code()
    tokens = Tokens(access_token="a", refresh_token="r")
    for changes, complaint in (
        ({"portal": "http://acme.bitrix24.com"}, "unencrypted"),
        ({"client_secret": ""}, "client_secret is missing"),
        ({"tokens": tokens}, "name the file or store"),
        ({"tokens": {"access_token": "a"}}, "name the file or store"),
        ({"tokens": tmp_path / "nowhere" / "acme.json"}, "cannot be used"),
    ):
        with pytest.raises(InvalidArgument, match=complaint):
            await authorize(emu, code, **changes)
    with pytest.raises(InvalidArgument, match="the code is missing"):
        await authorize(emu, "")
    assert not emu.portal.token_requests
    await authorize(emu, code)


async def test_a_server_that_does_not_answer_is_told(emu: Emulator) -> None:
    with pytest.raises(Unreachable):
        await authorize(emu, emu.portal.issue_code(), oauth_url="http://127.0.0.1:9/oauth/token/")


# -- members ---------------------------------------------------------------------------


def tokens_of(member_id: str | None) -> Tokens:
    fields = {} if member_id is None else {"member_id": member_id}
    return Tokens(access_token=f"a-{member_id}", refresh_token=f"r-{member_id}", fields=fields)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: MemoryTokenStore(),
        lambda path: FileTokenStore(path / "tokens.json"),
        lambda path: SqliteTokenStore(path / "tokens.db", "m1"),
    ],
)
async def test_tokens_are_listed_and_forgotten(make: Callable[[Path], Store], tmp_path: Path) -> None:
    store = make(tmp_path)
    assert await store.members() == ()
    await store.delete()
    await store.save(tokens_of("m1"))
    assert await store.members() == ("m1",)
    await store.delete()
    assert await store.members() == ()
    with pytest.raises(InvalidArgument, match="Authorise the application"):
        await store.load()
    await store.delete()
    await store.save(tokens_of("m1"))
    assert await store.load() == tokens_of("m1")


async def test_a_database_lists_all_and_forgets_one(tmp_path: Path) -> None:
    path = tmp_path / "tokens.db"
    for member in ("m2", "m1", "m3"):
        await SqliteTokenStore(path, member).save(tokens_of(member))
    assert await SqliteTokenStore(path, "any").members() == ("m1", "m2", "m3")
    await SqliteTokenStore(path, "m2").delete()
    assert await SqliteTokenStore(path, "any").members() == ("m1", "m3")
    assert await SqliteTokenStore(path, "m3").load() == tokens_of("m3")


async def test_tokens_that_do_not_tell_their_portal_have_no_name(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path / "tokens.json")
    await store.save(tokens_of(None))
    assert await store.members() == ("",)


async def test_what_cannot_be_read_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("neither")
    for store in (FileTokenStore(tmp_path / "tokens"), SqliteTokenStore(tmp_path / "tokens", "m1")):
        with pytest.raises(InvalidArgument):
            await store.members()
