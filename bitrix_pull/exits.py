"""Exit codes, and which error leads to which."""

from enum import IntEnum

from bitrix_pull.errors import (
    CommandError,
    InvalidArgument,
    ModuleIdError,
    ParamsError,
    PortalError,
    PublishTooLarge,
    PullError,
    RouteUnavailable,
)


class Exit(IntEnum):
    """What the exit codes mean. ``INTERRUPTED`` is the shell's own for Ctrl-C."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PERSON_MUST_ACT = 3
    INTERRUPTED = 130


_USAGE = (
    InvalidArgument,
    CommandError,
    ModuleIdError,
    ParamsError,
    PublishTooLarge,
    RouteUnavailable,
)


def exit_code(error: PullError) -> Exit:
    """Return the exit code for an error.

    A portal's refusal that no waiting cures (credentials, rights, plan, configuration,
    address) takes a person; all that is neither that nor the caller's input has failed.
    """
    if isinstance(error, _USAGE):
        return Exit.USAGE
    if isinstance(error, PortalError) and not error.retryable:
        return Exit.PERSON_MUST_ACT
    return Exit.FAILED
