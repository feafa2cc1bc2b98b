"""Which messages were seen: the latest one by one, earlier ones packed, the oldest not at all."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import lt

from bitrix_pull.connection.stamps import UNKNOWN

_OLDER_MIN = 1_000
"""How many mids from before they were handed out again are remembered at least."""

_PACKED_BYTES = 13
"""What a mid of 26 digits takes, two to a byte."""


def is_regular(mid: str) -> bool:
    """Tell whether a mid is one by the protocol: 26 digits, which order as text (protocol §6)."""
    return len(mid) == 26 and mid.isascii() and mid.encode().isdigit()


def are_ascending(mids: Sequence[str]) -> bool:
    """Tell whether mids are regular ones, each greater than the one before."""
    return _are_regular(mids) and all(map(lt, mids, islice(mids, 1, None)))


class KnownMids:
    """Mids in order of arrival, each with its stamp, a page at a time.

    Only whole pages are forgotten or packed, so that a message costs one entry of a dictionary.
    """

    def __init__(self, at_least: int, stamps: Iterable[tuple[str, float]] = ()) -> None:
        """Remember some mids from the start.

        Args:
            at_least: How many are remembered whatever happens.
            stamps: What is known already: mids with their stamps.
        """
        self._page_size = -(-at_least // 2)
        self._page: dict[str, float] = dict(stamps)
        # Lists, though the first ones go first: there are few, and an empty deque takes 0.7 KB.
        self._pages: list[dict[str, float]] = []
        self._packs: list[_Pack] = []

    def __contains__(self, mid: str) -> bool:
        return self.stamp(mid) is not None

    def stamp(self, mid: str) -> float | None:
        """Return the stamp with which a mid is remembered, or None if it is not."""
        stamp = self._page.get(mid)
        if stamp is not None:
            return stamp
        for page in self._pages:
            if (stamp := page.get(mid)) is not None:
                return stamp
        for pack in self._packs:
            if (stamp := pack.stamp(mid)) is not None:
                return stamp
        return None

    def add(self, mid: str, stamp: float = UNKNOWN) -> bool:
        """Remember a mid; return True if it is time to ``turn_page``."""
        page = self._page
        page[mid] = stamp
        return len(page) >= self._page_size

    def add_all(self, mids: Iterable[str], stamps: Iterable[float]) -> bool:
        """Remember many; as ``add``."""
        page = self._page
        page.update(zip(mids, stamps, strict=True))
        return len(page) >= self._page_size

    def turn_page(self, point: str, latest: str) -> None:
        """Begin a new page; of the oldest, only what a resume can bring again is kept.

        Args:
            point: The resume point.
            latest: The greatest mid that counts.
        """
        self._pages.append(self._page)
        self._page = {}
        while len(self._pages) > 2:
            page = self._pages.pop(0)
            # Nearly always in order already.
            oldest = sorted(page)
            oldest = oldest[bisect_right(oldest, point) : bisect_right(oldest, latest)]
            if not _are_regular(oldest):
                oldest = [mid for mid in oldest if is_regular(mid)]
            if oldest:
                self._packs.append(_Pack(oldest, map(page.__getitem__, oldest)))
        self.forget(point)

    def forget(self, point: str) -> None:
        """Forget of what is packed all that is not beyond a resume point."""
        while self._packs and self._packs[0].newest <= point:
            del self._packs[0]

    def forget_oldest(self, but: Collection[str]) -> tuple[str, int]:
        """Forget the pack that was made first, and return its newest mid and how many there were.

        Args:
            but: Packs that hold one of these stay.
        """
        for index, pack in enumerate(self._packs):
            if all(pack.stamp(mid) is None for mid in but):
                del self._packs[index]
                return pack.newest, len(pack)
        return "", 0

    def packed(self, point: str) -> int:
        """Count the earlier mids that are remembered for the sake of a resume from there alone."""
        return sum(len(pack) for pack in self._packs if pack.newest > point)

    def upon(self, older: "KnownMids | None") -> "KnownMids":
        """Return these and the latest of older ones; a mid counts as it was here."""
        own = dict(self.beyond(""))
        olders = [] if older is None else [each for each in older.beyond("") if each[0] not in own]
        return KnownMids(
            2 * self._page_size, [*olders[-max(2 * self._page_size, _OLDER_MIN) :], *own.items()]
        )

    def beyond(self, point: str) -> Iterator[tuple[str, float]]:
        """Yield the mids beyond a resume point, with their stamps."""
        for mid, stamp in chain(*self._packs, *(page.items() for page in (*self._pages, self._page))):
            if mid > point:
                yield mid, stamp


class _Pack:
    """Sorted mids in 13 bytes each, and 8 for the stamp.

    A fast stream brings very many within the overlap of a resume.
    """

    def __init__(self, mids: list[str], stamps: Iterable[float]) -> None:
        self.newest = mids[-1]
        self._packed = bytes.fromhex("".join(mids))
        self._stamps = array("d", stamps)

    def stamp(self, mid: str) -> float | None:
        if mid > self.newest or not is_regular(mid):
            return None
        packed = bytes.fromhex(mid)
        index = bisect_left(self._all, packed, key=self._at)
        return self._stamps[index] if index < len(self._all) and self._at(index) == packed else None

    def __len__(self) -> int:
        return len(self._stamps)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return ((self._at(index).hex(), stamp) for index, stamp in enumerate(self._stamps))

    @property
    def _all(self) -> range:
        return range(len(self._stamps))

    def _at(self, index: int) -> bytes:
        return self._packed[index * _PACKED_BYTES : (index + 1) * _PACKED_BYTES]


def _are_regular(mids: Sequence[str]) -> bool:
    text = "".join(mids)
    return {26}.issuperset(map(len, mids)) and text.isascii() and (text.encode().isdigit() or not text)
