"""What Ray calls instead of Python to start a worker (`py_executable`): asks the zygote (`policy.cpu.zygote`)
for a fork, and lives as long as that does.

`python -S -E fork_client.py SOCKET SCRIPT ARGUMENTS...`. Invariants: it imports nothing but the standard
library, since it is to be quick; where no zygote takes the request it becomes the interpreter that Ray would
have started.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys

LENGTH = struct.Struct("!Q")
TAKEN = b"1"
PATIENCE_S = 60.0  # the zygote answers within milliseconds, and may be starved on a busy machine


def ask(name: str, argv: list[str]) -> bool:
    """Whether the zygote at the abstract socket `name` ran the script; returns when that has ended."""
    request = json.dumps({"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(PATIENCE_S)
            connection.connect("\0" + name)
            socket.send_fds(connection, [LENGTH.pack(len(request))], [0, 1, 2])
            connection.sendall(request)
            if connection.recv(1) != TAKEN:
                return False
            connection.settimeout(None)
            connection.recv(1)  # nothing comes: it ends with the worker
        except OSError:
            return False
    return True


if __name__ == "__main__":
    if not ask(sys.argv[1], sys.argv[2:]):
        os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
