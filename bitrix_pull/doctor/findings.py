"""What a diagnosis says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bitrix_pull.errors import PullError, RateLimited

Level = Literal["ok", "warn", "fail"]


@dataclass(slots=True, frozen=True)
class Finding:
    """What one check has found.

    Attributes:
        check: What was looked at: "portal", "credentials", "websocket", …; a layer of the way there is
            named after it: "portal name", "websocket tls", …
        level: "fail" if the client cannot work like this, "warn" if something of it does not,
            or will not for long; else "ok".
        told: What is the case, in one line.
        advice: What to do about it; "" where nothing is to be done.
        took_s: Seconds that it took, where that says something.
        error: What the check met, where it failed by an error.
    """

    check: str
    level: Level
    told: str
    advice: str = ""
    took_s: float | None = None
    error: PullError | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Return it as a line for people."""
        return f"{self.level}: {self.check}: {self.told}{f'. {self.advice}' if self.advice else ''}"

    def as_json(self) -> Mapping[str, Any]:
        """Return it as JSON values."""
        return {
            "check": self.check,
            "level": self.level,
            "told": self.told,
            "advice": self.advice,
            "took_s": None if self.took_s is None else round(self.took_s, 3),
        }


@dataclass(slots=True, frozen=True)
class Diagnosis:
    """What all checks have found, in the order in which they were made.

    A check that others rest on ends the diagnosis when it fails.

    Attributes:
        portal: What the portal is called.
        findings: What each check found.
    """

    portal: str
    findings: Sequence[Finding]

    @property
    def cause(self) -> Finding | None:
        """What to look at first: the first failure, or else the first warning; None if all is well."""
        for level in ("fail", "warn"):
            for finding in self.findings:
                if finding.level == level:
                    return finding
        return None

    @property
    def level(self) -> Level:
        """The worst of all."""
        return self.cause.level if self.cause is not None else "ok"

    def as_json(self) -> Mapping[str, Any]:
        """Return it as JSON values."""
        return {
            "portal": self.portal,
            "level": self.level,
            "cause": None if self.cause is None else self.cause.as_json(),
            "findings": [finding.as_json() for finding in self.findings],
        }


def failed(check: str, error: PullError, advice: str | None = None, *, level: Level = "fail") -> Finding:
    """Return the finding that an error is.

    Args:
        check: What was looked at.
        error: What was met. Its own advice is part of its text.
        advice: What to do, where that is more than the error says.
        level: How bad that is.
    """
    if isinstance(error, RateLimited):
        # Whichever call is the first to meet them: what was looked at is not at fault.
        check = "limits"
    told = str(error)
    own = error.advice
    if own and own in told:
        told = told.replace(own, "").strip()
    return Finding(check, level, told.rstrip("."), advice or own, error=error)
