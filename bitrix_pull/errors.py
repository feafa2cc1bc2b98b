"""Every error that this library raises on purpose.

    PullError
    ├── InvalidArgument (ValueError)    what the caller passed; nothing was sent
    ├── NotRunning                      the call needs a client that is live
    ├── StartTimeout                    the client did not become live in time
    ├── Unreachable                     nothing answered: DNS, TCP, TLS, deadline
    ├── AnswerTooLarge                  an HTTP answer is over the limit in the options
    ├── TokenStoreFailed                the store of OAuth tokens raised something, or is locked
    ├── ResumeStoreFailed               the store of the resume point raised something, or has lost it
    ├── LeaseLost                       another worker has the portal by now, or may have it
    ├── EngineUnavailable               what workers share, such as Valkey, does not answer or takes nothing
    ├── PortalError                     the portal answered a REST call with an error
    │   ├── TokenExpired                refresh the access token
    │   ├── AuthError                   a person must give other credentials or rights
    │   │   ├── NoAuth
    │   │   ├── WrongAuthType
    │   │   ├── InsufficientScope
    │   │   ├── InvalidCredentials
    │   │   ├── AccessDenied
    │   │   ├── EmployeesOnly           the user is a guest of the portal
    │   │   ├── CallNotConfirmed        an administrator must confirm such calls
    │   │   ├── WrongLicense            the portal's plan does not include it
    │   │   └── GrantRefused            OAuth: authorise the application again
    │   ├── NotConfigured               Push & Pull is off on this portal
    │   ├── PaymentRequired
    │   ├── PortalDeleted
    │   ├── PortalOverloaded
    │   ├── HttpsRequired
    │   ├── PortalMoved                 the portal answers at another address
    │   ├── NotAPortal                  the answer is no Bitrix24 REST answer
    │   ├── MethodNotFound
    │   ├── EventNotFound               the portal has no such event, or the application not its scope
    │   ├── RateLimited                 wait, then repeat
    │   │   └── OperationTimeLimit
    │   ├── PortalUnavailable           5xx: wait, then repeat
    │   ├── CommandError
    │   ├── ModuleIdError
    │   ├── ParamsError
    │   ├── UserAccessError
    │   ├── UserIdError
    │   ├── TextError
    │   ├── EmptyAppName                the application has no name to notify in
    │   ├── InvalidFormat
    │   ├── InvalidConfig               the configuration lacks what is needed, or is malformed
    │   │   └── IncompleteConfig        the portal has left channels out, for now
    │   ├── ChannelsEnded               the portal tells channels that have ended
    │   └── CallerFailed                the REST client that the user passed raised something else
    ├── ConnectionLost                  the stream to the push server ended
    ├── MalformedFrame                  bytes from the push server that no codec can read
    ├── CallRefused                     the push server answered a JSON-RPC call with an error
    ├── CallTimeout                     the push server did not answer a JSON-RPC call
    ├── PresenceUnavailable             the server does not tell who is online
    ├── Nacked                          a handler gave an event back too often
    └── PublishError
        ├── PublishRefused              the push server refused it: ``code`` says why
        │   ├── PublicChannelRequired   4012
        │   ├── WrongRequest            4013
        │   ├── CommandNotAllowed       4014
        │   ├── WrongCommand            4015
        │   ├── TooManyMessages         4016
        │   ├── NoReceivers             4017
        │   ├── TooManyReceivers        4018
        │   ├── InvalidReceiver         4019
        │   ├── PrivateReceiver         4020
        │   └── InvalidSignature        4021
        ├── NoChannel                   a receiver is inactive, or unknown to the portal
        ├── PublishTooLarge             over 1 MiB
        ├── PublishBusy                 the push server takes nothing just now: wait, then repeat
        ├── OutcomeUnknown              it was sent, and may have been published or not
        └── RouteUnavailable            this portal cannot serve the route; names the one that can

Each error says what happened and what to do about it. ``retryable`` is True where the
same call can succeed later without anybody changing anything. No error text holds a
token, a webhook code, a channel id or a signature, nor more than one line.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from bitrix_pull.redaction import one_line

__all__ = [
    "AccessDenied",
    "AnswerTooLarge",
    "AuthError",
    "CallNotConfirmed",
    "CallRefused",
    "CallTimeout",
    "CallerFailed",
    "ChannelsEnded",
    "CommandError",
    "CommandNotAllowed",
    "ConnectionLost",
    "EmployeesOnly",
    "EmptyAppName",
    "EngineUnavailable",
    "EventNotFound",
    "GrantRefused",
    "HttpsRequired",
    "IncompleteConfig",
    "InsufficientScope",
    "InvalidArgument",
    "InvalidConfig",
    "InvalidCredentials",
    "InvalidFormat",
    "InvalidReceiver",
    "InvalidSignature",
    "LeaseLost",
    "MalformedFrame",
    "MethodNotFound",
    "ModuleIdError",
    "Nacked",
    "NoAuth",
    "NoChannel",
    "NoReceivers",
    "NotAPortal",
    "NotConfigured",
    "NotRunning",
    "OperationTimeLimit",
    "OutcomeUnknown",
    "ParamsError",
    "PaymentRequired",
    "PortalDeleted",
    "PortalError",
    "PortalMoved",
    "PortalOverloaded",
    "PortalUnavailable",
    "PresenceUnavailable",
    "PrivateReceiver",
    "PublicChannelRequired",
    "PublishBusy",
    "PublishError",
    "PublishRefused",
    "PublishTooLarge",
    "PullError",
    "RateLimited",
    "ResumeStoreFailed",
    "RouteUnavailable",
    "StartTimeout",
    "TextError",
    "TokenExpired",
    "TokenStoreFailed",
    "TooManyMessages",
    "TooManyReceivers",
    "Unreachable",
    "UserAccessError",
    "UserIdError",
    "WrongAuthType",
    "WrongCommand",
    "WrongLicense",
    "WrongRequest",
]


class PullError(Exception):
    """Base of all errors of this library.

    Each can be copied and pickled, with what it says, its attributes, and its cause where that
    is one of these errors too.

    Attributes:
        retryable: True if the same call may succeed later as it is.
        advice: What the reader can do about it; part of ``str(error)`` too.
    """

    retryable: ClassVar[bool] = False
    advice: str = ""

    def __init__(self, message: str, *, advice: str | None = None) -> None:
        if advice is not None:
            self.advice = advice
        super().__init__(one_line(f"{message.removesuffix('.')}. {self.advice}" if self.advice else message))

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...], dict[str, Any]]:
        # Exceptions are pickled by calling the class with their text, which suits few classes
        # here, and would join the advice to the text a second time.
        state = dict(self.__dict__)
        if isinstance(self.__cause__, PullError):
            state["__cause__"] = self.__cause__
        return _made_again, (type(self), self.args), state


def _made_again(kind: type[PullError], args: tuple[object, ...]) -> PullError:
    error = kind.__new__(kind)
    error.args = args
    return error


class InvalidArgument(PullError, ValueError):  # noqa: N818 - reads as the field's term
    """What the caller passed cannot work. Raised before anything is sent."""


class NotRunning(PullError):  # noqa: N818
    """The call needs a running client."""

    advice = "Use `async with pull:` or start `pull.run()` first."


class StartTimeout(PullError, TimeoutError):  # noqa: N818
    """The client did not become live in time; the cause is the last failure."""

    retryable = True


class Unreachable(PullError, ConnectionError):  # noqa: N818
    """Nothing answered: name resolution, TCP, TLS or a deadline failed.

    Attributes:
        unsent: True if the request surely never left this machine. Where it may have left,
            whether it was carried out is unknown.
    """

    retryable = True
    unsent: bool = False

    def __init__(self, message: str, *, advice: str | None = None, unsent: bool = False) -> None:
        super().__init__(message, advice=advice)
        self.unsent = unsent


class AnswerTooLarge(PullError):  # noqa: N818
    """An HTTP answer is larger than the limit; the rest of it was not read."""

    advice = "If it is a genuine one, raise max_rest_bytes in PullOptions."


class TokenStoreFailed(PullError):  # noqa: N818
    """The store that keeps OAuth tokens raised an error of its own, or stayed locked for too long."""

    retryable = True


class ResumeStoreFailed(PullError):  # noqa: N818
    """The store that keeps the resume point raised an error of its own, or lost what it held."""

    retryable = True


# -- what the portal answers over REST (protocol §2) ---------------------------


class LeaseLost(PullError):  # noqa: N818
    """This worker does not have the portal any more, or can no longer be sure of it.

    What it had in hand is not settled: the portal's next owner gets it again.
    """

    advice = "Nothing is to be done: the worker that has the portal now goes on."


class EngineUnavailable(PullError):  # noqa: N818
    """What the workers of a cluster share, such as Valkey, does not answer, or takes nothing just now."""

    retryable = True
    advice = "See that it runs, can be reached, and has memory left."


class PortalError(PullError):
    """The portal answered a REST call with an error.

    The class is chosen by ``code``; a code that has no class of its own is a plain
    ``PortalError`` that is not retryable.

    Attributes:
        code: The portal's error code as it came, or "" where the body named none.
        status: The HTTP status of the answer.
        method: The REST method that was called.
    """

    codes: ClassVar[tuple[str, ...]] = ()
    """The portal's codes that this class stands for, in lower case."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int = 0,
        method: str = "",
        advice: str | None = None,
    ) -> None:
        super().__init__(message, advice=advice)
        self.code = code
        self.status = status
        self.method = method


