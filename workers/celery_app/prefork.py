"""Private names of Celery's prefork pool and of billiard that are used here, and why.

Written for Celery 5.6.3 and billiard 4.3.2. When the connection to Redis is lost, Celery drops the time
limits of running jobs (their timers go with all others) and forgets which processes are busy (the next job
would be sent to a busy one and wait there). No public call restores either.
`tests/integration/test_reconnect.py` shows when this can go.
"""

from __future__ import annotations

import time
from typing import Any


def restore_pool_state(task_pool: Any) -> None:
    """Restore the time limits of running jobs, and which processes of Celery's `TaskPool` are busy."""
    pool = task_pool._pool
    pipes = {process.pid: process.inqW_fd for process in pool._pool}
    for running in tuple(pool._cache.values()):
        if not running._accepted:
            continue
        if running._timeout:
            ran_s = time.monotonic() - running._time_accepted
            pool.on_timeout_set(running, None, max(0.01, running._timeout - ran_s))
        if running._worker_pid in pipes:
            pool._busy_workers.add(pipes[running._worker_pid])
