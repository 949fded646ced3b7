"""An object of a store as a file that is read by ranges, over the same session that asks catalogs.

Each answer is checked to be the very bytes that were asked for: a reader of Parquet would take an answer that is too
short for whole, with whatever lay in its memory before. (pyarrow's own client of S3 does so, which is why it is not
used here.)
"""

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Final

from requests import RequestException, Response, Session

from chipmill.core.errors import ItemSearchError
from chipmill.core.redact import redact
from chipmill.imagery.api import RETRY, TIMEOUT_S
from chipmill.imagery.reach import Location, auth_of, reach_of
from chipmill.imagery.session import source_session
from chipmill.imagery.signing import sign
from chipmill.imagery.stores import login_hint, object_url

_TAIL: Final = 1 << 16
"""Bytes from the end that the opening request takes: the footer of a Parquet file, or a small list as a whole."""
_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class StoredObject(io.RawIOBase):
    """An object, opened for reading. Make it by :func:`open_object`."""

    def __init__(self, session: Session, place: str, root: str) -> None:
        self._session, self._place = session, place
        self._url = Location(object_url(place), reach_of(root), auth_of(root))
        self._at = self.size = 0
        self._tag: str | None = None
        response = self._ask(f"-{_TAIL}")
        self._tag = response.headers.get("ETag")
        if response.status_code == 200:  # it knows no ranges, or the object is empty
            first, self.size = 0, len(response.content)
        else:
            first, last, self.size = self._told(response)
            if (last, last - first + 1) != (self.size - 1, min(self.size, _TAIL)):
                raise self._wrong(response)
        self._tail, self._tail_at = response.content, first
        if len(self._tail) != self.size - first:
            raise self._wrong(response)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it; nothing is asked."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes from the position on, less only at the end; raises ItemSearchError."""
        end = self.size if size < 0 else min(self.size, self._at + size)
        first, self._at = self._at, max(self._at, end)
        if first >= end:
            return b""
        if first >= self._tail_at:
            return self._tail[first - self._tail_at : end - self._tail_at]
        response = self._ask(f"{first}-{end - 1}")
        if response.status_code != 206 or self._told(response) != (first, end - 1, self.size):
            raise self._wrong(response)
        if len(response.content) != end - first or response.headers.get("ETag") != self._tag:
            raise self._wrong(response)
        return bytes(response.content)

    def _ask(self, span: str) -> Response:
        url = sign(self._url)
        headers = {"Range": f"bytes={span}", "Accept-Encoding": "identity"}
        try:
            response = self._session.get(url, headers=headers, timeout=TIMEOUT_S)
        except RequestException as error:
            raise self._unread(redact(" ".join(str(error).split()))[:300]) from error
        if response.status_code not in (200, 206):
            raise self._unread(f"HTTP {response.status_code}")
        return response

    def _told(self, response: Response) -> tuple[int, int, int]:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None:
            raise self._wrong(response)
        first, last, size = (int(number) for number in match.groups())
        return first, last, size

    def _wrong(self, response: Response) -> ItemSearchError:
        told = response.headers.get("Content-Range", f"HTTP {response.status_code}")
        return self._unread(
            f"it answered {len(response.content)} bytes, {redact(told)[:80]!r}, which are not those that were asked for"
        )

    def _unread(self, why: str) -> ItemSearchError:
        return ItemSearchError(
            f"{self._place} cannot be read from {redact(self._url)} ({why}): {login_hint()}"
        )


@contextlib.contextmanager
def open_object(place: str, root: str) -> Iterator[StoredObject]:
    """Open ``s3://bucket/key`` inside the block; ``root`` is that of its source, which says where it may lead.

    Raises BadInputError where the environment's endpoint, region or login are not whole, ItemSearchError where the
    store has no such object, does not give it to who asks, answers other bytes than were asked for, or not at all.
    """
    from urllib3.util import Retry

    with Session() as session:
        source_session(session, root, Retry(**RETRY))
        yield StoredObject(session, place, root)


def read_object(place: str, root: str, limit: int) -> bytes:
    """Return the content of ``s3://bucket/key``.

    Raises as :func:`open_object`, and ItemSearchError where it is larger than ``limit`` bytes.
    """
    with open_object(place, root) as stream:
        if stream.size > limit:
            raise ItemSearchError(f"{place} is larger than {limit:,} bytes: serve it by a STAC API instead")
        return stream.read()
