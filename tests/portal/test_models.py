"""Reading a configuration, in every way that portals write it."""

import copy
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.errors import InvalidConfig, NotConfigured
from bitrix_pull.portal.models import read_config, read_public_channels, write_config

REFERENCE = Path(__file__).parents[1] / "reference"
SAMPLES = {
    path.stem: orjson.loads(path.read_bytes())["result"] for path in sorted(REFERENCE.glob("config_*.json"))
}
LIVE = SAMPLES["config_v4_live"]
INACTIVE = orjson.loads((REFERENCE / "public_channels_inactive_user.json").read_bytes())["result"]


def changed(place: str, value: Any) -> Any:
    """Return the live sample with another value at a dotted place."""
    config = copy.deepcopy(LIVE)
    *parents, name = place.split(".")
    inner = config
    for parent in parents:
        inner = inner[parent]
    inner[name] = value
    return config


def without(place: str) -> Any:
    config = changed(place, None)
    *parents, name = place.split(".")
    inner = config
    for parent in parents:
        inner = inner[parent]
    del inner[name]
    return config


@pytest.mark.parametrize("name", SAMPLES)
def test_every_recorded_sample_is_read(name: str) -> None:
    sample = SAMPLES[name]
    config = read_config(sample)
    server = sample["server"]
    assert config.server.version == server["version"]
    assert config.websocket_url == server["websocket_secure"]
    assert config.polling_url == (server.get("long_polling_secure") or server["long_pooling_secure"])
    assert config.publish_url == (server["publish_secure"] or None)
    assert config.channel_ids == tuple(
        sample["channels"][kind]["id"] for kind in ("private", "shared") if kind in sample["channels"]
    )
    assert config.client_id == sample.get("clientId", "")
    assert config.jwt == sample.get("jwt", "")
    assert config.earliest_end is not None


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_written_is_read_as_the_same(name: str) -> None:
    config = read_config(SAMPLES[name])
    assert read_config(orjson.loads(orjson.dumps(write_config(config)))) == config


def test_the_live_sample_in_detail() -> None:
    config = read_config(LIVE)
    end = datetime(2026, 4, 1, 3, 5, 23, tzinfo=UTC)
    assert config.channels.private is not None
    assert config.channels.private.end == end
    assert config.channels.private.public_id.startswith("6221e0eb48981fce67cf4756e82e8102.")
    assert config.channels.shared is not None
    assert config.channels.shared.public_id == ""
    assert config.exp == datetime.fromtimestamp(1775052318, UTC)
    assert config.earliest_end == end
    assert config.api.revision_web == 19
    user = config.public_channels[577]
    # In application mode the user's own channel is another than the portal-wide one there.
    assert (user.user_id, user.public_id) == (577, "ead505c469d7f7412033b7412cb6bd3c")


def test_the_configuration_may_end_before_its_channels() -> None:
    config = read_config(SAMPLES["config_v5_jwt"])
    assert config.earliest_end == config.exp == datetime.fromtimestamp(1775009118, UTC)
    assert read_config({"jwt": "a.b.c"}).earliest_end is None


@pytest.mark.parametrize("name", ["long_polling_secure", "long_pooling_secure"])
def test_both_spellings_of_secure_polling_are_read(name: str) -> None:
    config = without("server.long_pooling_secure")
    config["server"][name] = "https://rtc.example.com/either/"
    assert read_config(config).polling_url == "https://rtc.example.com/either/"


def test_plain_addresses_serve_where_there_is_no_other() -> None:
    config = copy.deepcopy(LIVE)
    for name in ("long_pooling_secure", "websocket_secure", "publish_secure"):
        del config["server"][name]
    config["server"] |= {"websocket": "ws://a/", "long_polling": "http://b/", "publish": "http://c/"}
    read = read_config(config)
    assert (read.websocket_url, read.polling_url, read.publish_url) == ("ws://a/", "http://b/", "http://c/")
    bare = read_config({"channels": LIVE["channels"]})
    assert (bare.websocket_url, bare.polling_url, bare.publish_url) == (None, None, None)


