"""The process of our own workflow server: `python -m chipmill.orchestration.server_child LISTENER_FD PORT`.

It takes its password from the first line of standard input and then keeps reading: end of file means that the parent
has closed the pipe or is gone. It then ends within seconds, also in the middle of its start.
"""

import json
import os
import socket
import sys
import threading
import time
from typing import Any, Final

from chipmill.core.redact import install
from chipmill.orchestration.patience import Patient

_GRACE_S: Final = 10.0


def main() -> None:
    """Serve until the parent is gone."""
    descriptor, port = int(sys.argv[1]), int(sys.argv[2])
    facts = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not facts:
        sys.exit(0)  # the parent died before it said anything
    install()
    servers: list[Any] = []
    threading.Thread(target=_end_with_parent, args=(servers,), daemon=True).start()
    os.environ.update(server_environment(port, facts["password"], os.environ["PREFECT_HOME"]))

    import uvicorn
    from prefect.server.api.server import create_app

    application: Any = Patient(create_app(final=True))
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=2))
    servers.append(server)
    server.run(sockets=[socket.socket(fileno=descriptor)])
    os._exit(0)  # threads of the server's services would hold the process up


def server_environment(port: int, password: str, home: str) -> dict[str, str]:
    """Return Prefect's settings for a server that only this user can reach.

    Without a password any local process, and without CSRF tokens and an own origin any web page, could run commands
    through its API.
    """
    return {
        "PREFECT_SERVER_API_AUTH_STRING": f"chipmill:{password}",
        "PREFECT_API_AUTH_STRING": f"chipmill:{password}",  # its services talk to it as clients
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
        "PREFECT_UI_API_URL": "/api",  # relative, or the UI looks for the server on port 4200
        "PREFECT_UI_STATIC_DIRECTORY": f"{home}/ui",  # else it writes into the installed package
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/prefect.db",
        # a server that was killed must find who held a place in a limit, or the place is lost for good
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def _end_with_parent(servers: list[Any]) -> None:
    while sys.stdin.buffer.read(1 << 16):
        pass
    for server in servers:
        server.should_exit = True
    if servers:
        time.sleep(_GRACE_S)
    os._exit(0)


if __name__ == "__main__":
    main()