class TokenExpired(PortalError):  # noqa: N818
    """The access token has expired (protocol §2: refresh once, repeat the call once)."""

    codes: ClassVar[tuple[str, ...]] = ("expired_token", "invalid_token")
    advice = "Pass a fresh access token, or use OAuth(...) with a refresh token, which renews it by itself."


class AuthError(PortalError):
    """The credentials or rights do not suffice; a person must act.

    What a portal answers with 401 or 403 is one of these, whatever it is called.
    """

    codes: ClassVar[tuple[str, ...]] = ("error_oauth", "authorization_error")
    advice = "Check the credentials, authorise the application again, or ask an administrator of the portal."


class CallNotConfirmed(AuthError):  # noqa: N818
    """The portal wants an administrator to confirm such calls, and none has yet, or one has refused."""

    codes: ClassVar[tuple[str, ...]] = ("method_confirm_waiting", "method_confirm_denied")
    advice = "An administrator must confirm the call on the portal; then repeat it."


class NoAuth(AuthError):  # noqa: N818
    """The portal saw no authorisation, or does not know the one it was given."""

    codes: ClassVar[tuple[str, ...]] = ("no_auth_found",)
    advice = "Check the token or the webhook address: it may have been deleted or mistyped."


class WrongAuthType(AuthError):  # noqa: N818
    """The method does not take this kind of credentials."""

    codes: ClassVar[tuple[str, ...]] = ("wrong_auth_type",)
    advice = (
        "Application mode needs the access token of an installed application (OAuth or AccessToken); "
        'an inbound webhook works only with mode="user".'
    )


