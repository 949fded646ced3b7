"""Checks that a server answers with the bytes that it was asked for: GDAL takes whatever range comes as the one it wanted.

A cache or server that answers one range with another gives pixels of another place, without an error. The gate feeds
both directions of a plain http connection through here; what TLS hides is left to TLS and the server behind it.
"""

import re
from typing import Final

_END: Final = b"\r\n\r\n"
_MAX_HEAD: Final = 1 << 16
_METHODS: Final = (b"GET ", b"HEAD")
_ASKED: Final = re.compile(rb"\r\nrange:[ \t]*bytes=(\d+)-(\d*)[ \t]*\r\n", re.IGNORECASE)
_GIVEN: Final = re.compile(rb"\r\ncontent-range:[ \t]*bytes (\d+)-(\d+)/(\d+|\*)[ \t]*\r\n", re.IGNORECASE)
_PARTIAL: Final = re.compile(rb"HTTP/1\.[01] 206[ \r]")


class WrongRangeError(ValueError):
    """A server answered a range that it was not asked for; the text says both."""


class RangeCheck:
    """What of one connection is needed to compare: the range last asked for, and the head of its answer."""

    def __init__(self) -> None:
        self._plain = True
        self._asking = b""
        self._asked: tuple[int, int | None] | None = None
        self._head: bytearray | None = None

    def sent(self, data: memoryview) -> None:
        """Take bytes on their way to the server."""
        if not self._plain or len(self._asking) > _MAX_HEAD:
            return
        self._asking += bytes(data)
        self._plain = self._asking[:4] in {method[: len(self._asking)] for method in _METHODS}
        if not self._plain or _END not in self._asking:
            return
        found = _ASKED.search(self._asking)
        self._asked = (int(found[1]), int(found[2]) if found[2] else None) if found else None
        self._asking, self._head = b"", bytearray()

    def received(self, data: memoryview) -> None:
        """Take bytes on their way back; raises WrongRangeError before any of a wrong answer is passed on."""
        if self._head is None:
            return
        self._head += data[:_MAX_HEAD]
        end = self._head.find(_END)
        if end < 0 and len(self._head) < _MAX_HEAD:
            return
        head, self._head = bytes(self._head[: end + 2]), None
        if self._asked is not None and _PARTIAL.match(head):
            _compare(self._asked, _GIVEN.search(head))


def _compare(asked: tuple[int, int | None], given: re.Match[bytes] | None) -> None:
    first, last = asked
    wanted = f"bytes {first}-{'' if last is None else last}"
    if given is None:
        raise WrongRangeError(f"the server was asked for {wanted} and does not say which bytes it gives")
    start, end = int(given[1]), int(given[2])
    whole = None if given[3] == b"*" else int(given[3])
    # Fewer are right at the end of the file alone: elsewhere what is missing would have to be asked for again.
    enough = end == last or (whole is not None and end == whole - 1 and (last is None or end < last))
    if start != first or not enough:
        raise WrongRangeError(f"the server was asked for {wanted} and gives bytes {start}-{end}")
