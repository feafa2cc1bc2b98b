import pytest

from bitrix_pull.emulator.channels import ChannelBook, Owner, PortalChannel, Refused, Signer, Subscription
from bitrix_pull.wire.close_codes import ServerClose
from tests.emulator.conftest import Clock

ID, PUBLIC = "0" * 32, "f" * 32
RAW_ID, RAW_PUBLIC = bytes(16), b"\xff" * 16
SIGNER = Signer("key")


@pytest.mark.parametrize(
    ("text", "subscription"),
    [(ID, Subscription(RAW_ID)), (f"{ID}:{PUBLIC}", Subscription(RAW_ID, RAW_PUBLIC))],
)
def test_what_is_signed_is_read_back(text: str, subscription: Subscription) -> None:
    assert SIGNER.read(SIGNER.sign(text)) == subscription


@pytest.mark.parametrize(
    "text",
    [
        ID,
        f"{ID}.",
        f"{ID}.{'0' * 40}",
        f"{ID}:{PUBLIC}",
        Signer("other").sign(ID),
        f"{ID}:{PUBLIC}.{SIGNER.sign(ID).partition('.')[2]}",
        SIGNER.sign(ID).upper(),
        SIGNER.sign(ID) + "\n",
        SIGNER.sign("short"),
        f"{ID}.é",
        "",
    ],
)
def test_what_is_not_signed_so_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refusal:
        SIGNER.read(text)
    assert refusal.value.code is ServerClose.WRONG_CHANNEL


def test_public_channel_is_no_subscription() -> None:
    public = SIGNER.sign_public(PUBLIC)
    assert SIGNER.knows(public.id, public.signature)
    with pytest.raises(Refused):
        SIGNER.read(f"{PUBLIC}.{public.signature.hex()}")


@pytest.mark.parametrize("text", [ID, f"{ID}.{'0' * 40}"])
def test_trusted_reader_needs_no_signature(text: str) -> None:
    assert SIGNER.read(text, trusted=True) == Subscription(RAW_ID)


def test_without_a_key_ids_are_bare() -> None:
    signer = Signer("")
    assert signer.sign(ID) == ID
    assert signer.sign_public(PUBLIC).signature == b""
    assert signer.read(ID) == Subscription(RAW_ID)
    assert signer.knows(RAW_PUBLIC, b"")


def test_a_hundred_channels_are_the_limit() -> None:
    assert len(SIGNER.read_all("/".join([SIGNER.sign(ID)] * 100))) == 100
    with pytest.raises(Refused) as refusal:
        SIGNER.read_all("/".join([SIGNER.sign(ID)] * 101))
    assert refusal.value.code is ServerClose.TOO_MANY_CHANNELS


def test_no_repr_shows_an_id() -> None:
    book = ChannelBook("key", Clock(), lambda old, new: None, life_s=60)
    channel = book.current(Owner("application", 1))
    shown = repr(channel) + repr(SIGNER.read(SIGNER.sign(f"{ID}:{PUBLIC}"))) + repr(SIGNER)
    assert not any(secret in shown for secret in (channel.id, str(channel.public_id), ID, str(RAW_ID)))


class TestChannelBook:
    def test_an_owner_keeps_its_channel_until_its_end(self, clock: Clock) -> None:
        replaced: list[tuple[PortalChannel, PortalChannel]] = []
        book = ChannelBook("key", clock, lambda old, new: replaced.append((old, new)), life_s=100)
        first = book.current(Owner("application", 1))
        clock.now = first.end - 0.001
        assert book.current(Owner("application", 1)) == first
        assert replaced == []
        clock.now = first.end
        second = book.current(Owner("application", 1))
        assert replaced == [(first, second)]
        assert (second.start, second.end) == (clock.now, clock.now + 100)
        assert book.current(Owner("application", 1)) == second

    def test_every_owner_and_generation_has_ids_of_its_own(self, clock: Clock) -> None:
        book = ChannelBook("key", clock, lambda old, new: None, life_s=100)
        owners = [
            Owner("application"),
            Owner("user"),
            Owner("application", 1),
            Owner("user", 1),
            Owner("user", 2),
        ]
        channels = [book.current(owner) for owner in owners]
        clock.now += 100
        channels += [book.current(owner) for owner in owners]
        ids = [text for channel in channels for text in (channel.id, channel.public_id) if text]
        assert len(set(ids)) == len(ids) == 16

    def test_only_a_users_channel_has_a_public_part(self, clock: Clock) -> None:
        book = ChannelBook("key", clock, lambda old, new: None, life_s=100)
        assert book.current(Owner("application")).public_id is None
        assert book.current(Owner("application", 1)).public_id is not None

    def test_ids_follow_from_the_key(self, clock: Clock) -> None:
        keys = ["key", "key", "other key"]
        books = [ChannelBook(key, clock, lambda old, new: None, life_s=100) for key in keys]
        first, same, other = (book.current(Owner("user", 1)) for book in books)
        assert first == same
        assert first.id != other.id

    def test_expire_replaces_a_channel_at_once(self, clock: Clock) -> None:
        replaced: list[tuple[PortalChannel, PortalChannel]] = []
        book = ChannelBook("key", clock, lambda old, new: replaced.append((old, new)), life_s=100)
        book.expire(Owner("user", 1))
        assert replaced == [], "there was none yet"
        first = book.current(Owner("user", 1))
        book.expire(Owner("user", 1))
        assert replaced == [(first, book.current(Owner("user", 1)))]
        assert replaced[0][1].id != first.id