class InsufficientScope(AuthError):  # noqa: N818
    """The application or webhook lacks a permission."""

    codes: ClassVar[tuple[str, ...]] = ("insufficient_scope", "invalid_scope")
    advice = (
        'Grant the scope "pull" to the application, or "pull_channel" to the webhook, and install it again.'
    )


class InvalidCredentials(AuthError):  # noqa: N818
    """The portal does not accept the credentials."""

    codes: ClassVar[tuple[str, ...]] = ("invalid_credentials",)
    advice = "Check the webhook address or authorise the application again."


class AccessDenied(AuthError):  # noqa: N818
    """The user behind the credentials has no right to do this."""

    codes: ClassVar[tuple[str, ...]] = ("access_denied", "user_access_error", "access_error")
    advice = "Ask a portal administrator for access, or use an administrator's credentials."


class EmployeesOnly(AuthError):  # noqa: N818
    """The user behind the credentials is a guest of the portal, or an extranet user."""

    codes: ClassVar[tuple[str, ...]] = ("authorize_error", "allowed_only_intranet_user")
    advice = "Use the credentials of an employee."


class WrongLicense(AuthError):  # noqa: N818
    """The portal's plan does not include what was asked for."""

    codes: ClassVar[tuple[str, ...]] = ("wrong_license",)
    advice = "Do without it, or extend the portal's plan."


