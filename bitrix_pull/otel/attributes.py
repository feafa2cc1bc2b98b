"""What figures and spans are told apart by: of few values, and none of them a secret."""

from typing import Any, Final

Attributes = dict[str, Any]

SYSTEM: Final = {"messaging.system": "bitrix24"}

OTHER: Final = "_OTHER"
"""What OpenTelemetry's conventions call all that is not among the known."""

_NAMES_MAX: Final = 200


class Names:
    """Names as they come, and ``_OTHER`` once there are too many: each makes a figure of its own."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def bounded(self, name: str) -> str:
        """Return a name, or what stands for all others."""
        if name not in self._known:
            if len(self._known) >= _NAMES_MAX:
                return OTHER
            self._known.add(name)
        return name

    def of(self, error: BaseException) -> str:
        """Return what an error is called: by its class."""
        return self.bounded(type(error).__name__)


def failed(attributes: Attributes, cause: str) -> Attributes:
    """Return attributes of what has failed."""
    return {**attributes, "error.type": cause}
