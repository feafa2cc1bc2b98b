"""Which workers live, as one of them has heard, and which one is to have which portal. No I/O, no clock."""

import hashlib
from collections.abc import Iterable, Set
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from bitrix_pull.hub.valkey.engine import read_object
from bitrix_pull.redaction import get_logger

_log: Final = get_logger("hub")

_MORE_PATIENCE_MAX = 4
_FORGIVEN_AFTER_S = 300.0
_SURELY = 0.75
"""In which part of the time that a worker lasts nobody can take it for dead, however slow the ways are."""


@dataclass(slots=True)
class _Peer:
    name: str
    leaving: bool
    ends_at: float
    lives_until: float
    since: float
    settled_after_s: float


class Peers:
    """The workers that live, by session, the one that asks among them.

    Args:
        name: What this worker is called, whatever its session is.
        settle_s: For how long a worker must have been there before others give portals up to
            it. It grows for one that has fallen silent lately.
    """

    def __init__(self, name: str, settle_s: float) -> None:
        self._name = name
        self._settle_s = settle_s
        self._peers: dict[str, _Peer] = {}
        self._vanished: dict[str, list[float]] = {}
        # Which session is to have a portal, as far as it was asked for; none was to be this one.
        self._best: dict[str, str] = {}
        self._left_out = ""

    def __len__(self) -> int:
        return len(self._peers)

    def meet(self, present: Iterable[tuple[str, Any, float]], own: str, now: float) -> bool:
        """Take note of who is there; tell whether that is new.

        Args:
            present: Sessions, what each tells of itself, and for how many seconds each is taken to
                live unless it says something.
            own: The session of this worker.
            now: Seconds by any clock, the same one each time.
        """
        peers = dict[str, _Peer]()
        for session, told, lasts_s in present:
            about = read_object(told)
            name, leaving = str(about.get("name", session)), bool(about.get("leaving"))
            known = self._peers.get(session)
            if known is None:
                known = _Peer(name, leaving, 0.0, 0.0, now, self._patience_s(name, now))
            peers[session] = _Peer(
                name, leaving, now + lasts_s, now + _SURELY * lasts_s, known.since, known.settled_after_s
            )
        for session, peer in self._peers.items():
            # Who is gone before that has left in order.
            if session not in peers and now > peer.lives_until and session != own:
                self._vanished.setdefault(peer.name, []).append(now)
        names = [peer.name for peer in peers.values() if not peer.leaving]
        if names.count(self._name) > 1 and peers.keys() != self._peers.keys():
            _log.warning("there are %d workers with the name %s", names.count(self._name), self._name)
        news = {each: peer.leaving for each, peer in peers.items()} != {
            each: peer.leaving for each, peer in self._peers.items()
        }
        if news:
            self._best.clear()
        self._peers = peers
        return news

    def _patience_s(self, name: str, now: float) -> float:
        """Return for how long a worker must be there before it is given portals."""
        lately = [at for at in self._vanished.pop(name, []) if now - at < _FORGIVEN_AFTER_S]
        if lately:
            self._vanished[name] = lately
        return float(self._settle_s * 2 ** min(len(lately), _MORE_PATIENCE_MAX))

    def best_for(self, key: str, *, but: str = "") -> str:
        """Return which session is to have a portal: the same answer at every worker; "" if none is.

        Args:
            key: The portal's.
            but: A session that leaves, whatever was heard of it.
        """
        if but != self._left_out:
            self._left_out = but
            self._best.clear()
        best = self._best.get(key)
        if best is None:
            present = [
                (_weight(peer.name, key), session)
                for session, peer in self._peers.items()
                if not peer.leaving and session != but
            ]
            best = self._best[key] = max(present)[1] if present else ""
        return best

    def forget_all_but(self, keys: Set[str]) -> None:
        """Keep no answer for portals that nobody asks for any more."""
        for key in self._best.keys() - keys:
            del self._best[key]

    def settled(self, session: str, now: float) -> bool:
        """Tell whether a worker has been there for long enough for others to give portals up to it."""
        peer = self._peers.get(session)
        return peer is not None and now - peer.since >= peer.settled_after_s

    def next_end(self, own: str) -> float:
        """Return when the first worker but one is over unless it says something, by the clock of ``meet``."""
        return min((peer.ends_at for session, peer in self._peers.items() if session != own), default=inf)

    def settling(self, now: float, within_s: float) -> bool:
        """Tell whether a worker is to settle yet, or has done so within some seconds."""
        return any(now - peer.since <= peer.settled_after_s + within_s for peer in self._peers.values())


def _weight(name: str, key: str) -> bytes:
    """Return a worker's weight for a portal: the greatest one has it (rendezvous hashing)."""
    return hashlib.blake2b(f"{name}\n{key}".encode("utf-8", "replace"), digest_size=8).digest()
