"""Asks the server again where its database was busy, as Prefect's own clients do and a browser does not."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]
type Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_BUSY: Final = 503
_WAITS_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6)


class Patient:
    """ASGI application that passes requests on to another, and passes one on again that was answered 503.

    SQLite refuses to write in a transaction that began by reading before another one wrote, however long the server would
    wait. Prefect then rolls back and answers 503: the click of a user would be lost. The last answer is given as it is.
    """

    def __init__(self, application: Application, waits_s: tuple[float, ...] = _WAITS_S) -> None:
        self._application, self._waits_s = application, waits_s

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request, one web socket or the life of the application."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        asked = await _whole(receive)
        for wait_s in self._waits_s:
            answer = _Answer(send)
            try:
                await self._application(dict(scope), _replay(asked, receive), answer.send)
            except Exception:
                # Where the answer is 503 it is why: the last one is raised, for the server's log.
                if not answer.busy:
                    raise
            if not answer.busy:
                return
            await asyncio.sleep(wait_s)
        await self._application(scope, _replay(asked, receive), send)


class _Answer:
    """Passes an answer on as it comes, but holds one back that says busy."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.busy = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.busy = message["status"] == _BUSY
        if not self.busy:
            await self._send(message)


async def _whole(receive: Receive) -> list[Message]:
    messages = [await receive()]
    while messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


def _replay(asked: Sequence[Message], receive: Receive) -> Receive:
    rest = list(asked)

    async def again() -> Message:
        return rest.pop(0) if rest else await receive()

    return again
