"""Pages of a pool: who owns which, and pages of prefixes that several texts have in common."""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import takewhile

TRASH = 0  # the page that belongs to nobody: padding is written there


@dataclass(eq=False)
class Pages:
    """The pages of one pool.  Page `TRASH` is none of them.

    A full page may be known by what it holds, the tokens of a prefix up to its end.  Known pages that nobody owns stay
    as they are until room is needed, the longest unused first.
    """

    count: int
    owners: dict[int, int] = field(default_factory=dict)  # page -> texts that own it
    known: dict[bytes, int] = field(default_factory=dict)  # prefix -> page
    _prefixes: dict[int, bytes] = field(default_factory=dict)  # page -> prefix
    _empty: deque[int] = field(init=False)
    _kept: OrderedDict[int, None] = field(default_factory=OrderedDict)  # known pages that nobody owns

    def __post_init__(self) -> None:
        self._empty = deque(range(TRASH + 1, self.count))

    @property
    def free(self) -> int:
        """The number of pages that nobody owns."""
        return len(self._empty) + len(self._kept)

    def take(self) -> int:
        """A page whose content no longer counts.  Raises IndexError if none is free."""
        if self._empty:
            page = self._empty.popleft()
        elif self._kept:
            page, _ = self._kept.popitem(last=False)
            del self.known[self._prefixes.pop(page)]
        else:
            raise IndexError("no page is free")
        self.owners[page] = 1
        return page

    def share(self, prefixes: Sequence[bytes]) -> list[int]:
        """The pages that hold the first of these prefixes, as many as are known, with one owner more each."""
        pages = [self.known[prefix] for prefix in takewhile(self.known.__contains__, prefixes)]
        for page in pages:
            self._kept.pop(page, None)
            self.owners[page] = self.owners.get(page, 0) + 1
        return pages

    def name(self, page: int, prefix: bytes) -> None:
        """Note that a page holds the end of a prefix; the first page that does stays the one that is shared."""
        if prefix not in self.known and page not in self._prefixes:
            self.known[prefix], self._prefixes[page] = page, prefix

    def give(self, pages: Iterable[int]) -> None:
        """Give up pages, one owner's."""
        for page in pages:
            self.owners[page] -= 1
            if not self.owners[page]:
                del self.owners[page]
                if page in self._prefixes:
                    self._kept[page] = None
                else:
                    self._empty.append(page)


def prefixes_of(tokens: Sequence[int], page: int, known: Sequence[bytes] = (), adapter: int = 0) -> list[bytes]:
    """A digest of each prefix of `tokens` that ends with a full page; the first of them may be `known`.

    Texts with another `adapter` have other prefixes.
    """
    digests = [*known]
    before = digests[-1] if digests else bytes(adapter)
    for end in range((len(digests) + 1) * page, len(tokens) + 1, page):
        before = blake2b(before + array("q", tokens[end - page : end]).tobytes(), digest_size=16).digest()
        digests.append(before)
    return digests