class GrantRefused(AuthError):  # noqa: N818
    """The OAuth server refused to refresh the token.

    It also does after a process was killed between its answer, which has spent the old refresh token,
    and the store of the new one.
    """

    codes: ClassVar[tuple[str, ...]] = ("invalid_grant", "invalid_client", "wrong_client", "not_installed")
    advice = "Authorise the application on the portal again and store the new tokens."


class NotConfigured(PortalError):  # noqa: N818
    """Push & Pull is not configured on this portal."""

    codes: ClassVar[tuple[str, ...]] = ("server_error",)
    advice = "An administrator must enable the Push & Pull server in the portal's settings."


class PaymentRequired(PortalError):  # noqa: N818
    """The portal's plan does not include REST, or has run out."""

    codes: ClassVar[tuple[str, ...]] = ("payment_required",)
    advice = "The portal's owner must renew or extend the plan."


class PortalDeleted(PortalError):  # noqa: N818
    """The portal no longer exists."""

    codes: ClassVar[tuple[str, ...]] = ("portal_deleted",)
    advice = "Remove this portal from your configuration."


class PortalOverloaded(PortalError):  # noqa: N818
    """The portal has blocked REST because of too high a load."""

    codes: ClassVar[tuple[str, ...]] = ("overload_limit",)
    advice = "Ask Bitrix24 support to lift the block; repeating the call does not help."


class HttpsRequired(PortalError):  # noqa: N818
    """The portal takes REST calls over https only."""

    codes: ClassVar[tuple[str, ...]] = ("invalid_request",)
    advice = "Use the portal's https:// address."


class PortalMoved(PortalError):  # noqa: N818
    """The portal redirects to another address; redirects are never followed.

    Attributes:
        target: Scheme and host of the new address, as in "https://new.bitrix24.com".
    """

    advice = "Configure the portal's new address; tokens are not sent after a redirect."
    target: str = ""


class NotAPortal(PortalError):  # noqa: N818
    """The answer is not one of a Bitrix24 portal."""

    advice = "Check the portal's address: its REST API must answer with JSON."


class MethodNotFound(PortalError):  # noqa: N818
    """The portal does not know the method."""

    codes: ClassVar[tuple[str, ...]] = ("error_method_not_found",)
    advice = "The portal may lack the Push & Pull module, or the credentials lack its scope."


class EventNotFound(PortalError):  # noqa: N818
    """The portal does not know the event, or the application may not bind it."""

    codes: ClassVar[tuple[str, ...]] = ("error_event_not_found",)
    advice = (
        "Check its name: `bitrix-pull events` lists those that this application may bind. "
        'Others need a scope, such as "crm".'
    )


class RateLimited(PortalError):  # noqa: N818
    """Too many REST calls, or the portal wants to be left alone for a while. It did nothing.

    Calls are kept below the limit and repeated within their deadline, so this says that
    the deadline is too near.

    Attributes:
        retry_after_s: Seconds until the portal takes the call again; None where it did not say.
    """

    codes: ClassVar[tuple[str, ...]] = ("query_limit_exceeded",)
    retryable = True
    advice = (
        'Call less often, publish much by route="endpoint" with users=[…], '
        "or set rest_limit in PullOptions to what the portal allows."
    )
    retry_after_s: float | None = None


