"""The server asks itself again where its database was busy: what the one who asked is told, and how often it was tried."""

import asyncio

import pytest

from chipmill.orchestration.patience import Patient

WAITS_S = (0.0, 0.0)


class Busy:
    """Application that is busy for the first requests, and raises after such an answer as Starlette does."""

    def __init__(self, times, status=201):
        self.times, self.status = times, status
        self.bodies = []

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        assert "touched" not in scope, "each time is a request of its own"
        scope["touched"] = True
        busy = len(self.bodies) <= self.times
        await send({"type": "http.response.start", "status": 503 if busy else self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"busy" if busy else b"made"})
        if busy or self.status == 500:
            raise OSError("database is locked")


def ask(application):
    """What is answered to one request whose body comes in two parts: the status and the body."""
    told = []
    parts = [
        {"type": "http.request", "body": b"12", "more_body": True},
        {"type": "http.request", "body": b"34"},
    ]

    async def receive():
        return parts.pop(0)

    async def send(message):
        told.append(message.get("status", message.get("body")))

    asyncio.run(Patient(application, WAITS_S)({"type": "http"}, receive, send))
    return told


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_busy_database_is_asked_again(times):
    application = Busy(times)
    assert ask(application) == [201, b"made"]
    assert application.bodies == [b"1234"] * (times + 1)


def test_the_last_answer_is_given_as_it_is():
    application = Busy(times=3)
    with pytest.raises(OSError, match="locked"):
        ask(application)
    assert len(application.bodies) == 3


def test_another_error_is_not_asked_again():
    application = Busy(times=0, status=500)
    with pytest.raises(OSError, match="locked"):
        ask(application)
    assert len(application.bodies) == 1


def test_sockets_are_passed_on():
    seen = []

    async def application(scope, receive, send):
        seen.append((scope, receive, send))

    asyncio.run(Patient(application)({"type": "websocket"}, None, None))
    assert seen == [({"type": "websocket"}, None, None)]
