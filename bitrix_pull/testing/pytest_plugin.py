"""The pytest plugin: a portal of each test's own, and a client that is connected to it.

    async def test_a_paid_order_is_answered(bitrix_portal, pull_client):
        pull_client.include(shop)
        bitrix_portal.portal.send("order_update", {"id": 7, "status": "paid"})

Fixtures, for tests run by pytest-asyncio or by anyio:

- ``bitrix_portal``: an ``Emulator``, fresh for each test;
- ``bitrix_account``: credentials for it, to pass to your own factory of clients;
- ``pull_client``: a ``PullClient`` that is live on it;
- ``bitrix_clock``: a ``Clock``, by which a test puts forward the time of all of these:
  ``await bitrix_clock.advance(hours=12)``.

``@pytest.mark.bitrix(version=5, mode="shared", licence="small", account="oauth",
faults={"lose_announcements": True})`` says what portal a test wants, each of it optional;
``--bitrix-version``, ``--bitrix-mode`` and ``--bitrix-licence`` say so for all tests without.

A run in which no test asks for them imports nothing but this file.
"""

import contextlib
import importlib.util
import inspect
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bitrix_pull import AccessToken, OAuth, PullClient, Webhook
    from bitrix_pull.emulator import Emulator
    from bitrix_pull.testing.clock import Clock

_CHOICES: dict[str, tuple[object, ...]] = {
    "version": (2, 3, 4, 5),
    "mode": ("personal", "shared"),
    "licence": ("full", "small"),
    "account": ("token", "oauth", "webhook"),
}
_LIVE_WITHIN_S = 10.0
_MARK = 'Write @pytest.mark.bitrix(version=5, mode="shared", licence="small", account="oauth", faults={…}).'


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("bitrix_pull", "the emulated Bitrix24 portal")
    group.addoption("--bitrix-version", type=int, choices=_CHOICES["version"], help="of the push server")
    group.addoption("--bitrix-mode", choices=_CHOICES["mode"], help="of the push server")
    group.addoption("--bitrix-licence", choices=_CHOICES["licence"], help="what the portal's plan includes")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, for runs with --strict-markers."""
    config.addinivalue_line(
        "markers", "bitrix(version, mode, licence, account, faults): what portal bitrix_portal is"
    )


@pytest.fixture
def bitrix_portal(request: pytest.FixtureRequest) -> "Emulator":
    """An emulated portal and push server on loopback, fresh for this test."""
    if "bitrix_clock" in request.fixturenames:
        # What began before the clock would not be put forward.
        request.getfixturevalue("bitrix_clock")
    emulator: Emulator = _asynchronous(request, "portal")
    return emulator


@pytest.fixture
def bitrix_account(
    bitrix_portal: "Emulator", request: pytest.FixtureRequest
) -> "AccessToken | OAuth | Webhook":
    """Credentials for ``bitrix_portal``, to pass to ``PullClient``."""
    from bitrix_pull import AccessToken, OAuth, Webhook

    portal = bitrix_portal.portal
    match _wanted(request).get("account", "token"):
        case "webhook":
            return Webhook(bitrix_portal.webhook_url)
        case "oauth":
            return OAuth(
                bitrix_portal.portal_url,
                client_id=portal.client_id,
                client_secret=portal.client_secret,
                tokens={"access_token": bitrix_portal.token, "refresh_token": bitrix_portal.refresh_token},
                oauth_url=bitrix_portal.oauth_url,
            )
        case _:
            return AccessToken(bitrix_portal.portal_url, bitrix_portal.token)


@pytest.fixture
def pull_client(request: pytest.FixtureRequest) -> "PullClient":
    """A client that is live on ``bitrix_portal``."""
    client: PullClient = _asynchronous(request, "client")
    return client


@pytest.fixture
def bitrix_clock(request: pytest.FixtureRequest) -> "Clock":
    """The clock of the test's event loop, of ``bitrix_portal``, and of ``time``; it can be put forward."""
    clock: Clock = _asynchronous(request, "clock")
    return clock


# -- which of the two plugins runs the test ---------------------------------------------


def _asynchronous(request: pytest.FixtureRequest, name: str) -> Any:
    """Return the value of an asynchronous fixture, by whichever plugin runs the test."""
    if "anyio_backend" in request.fixturenames:
        if request.getfixturevalue("anyio_backend_name") != "asyncio":
            pytest.fail(
                "bitrix_pull runs on asyncio: restrict the test to it by a fixture anyio_backend"
                ' that returns "asyncio".',
                pytrace=False,
            )
        return request.getfixturevalue(f"_bitrix_{name}_by_anyio")
    if not request.config.pluginmanager.hasplugin("asyncio") or not inspect.iscoroutinefunction(
        getattr(request.node, "obj", None)
    ):
        pytest.fail(
            f"{request.fixturename} is for asynchronous tests: write `async def`, and install"
            " pytest-asyncio, or mark the test with @pytest.mark.anyio.",
            pytrace=False,
        )
    return request.getfixturevalue(f"_bitrix_{name}_by_pytest_asyncio")