class OperationTimeLimit(RateLimited):
    """The method has used up its execution time on this portal for now; others work.

    Attributes:
        reset_at: Unix time from which the portal takes the call again, or None.
    """

    codes: ClassVar[tuple[str, ...]] = ("operation_time_limit",)
    advice = "Wait until the portal's time for this method is reset."
    reset_at: float | None = None


class PortalUnavailable(PortalError):  # noqa: N818
    """The portal, or a proxy before it, could not answer just now."""

    codes: ClassVar[tuple[str, ...]] = ("internal_server_error", "error_unexpected_answer")
    retryable = True
    advice = "This passes as a rule; if it lasts, look at the portal's state."


class CommandError(PortalError):
    """The portal refused the command's name."""

    codes: ClassVar[tuple[str, ...]] = ("command_error",)
    advice = "A command may hold letters, digits and _ : | . - only."


class ModuleIdError(PortalError):
    """The portal refused the module id."""

    codes: ClassVar[tuple[str, ...]] = ("module_id_error",)
    advice = "A module id may hold lower-case letters, digits, dots and underscores only."


class ParamsError(PortalError):
    """The portal refused the params."""

    codes: ClassVar[tuple[str, ...]] = ("params_error",)
    advice = "Params must be a JSON object."


class UserAccessError(PortalError):
    """Only an administrator may address other users."""

    codes: ClassVar[tuple[str, ...]] = ("user_id_access_error",)
    advice = "Use an administrator's credentials, or publish to yourself or to the shared channel."


class UserIdError(PortalError):
    """The portal refused the user ids."""

    codes: ClassVar[tuple[str, ...]] = ("user_id_error",)
    advice = "Name users by ids that exist on this portal."


class TextError(PortalError):
    """The portal refused the text of a notification."""

    codes: ClassVar[tuple[str, ...]] = ("text_error",)
    advice = "A notification needs a text that is not empty."


class EmptyAppName(PortalError):  # noqa: N818
    """The application has no name, so nobody could see who notifies."""

    codes: ClassVar[tuple[str, ...]] = ("empty_app_name",)
    advice = "Give the application a name in its settings on the portal."


class InvalidFormat(PortalError):  # noqa: N818
    """The portal could not read the parameters of a call."""

    codes: ClassVar[tuple[str, ...]] = ("invalid_format",)
    advice = "If the portal is a genuine one, report the method named here as a bug."


class InvalidConfig(PortalError):  # noqa: N818
    """The portal's Push & Pull configuration cannot be used; the text names the field."""

    advice = "If the portal is a genuine one, report the field named here as a bug."


class IncompleteConfig(InvalidConfig):
    """The portal has left channels out of the configuration.

    It does when it cannot lock its table for 2 s (protocol §2), so it passes.
    """

    retryable = True
    advice = "This passes as a rule: the portal is asked again. If it lasts, look at its database's load."


class ChannelsEnded(PortalError):  # noqa: N818
    """The portal tells channels that have ended: nothing more comes by them."""

    retryable = True
    advice = "The portal is asked again; if it lasts, its cache of Push & Pull channels is stuck."


class CallerFailed(PortalError):  # noqa: N818
    """The REST client that the user passed raised an error of its own, which is the cause."""

    retryable = True


# -- the stream -----------------------------------------------------------------


class ConnectionLost(PullError):  # noqa: N818
    """The stream to the push server ended. The client reconnects by itself."""

    retryable = True


class MalformedFrame(PullError):  # noqa: N818
    """Bytes from the push server that its codec cannot read."""

    retryable = True


class CallRefused(PullError):  # noqa: N818
    """The push server answered a JSON-RPC call with an error.

    Attributes:
        code: The JSON-RPC error code.
    """

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class CallTimeout(PullError, TimeoutError):  # noqa: N818
    """The push server did not answer a JSON-RPC call in time; it may have acted or not."""

    retryable = True


class PresenceUnavailable(PullError):  # noqa: N818
    """This push server, or this connection to it, does not tell who is online."""


