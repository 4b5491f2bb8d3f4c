"""Celery's command line for the application in `MODULE`.

Usage: `python -P -m workers.process.program MODULE ARGUMENTS…`

`celery -A MODULE` puts the working directory on the path while it imports the application and its tasks: a
folder `verl/` or a file `redis.py` there would be imported instead of the library. Here both are imported
before Celery's command line starts.
"""

from __future__ import annotations

import importlib
import sys

from workers.process import interpreter


def main(module: str, arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    interpreter.set_up_process()
    app = importlib.import_module(module).app
    if "worker" in arguments:
        for tasks in app.conf.imports:
            importlib.import_module(tasks)
    return app.start(arguments) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
