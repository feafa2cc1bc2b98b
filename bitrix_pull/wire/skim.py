"""What a message is about, told by how its body begins and ends, without parsing what is between.

Portals write ``{"module_id":…,"command":…,"params":…,"extra":{…}}``, compact and in this order
(protocol §5). That shows at both ends. But keys may be hidden between them, and of two equal ones
the last counts: so nothing is told of a body that holds one of these again, however it is spelt.
What is told of a body that is JSON is what parsing it would tell; whether it is JSON is not told.
"""

import re
from collections.abc import Sequence, Set
from functools import lru_cache

Topic = tuple[str, str]
"""What events are chosen by: the module in lower case, and the command."""

_TIME_END = 1e11

NO_TOPICS: Set[Topic] = frozenset()

_HEAD_MAX = 160
_PARAMS = b',"params":'
_HEAD = re.compile(rb'\{"module_id":"([A-Za-z0-9_.]+)","command":"([A-Za-z0-9_:|.-]+)"')

_MODULE, _COMMAND = b'"module_id"', b'"command"'
_ESCAPE = b"\\u00"
_LETTER = re.compile(rb"\\u00[567]")
"""How a letter of these keys can be spelt otherwise. Portals so spell brackets and quotation marks only."""

_SENT = b',"server_time_unix":'
_BEFORE = re.compile(rb',"extra":\{"server_time":"[^"\\]{25}"')
_BEFORE_BYTES = len(b',"extra":{"server_time":""') + 25
_BEHIND = re.compile(rb'"server_name":"[^"\\]*","revision_web":[0-9]+,"revision_mobile":[0-9]+\}\}')


def skim(
    frame: bytes, bodies: Sequence[bytes], unwanted: Set[Topic]
) -> list[tuple[Topic, float] | None] | None:
    """Tell which bodies are about what nobody wants.

    Module ``pull`` steers the client: what is of it is never told.

    Args:
        frame: What holds the bodies.
        bodies: A body each.
        unwanted: What nobody wants.

    Returns:
        Of each its topic and the portal's time (``extra.server_time_unix``), or None where it has to
        be parsed; None if that is so of all.
    """
    topics = _topics(frame, bodies)
    if unwanted.isdisjoint(topics):
        return None
    told: list[tuple[Topic, float] | None] = []
    # What is around the time is mostly the same.
    known_before = known_behind = b"-"
    for body, topic in zip(bodies, topics, strict=True):
        if topic is None or topic not in unwanted:
            told.append(None)
            continue
        before, _, rest = body.rpartition(_SENT)
        sent, _, behind = rest.partition(b",")
        if behind != known_behind or not before.endswith(known_before):
            before = before[-_BEFORE_BYTES:]
            if not _is_around(before, behind):
                told.append(None)
                continue
            known_before, known_behind = before, behind
        try:
            sent_unix = float(sent)
        except ValueError:
            sent_unix = 0.0
        told.append((topic, sent_unix) if 1 <= sent_unix < _TIME_END else None)
    return told


def _topics(frame: bytes, bodies: Sequence[bytes]) -> list[Topic | None]:
    """Return what bodies are about, as far as their beginnings tell."""
    topics = [_topic(body[:_HEAD_MAX].partition(_PARAMS)[0]) for body in bodies]
    count = len(bodies)
    # Each of them holds both keys: if all together hold them so often, none does twice.
    if (
        None in topics
        or frame.count(_COMMAND) != count
        or frame.count(_MODULE) != count
        or (b"\\" in frame and _ESCAPE in frame)
    ):
        return [
            topic if topic is not None and _is_plain(body) else None
            for topic, body in zip(topics, bodies, strict=True)
        ]
    return topics


@lru_cache(maxsize=1_000)
def _topic(head: bytes) -> Topic | None:
    """Return what is written before the params of a body."""
    match = _HEAD.fullmatch(head)
    if match is None:
        return None
    module, command = match[1].decode().lower(), match[2].decode()
    return (module, command) if module != "pull" else None


def _is_plain(body: bytes) -> bool:
    """Tell whether a body that begins with both keys does not hold them again."""
    if body.count(_COMMAND) != 1 or body.count(_MODULE) != 1:
        return False
    return _ESCAPE not in body or _LETTER.search(body) is None


def _is_around(before: bytes, behind: bytes) -> bool:
    """Tell whether this is around the portal's time in what ends a body.

    If that is JSON, no string is open before it: the quotation marks here come in pairs, none of
    them escaped. So its last bracket closes the body, and the one before it the last ``extra``.
    """
    return _BEFORE.fullmatch(before) is not None and _BEHIND.fullmatch(behind) is not None