@contextlib.asynccontextmanager
async def _portal(request: pytest.FixtureRequest) -> "AsyncGenerator[Emulator]":
    from bitrix_pull.emulator import Emulator

    wanted = _wanted(request)
    emulator = Emulator(version=wanted.get("version", 4), mode=wanted.get("mode", "personal"))
    if wanted.get("licence") == "small":
        emulator.portal.features.update(rest_offline_extended="N", rest_auth_connector="N")
    if "bitrix_clock" in request.fixturenames:
        from bitrix_pull.testing.over_sockets import CALM_SERVER_PING_INTERVAL_S

        emulator.push.ping_interval_s = CALM_SERVER_PING_INTERVAL_S
    _misbehave(emulator, wanted.get("faults", {}))
    async with emulator:
        yield emulator


@contextlib.asynccontextmanager
async def _client(
    account: "AccessToken | OAuth | Webhook", request: pytest.FixtureRequest
) -> "AsyncGenerator[PullClient]":
    from bitrix_pull import PullClient, PullOptions
    from bitrix_pull.testing.over_sockets import CALM_OPTIONS

    options = PullOptions(**CALM_OPTIONS) if "bitrix_clock" in request.fixturenames else None
    # Not the client's own `async with`: the two halves of a fixture may run in two tasks.
    async with PullClient(account, options=options).serving() as client:
        await client.wait_live(timeout=_LIVE_WITHIN_S)
        yield client


@contextlib.asynccontextmanager
async def _clock() -> "AsyncGenerator[Clock]":
    from bitrix_pull.testing.clock import ON_ITS_WAY_S, Clock

    async with Clock() as clock:
        clock.patience_s = ON_ITS_WAY_S
        yield clock


@pytest.fixture
async def _bitrix_clock_by_anyio() -> "AsyncGenerator[Clock]":
    async with _clock() as clock:
        yield clock


@pytest.fixture
async def _bitrix_portal_by_anyio(request: pytest.FixtureRequest) -> "AsyncGenerator[Emulator]":
    async with _portal(request) as emulator:
        yield emulator


@pytest.fixture
async def _bitrix_client_by_anyio(
    bitrix_account: "AccessToken", request: pytest.FixtureRequest
) -> "AsyncGenerator[PullClient]":
    async with _client(bitrix_account, request) as client:
        yield client


if importlib.util.find_spec("pytest_asyncio") is not None:
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def _bitrix_portal_by_pytest_asyncio(request: pytest.FixtureRequest) -> "AsyncGenerator[Emulator]":
        async with _portal(request) as emulator:
            yield emulator

    @pytest_asyncio.fixture
    async def _bitrix_client_by_pytest_asyncio(
        bitrix_account: "AccessToken", request: pytest.FixtureRequest
    ) -> "AsyncGenerator[PullClient]":
        async with _client(bitrix_account, request) as client:
            yield client

    @pytest_asyncio.fixture
    async def _bitrix_clock_by_pytest_asyncio() -> "AsyncGenerator[Clock]":
        async with _clock() as clock:
            yield clock


# -- what portal a test wants -------------------------------------------------------------


def _wanted(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    """Return what the test's mark says, and the options where it says nothing."""
    options = {name: request.config.getoption(f"--bitrix-{name}") for name in ("version", "mode", "licence")}
    wanted = {name: value for name, value in options.items() if value is not None}
    mark = request.node.get_closest_marker("bitrix")
    if mark is None:
        return wanted
    if mark.args or not mark.kwargs.keys() <= {*_CHOICES, "faults"}:
        pytest.fail(f"the mark bitrix takes none of {[*mark.args, *mark.kwargs]}. {_MARK}", pytrace=False)
    for name, value in mark.kwargs.items():
        if name in _CHOICES and value not in _CHOICES[name]:
            pytest.fail(f"{name}={value!r} is none of {_CHOICES[name]}. {_MARK}", pytrace=False)
    return {**wanted, **mark.kwargs}


def _misbehave(emulator: "Emulator", faults: Mapping[str, Any]) -> None:
    owners = (emulator.portal.faults, emulator.push.faults)
    for name, value in faults.items():
        owner = next((owner for owner in owners if hasattr(owner, name)), None)
        if owner is None:
            pytest.fail(
                f"there is no fault {name!r}: see the attributes of emulator.portal.faults and"
                " emulator.push.faults.",
                pytrace=False,
            )
        setattr(owner, name, value)