class Nacked(PullError):  # noqa: N818
    """A handler with ``ack="manual"`` gave an event back more often than its ``retries=`` allows."""


# -- publishing -----------------------------------------------------------------


class PublishError(PullError):
    """A publish call failed."""


class PublishRefused(PublishError):  # noqa: N818
    """The push server refused what was published: nothing of the request was (protocol §7).

    The class is chosen by ``code``; a code that has no class of its own is a plain
    ``PublishRefused``.

    Attributes:
        code: The push server's code, 4012 to 4021; over JSON-RPC that of the error.
    """

    codes: ClassVar[tuple[int, ...]] = ()
    """The push server's codes that this class stands for."""

    def __init__(self, message: str, *, code: int, advice: str | None = None) -> None:
        super().__init__(message, advice=advice)
        self.code = code


class PublicChannelRequired(PublishRefused):
    """The publisher has no channel with a public part, or its signature is wrong."""

    codes: ClassVar[tuple[int, ...]] = (4012,)
    advice = "The portal is asked for another channel before the next publish; if this lasts, report a bug."


class WrongRequest(PublishRefused):
    """The push server could not read the request."""

    codes: ClassVar[tuple[int, ...]] = (4013,)
    advice = "If the push server is a genuine one of version 4, report this as a bug."


class CommandNotAllowed(PublishRefused):
    """The push server does not take this kind of request from clients."""

    codes: ClassVar[tuple[int, ...]] = (4014,)


class WrongCommand(PublishRefused):
    """The push server does not know this kind of request."""

    codes: ClassVar[tuple[int, ...]] = (4015,)


class TooManyMessages(PublishRefused):
    """More messages in a request than the push server takes."""

    codes: ClassVar[tuple[int, ...]] = (4016,)
    advice = "The push server is set to less than the usual 100 messages: publish fewer at a time."


class NoReceivers(PublishRefused):
    """A message without receivers."""

    codes: ClassVar[tuple[int, ...]] = (4017,)


class TooManyReceivers(PublishRefused):
    """More receivers of a message than the push server takes."""

    codes: ClassVar[tuple[int, ...]] = (4018,)
    advice = "The push server is set to less than the usual 100 receivers: name fewer at a time."


class InvalidReceiver(PublishRefused):
    """A receiver's channel is none of the push server's."""

    codes: ClassVar[tuple[int, ...]] = (4019,)
    advice = "Check the channels: 32 hex digits, a dot and the signature."


class PrivateReceiver(PublishRefused):
    """A receiver's channel is a private one, which clients may not publish to."""

    codes: ClassVar[tuple[int, ...]] = (4020,)
    advice = "Name public channels."


class InvalidSignature(PublishRefused):
    """A receiver's channel has a wrong signature, or is no public one of this push server."""

    codes: ClassVar[tuple[int, ...]] = (4021,)
    advice = "Take the channel and its signature from the portal anew."


class NoChannel(PublishError):  # noqa: N818
    """Users among the receivers have no channel; all others of the message were sent it."""

    advice = "Inactive users, and those that the portal does not know, have none: leave them out."


class PublishTooLarge(PublishError):  # noqa: N818
    """The encoded request is over the push server's 1,048,576 bytes."""

    advice = "Send less in one message; put large content elsewhere and publish its address."


class PublishBusy(PublishError):  # noqa: N818
    """The publish endpoint takes nothing just now; nothing was published.

    Attributes:
        retry_after_s: Seconds until it wants to be asked again.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after_s: float, advice: str | None = None) -> None:
        super().__init__(message, advice=advice)
        self.retry_after_s = retry_after_s


class OutcomeUnknown(PublishError):  # noqa: N818
    """It was sent, but no answer came: it may have been published or not.

    The cause says what happened. Only the caller knows whether repeating does harm: an event
    that may come twice can be published with ``retry="safe"``.
    """

    advice = "Publish it again only if receivers can bear it twice."


class RouteUnavailable(PublishError):  # noqa: N818
    """This portal or this connection cannot serve the chosen route."""
