"""What the portal says of its push server, and whether the clocks agree."""

from datetime import timedelta

from bitrix_pull.doctor.findings import Finding, failed
from bitrix_pull.doctor.patient import Patient
from bitrix_pull.errors import PullError
from bitrix_pull.portal.config import ConfigFetcher

CLOCKS_APART_S = 60.0
"""Clocks that differ by more are worth a word: the client goes by the portal's, other programs do not."""


async def configuration(patient: Patient) -> Finding:
    """Fetch the configuration, and look what is missing in it."""
    try:
        config = await ConfigFetcher(patient.rest, patient.mode).fetch()
    except PullError as error:
        return failed("configuration", error)
    patient.config = config
    if config.server_time is not None:
        patient.learn_time(config.server_time.timestamp())
    server = config.server
    told = f"push server of version {server.version or 'unknown'}, {server.mode or 'unknown'} mode"
    if not config.complete:
        missing = [name for name in ("private", "shared") if getattr(config.channels, name) is None]
        return Finding(
            "configuration",
            "warn",
            f"{told}; the portal has left out the {' and the '.join(missing)} channel",
            "This passes as a rule; if it lasts, look at the load of the portal's database.",
        )
    if config.websocket_url is None:
        return Finding(
            "configuration",
            "warn",
            f"{told}; it offers no WebSocket, so all goes by long polling",
            "An administrator can switch WebSockets on in the portal's Push & Pull settings.",
        )
    return Finding("configuration", "ok", told)


async def clock(patient: Patient) -> Finding:
    """Compare this machine's clock with the portal's."""
    ahead_s = patient.portal_ahead_s
    if ahead_s is None:
        return Finding("clock", "ok", "the portal does not tell its time")
    if abs(ahead_s) <= CLOCKS_APART_S:
        return Finding(
            "clock", "ok", f"this machine's clock and the portal's agree within {CLOCKS_APART_S:.0f} s"
        )
    direction = "behind" if ahead_s > 0 else "ahead of"
    return Finding(
        "clock",
        "warn",
        f"this machine's clock is {timedelta(seconds=round(abs(ahead_s)))} {direction} the portal's",
        "Let both be set by NTP. The client goes by the portal's clock; certificates, logs and other"
        " programs do not.",
    )
