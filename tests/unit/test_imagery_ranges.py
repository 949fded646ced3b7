"""What the gate compares of a plain http connection, piece by piece as bytes may come."""

import pytest

from chipmill.imagery.ranges import RangeCheck, WrongRangeError

ASK = b"GET /a.tif HTTP/1.1\r\nHost: a\r\nRange: bytes=%s\r\nAccept: */*\r\n\r\n"
GIVE = b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes %s\r\nContent-Length: 9\r\n\r\n"


def pieces(data, size):
    return [memoryview(data[at : at + size]) for at in range(0, len(data), size)]


def talk(check, asked, answer, size=1 << 20):
    for part in pieces(asked, size):
        check.sent(part)
    for part in pieces(answer, size):
        check.received(part)


@pytest.mark.parametrize("size", [1, 3, 64, 1 << 20])
@pytest.mark.parametrize(
    ("asked", "given"),
    [(b"0-99", b"0-99/1000"), (b"900-1099", b"900-999/1000"), (b"5-", b"5-999/1000"), (b"0-99", b"0-99/*")],
)
def test_the_bytes_that_were_asked_for_pass(size, asked, given):
    check = RangeCheck()
    for _ in range(2):  # a connection is used again
        talk(check, ASK % asked, GIVE % given + b"x" * 300, size)


@pytest.mark.parametrize("size", [1, 64, 1 << 20])
@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (b"100-199", b"0-99/1000"),  # another place
        (b"100-199", b"100-149/1000"),  # the first half
        (b"100-199", b"100-299/1000"),  # more
        (b"100-", b"100-500/1000"),  # not to the end
        (b"100-199", b"100-149/*"),
        (b"100-199", b"nonsense"),
    ],
)
def test_other_bytes_are_stopped_before_any_passes(size, asked, given):
    check = RangeCheck()
    talk(check, ASK % b"0-99", GIVE % b"0-99/1000" + b"x" * 100, size)
    for part in pieces(ASK % asked, size):
        check.sent(part)
    head = pieces(GIVE % given, size)
    for part in head[:-1]:
        check.received(part)
    with pytest.raises(WrongRangeError, match=f"asked for bytes {asked.decode()}"):
        check.received(head[-1])


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Range: bytes 7-8/9\r\n\r\n",
    ],
)
def test_other_answers_are_for_gdal_to_judge(answer):
    talk(RangeCheck(), ASK % b"0-99", answer)


def test_what_is_not_plain_http_passes_unread():
    check = RangeCheck()
    talk(check, b"\x16\x03\x01" + ASK % b"100-199", GIVE % b"0-99/1000")


def test_a_request_without_a_range_may_get_any():
    talk(RangeCheck(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", GIVE % b"0-99/1000")


def test_a_head_without_end_is_not_kept():
    check = RangeCheck()
    talk(check, ASK % b"0-99", b"HTTP/1.1 206 Partial Content\r\nX: " + b"x" * 200_000)
    assert check._head is None
    check = RangeCheck()
    for _ in range(50):
        check.sent(memoryview(b"GET /" + b"x" * 4000))
    assert len(check._asking) < 100_000