TRUE = st.sampled_from([True, 1, "1", "Y", "y", "true", "True"])
FALSE = st.sampled_from([False, 0, "0", "N", "n", "false", "False", ""])


@given(TRUE, FALSE)
def test_booleans_in_every_spelling(yes: Any, no: Any) -> None:
    assert read_config(changed("server.websocket_enabled", yes)).websocket_url
    assert read_config(changed("server.publish_enabled", yes)).publish_url
    assert read_config(changed("server.websocket_enabled", no)).websocket_url is None
    assert read_config(changed("server.publish_enabled", no)).publish_url is None
    assert read_config(changed("server.server_enabled", yes)).server.server_enabled
    with pytest.raises(NotConfigured):
        read_config(changed("server.server_enabled", no))


MAPS = [
    "server",
    "channels",
    "channels.private",
    "channels.shared",
    "publicChannels",
    "publicChannels.577",
    "api",
]
FIELDS = [
    *MAPS,
    *(f"server.{name}" for name in LIVE["server"]),
    *(f"channels.private.{name}" for name in LIVE["channels"]["private"]),
    *(f"publicChannels.577.{name}" for name in LIVE["publicChannels"]["577"]),
    "exp",
]
NOTHING: list[Any] = [[], {}, None, False, ""]
FLAGS = ["server.server_enabled", "server.websocket_enabled", "server.publish_enabled"]


@pytest.mark.parametrize("place", [place for place in FIELDS if place != "channels" and place not in FLAGS])
@pytest.mark.parametrize("nothing", NOTHING)
def test_phps_nothing_is_a_missing_field(place: str, nothing: Any) -> None:
    assert read_config(changed(place, nothing)) == read_config(without(place))


@pytest.mark.parametrize("nothing", [[], {}, None])
@pytest.mark.parametrize("place", FLAGS)
def test_what_cannot_mean_no_is_a_missing_flag(place: str, nothing: Any) -> None:
    assert read_config(changed(place, nothing)) == read_config(without(place))


@pytest.mark.parametrize("nothing", NOTHING)
def test_a_field_that_holds_nothing_gives_way_to_its_other_spelling(nothing: Any) -> None:
    config = changed("server.long_polling_secure", nothing)
    assert read_config(config).polling_url == LIVE["server"]["long_pooling_secure"]


@pytest.mark.parametrize("place", [place for place in FIELDS if place != "channels"])
def test_any_other_field_may_be_missing(place: str) -> None:
    assert read_config(without(place)).channel_ids


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.integers()), max_size=5))
def test_unknown_fields_pass(unknown: dict[str, Any]) -> None:
    config = copy.deepcopy(LIVE)
    for part in (config, config["server"], config["channels"], config["channels"]["private"], config["api"]):
        for name, value in unknown.items():
            part[f"unknown {name}"] = value
    assert read_config(config) == read_config(LIVE)


def test_numbers_may_be_text_and_text_numbers() -> None:
    config = changed("server.version", "4")
    config["exp"] = "1775052318"
    config["clientId"] = 12345
    config["publicChannels"]["577"]["user_id"] = "577"
    read = read_config(config)
    assert read.server.version == 4
    assert read.exp == datetime.fromtimestamp(1775052318, UTC)
    assert read.client_id == "12345"
    assert read.public_channels[577].user_id == 577


@pytest.mark.parametrize("unset", [0, "", False, None])
def test_a_time_that_is_not_set(unset: Any) -> None:
    assert read_config(changed("exp", unset)).exp is None
    read = read_config(changed("channels.private.end", unset))
    assert read.channels.private is not None
    assert read.channels.private.end is None


def test_times_keep_the_moment_whatever_the_zone() -> None:
    config = changed("channels.private.end", "2026-03-31T23:05:23-04:00")
    config["serverTime"] = "2026-03-31T17:05:18+02:00"
    read = read_config(config)
    assert read.channels.private is not None
    assert read.channels.private.end == datetime(2026, 4, 1, 3, 5, 23, tzinfo=UTC)
    assert read.server_time is not None
    assert read.server_time.utcoffset() == timedelta(hours=2)


