"""The program that Ray starts as a worker's Python (`py_executable`): requests a fork of the zygote and waits
for it.

`python -S -E fork_client.py SOCKET SCRIPT ARGUMENTS...`, with the zygote of `policy.cpu.zygote`.

Invariants: it imports only the standard library, to start quickly; if no zygote accepts the request, it
executes the interpreter that Ray would have started.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys

LENGTH = struct.Struct("!Q")
ACCEPTED = b"1"
TIMEOUT_S = 60.0  # the zygote answers within milliseconds, but may wait for a CPU on a busy machine


def request_fork(name: str, argv: list[str]) -> bool:
    """Run the script in a fork of the zygote at the abstract socket `name`, and wait for it to end.

    Returns False if the zygote did not accept.
    """
    request = json.dumps({"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(TIMEOUT_S)
            connection.connect("\0" + name)
            socket.send_fds(connection, [LENGTH.pack(len(request))], [0, 1, 2])
            connection.sendall(request)
            if connection.recv(1) != ACCEPTED:
                return False
            connection.settimeout(None)
            connection.recv(1)  # nothing is sent: the connection closes when the worker ends
        except OSError:
            return False
    return True


if __name__ == "__main__":
    if not request_fork(sys.argv[1], sys.argv[2:]):
        os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
