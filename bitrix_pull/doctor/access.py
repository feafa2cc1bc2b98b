"""Whether the portal is there, and what it thinks of the credentials."""

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import cast

from bitrix_pull.doctor.findings import Finding, Level, failed
from bitrix_pull.doctor.patient import Patient, Stopwatch
from bitrix_pull.doctor.way import Way
from bitrix_pull.errors import InsufficientScope, MethodNotFound, PullError, RateLimited, WrongAuthType
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.portal_clock import date_of
from bitrix_pull.portal.user_ids import read_user_id
from bitrix_pull.wire.messages import is_object

_SCOPES: dict[Mode, str] = {"application": "pull", "user": "pull_channel"}
"""The scope that each mode needs (protocol §1)."""

_UNREACHABLE = "Check the portal's address, and what stands before it."


async def portal(patient: Patient) -> AsyncGenerator[Finding]:
    """Look whether a portal answers at its address. No credentials are told to whoever does."""
    rest = patient.rest
    if rest.origin is None:
        yield Finding("portal", "ok", f"it is reached by your own client ({rest.kind})")
        return
    try:
        way = patient.way_to(rest.origin)
        # A session of the user's may go by a way that only it knows.
        if not rest.http.is_given:
            async for finding in Way(patient, "portal", rest.origin).findings():
                yield finding
                if finding.level == "fail":
                    return
        with Stopwatch() as watch:
            answer = await rest.knock()
    except PullError as error:
        yield failed("portal", error, error.advice or _UNREACHABLE)
        return
    if (unix := date_of(answer.headers)) is not None:
        patient.learn_time(unix)
    tls = "over TLS" if rest.origin.startswith("https:") else "without TLS"
    yield Finding("portal", "ok", f"{patient.portal} answers {tls}{way}", took_s=watch.took_s)


async def credentials(patient: Patient) -> Finding:
    """Look whether the portal takes the credentials, and whether they reach far enough."""
    rest, kind = patient.rest, patient.rest.kind
    try:
        answer = await rest.ask("scope")
    except MethodNotFound:
        return Finding("credentials", "ok", f"{kind}; the portal does not tell its scopes")
    except PullError as error:
        return failed("credentials", error)
    if answer.server_time is not None:
        patient.learn_time(answer.server_time.timestamp())
    result: object = answer.result
    scopes = cast("list[object]", result) if isinstance(result, list) else []
    needed = _SCOPES[rest.default_mode]
    if scopes and needed not in scopes:
        has = ", ".join(sorted(map(str, scopes)))
        told = f'the scope "{needed}" is missing; there is {has:.200}'
        return failed("credentials", InsufficientScope(told, code="insufficient_scope"))
    return Finding("credentials", "ok", f'{kind} with the scope "{needed}"{await _life(patient)}')


async def _life(patient: Patient) -> str:
    """Say how long the access token is good for, as far as that is known."""
    expires_unix = await patient.rest.token_expires_unix()
    if expires_unix is None:
        return "; how long it is good for is not known" if patient.rest.kind == "AccessToken" else ""
    left = timedelta(seconds=max(round(expires_unix - patient.rest.http.clock.now()), 0))
    return f"; its access token is good for {left}, and refreshed then"


async def administrator(patient: Patient) -> Finding:
    """Look whether the user behind the credentials is an administrator."""
    try:
        profile = await patient.rest.call("profile")
    except PullError as error:
        # Over the limits, no further call would do better.
        level: Level = "fail" if isinstance(error, RateLimited) else "warn"
        return failed("administrator", error, level=level)
    fields = profile if is_object(profile) else {}
    patient.user_id = read_user_id(fields.get("ID"))
    patient.is_administrator = fields.get("ADMIN") in (True, "Y", 1, "1", "true")
    user = f"user {patient.user_id or '(unknown)'}"
    if patient.is_administrator or patient.mode == "user":
        is_one = "an" if patient.is_administrator else "no"
        return Finding("administrator", "ok", f"{user} is {is_one} administrator")
    return Finding(
        "administrator",
        "warn",
        f"{user} is no administrator: the portal's own events, events to other users, and notifications"
        " are refused",
        "Authorise the application as an administrator of the portal, if these are needed.",
    )


async def mode(patient: Patient) -> Finding:
    """Look whether the credentials are of the kind that the mode takes."""
    natural = patient.rest.default_mode
    if patient.mode == natural or patient.rest.origin is None:
        return Finding("mode", "ok", f"{patient.mode} mode")
    if patient.mode == "application":
        told = f"a {patient.rest.kind.lower()} has no application, whose channels are asked for"
        advice = 'Use OAuth or AccessToken of an installed application, or mode="user".'
    else:
        told = f"user mode takes an inbound webhook, and these are {patient.rest.kind}"
        advice = 'Use a Webhook with the scope "pull_channel", or mode="application".'
    return failed("mode", WrongAuthType(told, code="WRONG_AUTH_TYPE", advice=advice))