def test_public_channels_as_the_list_method_answers_them() -> None:
    for nothing in NOTHING:
        assert read_public_channels(nothing) == {}
        assert read_public_channels({"577": nothing}) == {}
    assert read_public_channels(LIVE["publicChannels"])[577].user_id == 577
    # PHP makes a list of a map whose keys happen to be 0, 1, …
    assert read_public_channels([{"user_id": 0, "public_id": "ab"}])[0].public_id == "ab"
    with pytest.raises(InvalidConfig, match="malformed at 577: "):
        read_public_channels({"577": "nonsense"}, "pull.channel.public.list")


def test_a_user_without_channel_is_among_the_others() -> None:
    channels = read_public_channels(INACTIVE)
    assert channels[577].public_id == "ead505c469d7f7412033b7412cb6bd3c"
    assert channels[999].public_id == ""


@pytest.mark.parametrize(
    ("place", "value", "shown"),
    [
        ("server", "x", "server: Input should be a valid dictionary"),
        ("server.version", "four", "server.version: .*integer"),
        ("server.version", "9" * 30, "server.version: .*less than"),
        ("publicChannels", {"9" * 30: {"user_id": 5}}, "publicChannels.…: .*less than"),
        ("server.websocket_enabled", "perhaps", "server.websocket_enabled: .*boolean"),
        ("server.long_pooling_secure", [1], "server.long_pooling_secure: .*string"),
        ("channels.private", "x", "channels.private: "),
        ("channels.private.id", [1], "channels.private.id: "),
        ("channels.private.end", "tomorrow", "channels.private.end: .*datetime"),
        ("channels.private.end", "2026-04-01T05:05:23", "channels.private.end: .*timezone"),
        ("publicChannels.577.user_id", {"a": 1}, r"publicChannels\.577\.user_id: "),
        ("publicChannels", {"6221e0eb48981fce67cf4756e82e8102": {"user_id": 5}}, "publicChannels.…: "),
        ("clientId", [1], "clientId: "),
        ("exp", "never", "exp: "),
        ("serverTime", "now", "serverTime: "),
    ],
)
def test_a_wrong_field_is_named_as_the_portal_names_it(place: str, value: Any, shown: str) -> None:
    with pytest.raises(InvalidConfig, match=f"malformed at {shown}") as caught:
        read_config(changed(place, value), "pull.config.get")
    assert caught.value.method == "pull.config.get"
    assert "6221e0eb" not in str(caught.value)


@pytest.mark.parametrize("nothing", NOTHING)
def test_a_channel_without_id_is_none(nothing: Any) -> None:
    config = read_config(changed("channels.private.id", nothing))
    assert config.channels.private is None
    assert config.channel_ids == (LIVE["channels"]["shared"]["id"],)


@pytest.mark.parametrize("result", ["x", 5, [1], True])
def test_a_result_that_is_no_configuration(result: Any) -> None:
    with pytest.raises(InvalidConfig, match="malformed at result: "):
        read_config(result)


@pytest.mark.parametrize(
    "result",
    [
        *NOTHING,
        *(changed("channels", nothing) for nothing in NOTHING),
        without("channels"),
        {"channels": {"private": []}},
        {"channels": {"private": {"id": ""}, "shared": False}},
    ],
)
def test_a_configuration_without_channels_says_so(result: Any) -> None:
    with pytest.raises(InvalidConfig, match=r"no channel: channels\.private, channels\.shared and jwt"):
        read_config(result)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(FIELDS), JSON)
def test_whatever_stands_in_a_field_only_documented_errors_escape(place: str, value: Any) -> None:
    with suppress(InvalidConfig, NotConfigured):
        assert read_config(changed(place, value)).channel_ids


def test_reprs_show_no_id_signature_or_token() -> None:
    for sample in SAMPLES.values():
        config = read_config(sample)
        shown = f"{config!r} {config}"
        secrets = [sample.get("jwt"), sample.get("clientId")]
        for channel in sample["channels"].values():
            secrets += [channel["id"], channel.get("public_id")]
        for user in (sample.get("publicChannels") or {}).values():
            secrets += [user["public_id"], user["signature"]]
        assert not [secret for secret in secrets if secret and secret in shown]
        assert "version=" in shown
