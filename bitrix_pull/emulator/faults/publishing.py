"""What befalls one request of a client that publishes."""

from dataclasses import dataclass

from bitrix_pull.wire.close_codes import ServerClose


@dataclass(slots=True, frozen=True, kw_only=True)
class PublishFault:
    """What befalls one request of a client that publishes.

    Attributes:
        applied: True: it is carried out all the same, and only its answer is spoilt.
        refusal: It is refused with this code.
        status: The HTTP status that is answered instead; a socket is cut.
        retry_after_s: Goes with that status, unless it is None.
        cut: There is no answer: the connection is reset.
    """

    applied: bool = False
    refusal: ServerClose | None = None
    status: int | None = None
    retry_after_s: int | None = None
    cut: bool = False
