"""Channel ids (protocol §3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.wire.channel_ids import PublicChannel, channel_key


@given(channel=st.binary(min_size=16, max_size=16), signature=st.binary(max_size=64))
def test_a_public_channel_is_read_from_hex(channel: bytes, signature: bytes) -> None:
    text = f"{channel.hex()}.{signature.hex()}" if signature else channel.hex()
    assert PublicChannel.parse(text) == PublicChannel(channel, signature)
    assert PublicChannel.parse(text.upper()) == PublicChannel(channel, signature)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b1",
        "g" * 32,
        "a" * 31,
        "a" * 33,
        "a" * 32 + ".",
        "a" * 32 + ".abc",
        "a" * 32 + ":bb",
        "a" * 32 + "\n",
    ],
)
def test_another_form_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        PublicChannel.parse(text)
    assert not text.strip() or text not in str(caught.value)


def test_a_public_channel_does_not_show_itself() -> None:
    assert repr(PublicChannel(b"\xab" * 16, b"\xcd" * 20)) == "PublicChannel(…)"


@pytest.mark.parametrize("channel", ["24c9:b173.3cc5", "24c9.3cc5", "24c9", "24c9:b173"])
def test_a_channel_is_recognised_by_its_first_part(channel: str) -> None:
    assert channel_key(channel) == "24c9"


@pytest.mark.parametrize("text", ["0123456789abcdef" * 2, "0123456789abcdef" * 2 + "." + "ab" * 20])
def test_a_public_channel_can_be_written_again(text: str) -> None:
    assert PublicChannel.parse(text).text == text
