"""What the portal answers when it does not do what it is asked (protocol §2)."""

from typing import Final


class RestError(Exception):
    """An error answer: HTTP status, the portal's code, and its words.

    Where the portal wants to be asked later: ``Retry-After``, and the unix time from which
    it takes the method again.
    """

    def __init__(
        self,
        status: int,
        code: str,
        description: str,
        *,
        retry_after: str | None = None,
        operating_reset_at: int | None = None,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.description = description
        self.retry_after = retry_after
        self.operating_reset_at = operating_reset_at


NO_AUTH_FOUND: Final = (401, "NO_AUTH_FOUND", "Wrong authorization data")
EXPIRED_TOKEN: Final = (401, "expired_token", "The access token provided has expired.")
QUERY_LIMIT_EXCEEDED: Final = (503, "QUERY_LIMIT_EXCEEDED", "Too many requests")
OPERATION_TIME_LIMIT: Final = (429, "OPERATION_TIME_LIMIT", "Method is blocked due to operation time limit.")
INVALID_CREDENTIALS: Final = (403, "INVALID_CREDENTIALS", "Invalid request credentials")
INSUFFICIENT_SCOPE: Final = (
    403,
    "insufficient_scope",
    "The request requires higher privileges than provided by the access token",
)
METHOD_NOT_FOUND: Final = (404, "ERROR_METHOD_NOT_FOUND", "Method not found!")
APPLICATION_ONLY: Final = (
    403,
    "WRONG_AUTH_TYPE",
    "Get access to application config available only for application authorization.",
)
USER_ONLY: Final = (
    403,
    "WRONG_AUTH_TYPE",
    "Get access to the config of a user is not available for application authorization.",
)
NOT_CONFIGURED: Final = (500, "SERVER_ERROR", "Push & Pull server is not configured")
PORTAL_DELETED: Final = (403, "PORTAL_DELETED", "The public part of the portal is temporarily closed")
PAYMENT_REQUIRED: Final = (402, "PAYMENT_REQUIRED", "The subscription of the portal has ended")

MAINTENANCE: Final = {error[1]: error for error in (PORTAL_DELETED, PAYMENT_REQUIRED, NOT_CONFIGURED)}
"""What a portal answers that is shut for a while, by code."""

COMMAND_FORMAT: Final = (400, "COMMAND_ERROR", "Command format error")
MODULE_ID_FORMAT: Final = (400, "MODULE_ID_ERROR", "Module ID format error")
PARAMS_FORMAT: Final = (400, "PARAMS_ERROR", "Params format error")
FOREIGN_CHANNELS: Final = (
    400,
    "USER_ID_ACCESS_ERROR",
    "Only admin can send notifications to other channels",
)
NOTIFICATION_ACCESS: Final = (400, "ACCESS_ERROR", "Only admin can send notifications")
NOTIFICATION_USERS: Final = (400, "USER_ID_ERROR", "User ID format error")
NOTIFICATION_TEXT: Final = (400, "TEXT_ERROR", "Text can't be empty")
APPLICATION_NAME: Final = (400, "EMPTY_APP_NAME", "Application name can't be empty")
INVALID_FORMAT: Final = (400, "INVALID_FORMAT", "Wrong format of the parameters")

AUTH_TYPE_DENIED: Final = (403, "WRONG_AUTH_TYPE", "Current authorization type is denied for this method")
ACCESS_DENIED: Final = (403, "ACCESS_DENIED", "Access denied!")
OFFLINE_BINDING_ACCESS: Final = (
    403,
    "ACCESS_DENIED",
    "Access denied! Offline events binding requires administrator access rights",
)
EVENT_NOT_FOUND: Final = (400, "ERROR_EVENT_NOT_FOUND", "Event not found")
EVENT_NOT_OFFLINE: Final = (400, "ERROR_CORE", "Offline event cannot be registered for event ONOFFLINEEVENT")
ALREADY_BOUND: Final = (400, "ERROR_CORE", "Unable to set event handler: Handler already binded")
NO_RESERVATION: Final = (
    403,
    "WRONG_LICENSE",
    "This feature is not enabled for the current license: extended offline events handling",
)
NO_CONNECTORS: Final = (
    403,
    "WRONG_LICENSE",
    "This feature is not enabled for the current license: auth_connector",
)
INTERNAL: Final = (500, "INTERNAL_SERVER_ERROR", "Internal server error")
BATCH_TOO_LONG: Final = (400, "ERROR_BATCH_LENGTH_EXCEEDED", "Max batch length exceeded")
NOT_IN_BATCH: Final = (405, "ERROR_BATCH_METHOD_NOT_ALLOWED", "Method is not allowed for batch usage")

INVALID_OAUTH_REQUEST: Final = (400, "invalid_request", "The request is malformed")
WRONG_CLIENT: Final = (200, "wrong_client", "No application with this client_id is installed")
INVALID_CLIENT: Final = (400, "invalid_client", "The client_secret is wrong")
INVALID_GRANT: Final = (400, "invalid_grant", "The refresh token or code is unknown, expired or used up")
