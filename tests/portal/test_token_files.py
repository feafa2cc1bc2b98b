"""Tokens in a file: whole at any moment, for their owner only, under a lock."""

import asyncio
import errno
import fcntl
import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitrix_pull import FileTokenStore, SqliteTokenStore, Tokens
from bitrix_pull.errors import InvalidArgument, TokenStoreFailed
from bitrix_pull.portal.token_files import DiskTokenStore

from .conftest import StubPortal
from .granting import Clients, Grant, read, stale, write

NEXT = Tokens(access_token="access-2", refresh_token="refresh-2")


def files(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def left_behind(path: Path, content: Any, *, age_s: float = 0.0) -> Path:
    """Make what somebody leaves behind who is killed before the new file is in its place."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(content if isinstance(content, str) else json.dumps(content))
    written_at = path.stat().st_mtime_ns - int(age_s * 1e9)
    os.utime(new, ns=(written_at, written_at))
    return new


async def test_the_file_keeps_what_else_it_held(grant: Grant, client: Clients, token_file: Path) -> None:
    assert await client(str(token_file)).call("app.info") == "access-2"
    stored = read(token_file)
    assert stored.pop("expires") == pytest.approx(time.time() + 3600, abs=60)
    assert stored == {
        "access_token": "access-2",
        "refresh_token": "refresh-2",
        "domain": "acme.bitrix24.com",
        "member_id": "m1",
        "expires_in": 3600,
    }


def test_the_file_is_replaced_as_a_whole_for_its_owner_only(token_file: Path) -> None:
    token_file.chmod(0o644)
    with token_file.open() as reader:
        asyncio.run(
            FileTokenStore(token_file).save(Tokens(access_token="access-2", refresh_token="refresh-2"))
        )
        assert json.loads(reader.read())["access_token"] == "access-0"
    assert read(token_file)["access_token"] == "access-2"
    assert mode(token_file) == 0o600
    assert sorted(path.name for path in token_file.parent.iterdir()) == ["acme.json", "acme.json.lock"]


async def test_the_file_is_read_when_first_needed(grant: Grant, client: Clients, tmp_path: Path) -> None:
    path = tmp_path / "later.json"
    rest = client(path)
    write(path, grant.tokens())
    assert await rest.call("app.info") == "access-1"


async def test_a_link_to_the_file_stays_a_link(
    grant: Grant, client: Clients, token_file: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(token_file)
    assert await client(link).call("app.info") == "access-2"
    assert link.is_symlink()
    assert read(token_file)["refresh_token"] == "refresh-2"


async def test_tokens_that_somebody_else_has_renewed_are_taken_from_the_file(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    first, second = client(token_file), client(token_file)
    grant.extra = {}
    assert await first.call("app.info") == "access-2"
    await second.call("app.info")
    assert grant.refreshes == 1
    write(token_file, {"access_token": "access-3", "refresh_token": "refresh-3"})
    grant.number = 3
    assert [await first.call("app.info"), await second.call("app.info")] == ["access-3"] * 2
    assert grant.refreshes == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file"),
        ("{hush", "is no JSON"),
        ('["hush"]', "holds no JSON object"),
        ('{"access_token": "hush"}', "refresh_token is missing"),
        ('{"access_token": "hush", "refresh_token": 5}', "refresh_token is missing"),
        ('{"access_token": "hush", "refresh_token": "b", "expires": "hush"}', "expires is no unix time"),
    ],
)
async def test_a_file_that_holds_no_tokens_is_named(
    client: Clients, portal: StubPortal, tmp_path: Path, content: str | None, complaint: str
) -> None:
    path = tmp_path / "acme.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidArgument, match=complaint) as caught:
        await client(path).call("app.info")
    assert f"the token file {path}" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert not portal.calls


async def test_no_refresh_token_is_spent_if_its_successor_cannot_be_stored(
    grant: Grant, client: Clients, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(source: object, target: object) -> None:
        raise OSError(30, "Read-only file system")

    rest = client(token_file)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", read_only)
        with pytest.raises(InvalidArgument, match="cannot be written: Read-only file system"):
            await rest.call("app.info")
    assert grant.refreshes == 0
    assert read(token_file)["refresh_token"] == "refresh-1"
    assert await rest.call("app.info") == "access-2"


async def test_new_tokens_that_could_not_be_stored_are_stored_before_the_next_call(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    folder = token_file.parent
    grant.gate.clear()
    rest = client(token_file)
    task = asyncio.create_task(rest.call("app.info"))
    await grant.refreshing.wait()
    folder.rename(folder.with_name("away"))
    grant.gate.set()
    with pytest.raises(InvalidArgument, match="cannot be written: No such file"):
        await task
    folder.with_name("away").rename(folder)
    assert await rest.call("app.info") == "access-2"
    assert grant.refreshes == 1
    assert read(token_file)["refresh_token"] == "refresh-2"


# -- killed before the new file was in its place ----------------------------------------


async def test_the_newest_tokens_are_found_wherever_a_killed_process_left_them(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    grant.number = 2
    left_behind(token_file, grant.tokens())
    assert await client(token_file).call("app.info") == "access-2"
    assert grant.refreshes == 0
    assert read(token_file)["refresh_token"] == "refresh-2"
    assert files(token_file) == ["acme.json", "acme.json.lock"]


@pytest.mark.parametrize("content", ["", '{"access_token": "access-2", "refr', "{}"])
async def test_what_is_not_whole_is_thrown_away(
    grant: Grant, client: Clients, token_file: Path, content: str
) -> None:
    left_behind(token_file, content)
    assert await client(token_file).call("app.info") == "access-2"
    assert grant.refreshes == 1
    assert files(token_file) == ["acme.json", "acme.json.lock"]


async def test_what_was_written_into_the_file_since_goes_before_it(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    left_behind(token_file, stale(refresh_token="refresh-0"), age_s=1.0)
    assert await client(token_file).call("app.info") == "access-2"
    assert read(token_file)["refresh_token"] == "refresh-2"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
async def test_what_somebody_else_left_there_is_not_taken(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    os.chown(left_behind(token_file, {"access_token": "foreign", "refresh_token": "foreign"}), 4711, -1)
    assert await client(token_file).call("app.info") == "access-2"
    assert grant.refreshes == 1


async def test_a_link_put_in_the_way_is_not_followed(token_file: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    write(victim, {})
    lock = token_file.with_name("acme.json.lock")
    lock.symlink_to(victim)
    with pytest.raises(InvalidArgument, match="symbolic links"):
        await FileTokenStore(token_file).save(NEXT)
    lock.unlink()
    token_file.with_name(".acme.json.new").symlink_to(victim)
    with pytest.raises(InvalidArgument, match="symbolic links"):
        await FileTokenStore(token_file).save(NEXT)
    assert read(victim) == {}


# -- who may read and write ---------------------------------------------------------------


async def test_a_file_that_others_can_read_is_made_private(
    token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.chmod(token_file, 0o640)
    await FileTokenStore(token_file).load()
    assert mode(token_file) == 0o600
    assert "could be read by others (mode 640): it is now mode 600" in caplog.text
    caplog.clear()
    await FileTokenStore(token_file).load()
    assert not caplog.records


async def test_a_file_that_stays_readable_by_others_is_told(
    token_file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    os.chmod(token_file, 0o604)
    monkeypatch.setattr(os, "chmod", refuse)
    await FileTokenStore(token_file).load()
    assert "can be read by others (mode 604), and that could not be changed" in caplog.text


async def test_a_file_of_another_user_is_refused(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.getuid() == 0:
        os.chown(token_file, 4711, -1)
        await FileTokenStore(token_file).load()  # Root may use any.
    monkeypatch.setattr(os, "geteuid", lambda: 4712)
    with pytest.raises(InvalidArgument, match="belongs to another user"):
        await FileTokenStore(token_file).load()


async def test_whatever_lies_beside_the_file_is_private(token_file: Path) -> None:
    before = os.umask(0)
    try:
        await FileTokenStore(token_file).save(NEXT)
    finally:
        os.umask(before)
    for path in token_file.parent.iterdir():
        assert mode(path) == 0o600


async def test_a_folder_that_everyone_can_write_to_is_refused(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    token_file.parent.chmod(0o777)
    with pytest.raises(InvalidArgument, match=r"everyone can write to.*chmod o-w"):
        await client(token_file).call("app.info")
    assert grant.refreshes == 0
    token_file.parent.chmod(0o1777)
    assert await client(token_file).call("app.info") == "access-2"


async def test_a_folder_that_is_not_writable_is_told_when_the_tokens_are_read(
    token_file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    await FileTokenStore(token_file).load()
    assert "in a folder that is not writable" in caplog.text


async def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, complaint in ((pipe, "no regular file"), (tmp_path, "Is a directory"), ("/dev/zero", "no reg")):
        with pytest.raises(InvalidArgument, match=complaint):
            await FileTokenStore(path).load()
    large = tmp_path / "large.json"
    large.write_bytes(b"")
    os.truncate(large, 17_000_000)
    with pytest.raises(InvalidArgument, match="too large"):
        await FileTokenStore(large).load()


@pytest.mark.parametrize("path", ["a\0b", "\ud800", b"tokens.json", 7], ids=repr)
def test_what_cannot_be_a_path_is_refused_at_once(path: Any) -> None:
    for make in (FileTokenStore, lambda path: SqliteTokenStore(path, "m1")):
        with pytest.raises(InvalidArgument, match=r"the path of the token (file|database) is none"):
            make(path)


async def test_a_folder_in_place_of_the_file_takes_no_descriptor_each_time(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    taken = []
    for _ in range(3):
        with pytest.raises(InvalidArgument, match="Is a directory"):
            await store.load()
        taken.append(len(os.listdir("/dev/fd")))
    assert taken[1:] == taken[:-1]


async def test_a_relative_path_is_meant_where_it_was_given(
    grant: Grant, client: Clients, token_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    rest = client(token_file.name)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert await rest.call("app.info") == "access-2"
    assert read(token_file)["refresh_token"] == "refresh-2"
    assert os.listdir(elsewhere) == []


async def test_fields_that_are_no_json_are_refused_and_the_file_stays(token_file: Path) -> None:
    before = read(token_file)
    with pytest.raises(InvalidArgument, match="fields of the tokens cannot be written") as caught:
        await FileTokenStore(token_file).save(replace(NEXT, fields={"hushhush": {1, 2}}))
    assert "hush" not in str(caught.value)
    assert read(token_file) == before


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"missing/t\.json cannot be used: No such file"):
        await FileTokenStore(tmp_path / "missing" / "t.json").save(NEXT)


async def test_first_tokens_are_saved_where_there_is_no_file(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path / "new.json")
    await store.save(NEXT)
    assert await store.load() == NEXT


# -- the lock -------------------------------------------------------------------------------


async def test_the_lock_keeps_others_out_and_the_event_loop_runs(token_file: Path) -> None:
    inside: list[int] = []

    async def use(number: int) -> None:
        async with FileTokenStore(token_file).lock(5.0):
            inside.append(number)
            await asyncio.sleep(0.01)
            assert inside.pop() == number

    await asyncio.gather(*map(use, range(5)))
    async with FileTokenStore(token_file).lock(1.0):
        with pytest.raises(TokenStoreFailed, match=r"locked for 0\.05 s") as caught:
            async with FileTokenStore(token_file).lock(0.05):
                pass
    assert caught.value.retryable


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("make", [FileTokenStore, lambda path: SqliteTokenStore(path, "m1")])
async def test_a_mount_without_locks_is_told_at_once(
    make: Callable[[Path], DiskTokenStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def without_locks(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with pytest.raises(InvalidArgument, match=r"cannot be locked .* put it on a disk of this machine"):
        await make(tmp_path / "tokens").save(NEXT)


async def test_the_lock_of_a_killed_process_is_free(token_file: Path) -> None:
    program = f"""
import asyncio
from bitrix_pull import FileTokenStore
async def main():
    async with FileTokenStore({str(token_file)!r}).lock(1.0):
        print("held", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    with pytest.raises(TokenStoreFailed):
        async with FileTokenStore(token_file).lock(0.05):
            pass
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    async with FileTokenStore(token_file).lock(0.05) as locked:
        assert (await locked.load()).refresh_token == "refresh-1"


async def test_a_save_that_is_cancelled_is_finished_before_the_lock_is_free(
    token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing = threading.Event()
    go_on = threading.Event()
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        syncing.set()
        go_on.wait(5)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    store = FileTokenStore(token_file)
    saving = asyncio.create_task(store.save(NEXT))
    assert await asyncio.to_thread(syncing.wait, 5)
    saving.cancel()
    with pytest.raises(TokenStoreFailed):
        async with store.lock(0.05):
            pass
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert await store.load() == NEXT
    assert files(token_file) == ["acme.json", "acme.json.lock"]
