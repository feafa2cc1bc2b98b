"""Which messages were seen: the latest one by one, earlier ones packed, the oldest not at all."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import lt

_PACKED_BYTES = 13
"""What a mid of 26 digits takes, two to a byte."""


def is_regular(mid: str) -> bool:
    """Tell whether a mid is one by the protocol: 26 digits, which order as text (protocol §6)."""
    return len(mid) == 26 and mid.isascii() and mid.encode().isdigit()


def are_ascending(mids: Sequence[str]) -> bool:
    """Tell whether mids are regular ones, each greater than the one before."""
    return _are_regular(mids) and all(map(lt, mids, islice(mids, 1, None)))


class KnownMids:
    """A set of mids in order of arrival, a page at a time.

    Only whole pages are forgotten or packed, so that a message costs one entry of a dictionary.
    """

    def __init__(self, at_least: int, mids: Iterable[str] = ()) -> None:
        """Remember some mids from the start.

        Args:
            at_least: How many are remembered whatever happens.
            mids: What is known already.
        """
        self._page_size = -(-at_least // 2)
        # Each mid with the unix time until which the server must keep it; 0 where nobody knows.
        self._page: dict[str, float] = dict.fromkeys(mids, 0.0)
        self._pages: deque[dict[str, float]] = deque()
        self._packs: deque[_Pack] = deque()

    def __contains__(self, mid: str) -> bool:
        return (
            mid in self._page
            or any(mid in page for page in self._pages)
            or any(mid in pack for pack in self._packs)
        )

    def add(self, mid: str, kept_until_unix: float) -> bool:
        """Remember a mid; return True if it is time to ``turn_page``."""
        page = self._page
        page[mid] = kept_until_unix
        return len(page) >= self._page_size

    def add_all(self, mids: Iterable[str], kept_until_unix: Iterable[float]) -> bool:
        """Remember many; as ``add``."""
        page = self._page
        page.update(zip(mids, kept_until_unix, strict=True))
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
            # Nearly always in order already.
            oldest = sorted(self._pages.popleft())
            oldest = oldest[bisect_right(oldest, point) : bisect_right(oldest, latest)]
            if not _are_regular(oldest):
                oldest = [mid for mid in oldest if is_regular(mid)]
            if oldest:
                self._packs.append(_Pack(oldest))
        self.forget(point)

    def forget(self, point: str) -> None:
        """Forget of what is packed all that is not beyond a resume point."""
        while self._packs and self._packs[0].newest <= point:
            self._packs.popleft()

    @property
    def packed(self) -> int:
        """How many earlier mids are remembered for the sake of a resume alone."""
        return sum(map(len, self._packs))

    def beyond(self, point: str) -> Iterator[str]:
        """Yield the mids beyond a resume point."""
        for mid in chain(*self._packs, *self._pages, self._page):
            if mid > point:
                yield mid

    def keeps_beyond(self, point: str, unix: float) -> bool:
        """Tell whether the server must still keep at a time one of the latest mids beyond a point."""
        return any(
            kept_until > unix and mid > point
            for page in (*self._pages, self._page)
            for mid, kept_until in page.items()
        )

    def forget_how_long(self) -> None:
        """Take note that nobody knows any more until when the server keeps what came so far."""
        self._page = dict.fromkeys(self._page, 0.0)
        self._pages = deque(dict.fromkeys(page, 0.0) for page in self._pages)


class _Pack:
    """Sorted mids in 13 bytes each: a fast stream brings very many within the overlap of a resume."""

    def __init__(self, mids: list[str]) -> None:
        self.newest = mids[-1]
        self._packed = bytes.fromhex("".join(mids))

    def __contains__(self, mid: str) -> bool:
        if mid > self.newest or not is_regular(mid):
            return False
        packed = bytes.fromhex(mid)
        index = bisect_left(self._all, packed, key=self._at)
        return index < len(self._all) and self._at(index) == packed

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[str]:
        return (self._at(index).hex() for index in self._all)

    @property
    def _all(self) -> range:
        return range(len(self._packed) // _PACKED_BYTES)

    def _at(self, index: int) -> bytes:
        return self._packed[index * _PACKED_BYTES : (index + 1) * _PACKED_BYTES]


def _are_regular(mids: Sequence[str]) -> bool:
    text = "".join(mids)
    return {26}.issuperset(map(len, mids)) and text.isascii() and (text.encode().isdigit() or not text)
