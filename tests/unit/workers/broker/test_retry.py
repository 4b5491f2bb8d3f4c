"""Transient errors of Redis are retried, others are raised."""

from __future__ import annotations

import logging

import pytest
from redis import exceptions

from workers.broker import retry
from workers.broker.retry import is_transient, retry_redis

TRANSIENT = [
    exceptions.ConnectionError("Connection refused"),
    exceptions.TimeoutError("Timeout reading from socket"),
    exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
    exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    exceptions.ReadOnlyError("You can't write against a read only replica."),
    exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
    exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
    exceptions.ResponseError("Command # 1 (HSET k f v) of pipeline caused error: NOREPLICAS Not enough"),
    OSError("Network is unreachable"),
]
PERMANENT = [
    exceptions.AuthenticationError("invalid username-password pair or user is disabled."),
    exceptions.NoPermissionError("this user has no permissions to run the 'eval' command"),
    exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    exceptions.ResponseError("unknown command 'BUSY LOADING'"),
    exceptions.DataError("Invalid input"),
    ZeroDivisionError("a bug"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=str)
def test_a_transient_error_is_retried_and_logged_once(error, caplog):
    answers = iter([error, error, "served"])

    @retry_redis
    def command() -> str:
        if isinstance(answer := next(answers), Exception):
            raise answer
        return answer

    command.retry.sleep = lambda _s: None
    with caplog.at_level(logging.WARNING, retry.__name__):
        assert command() == "served"
    assert is_transient(error)
    assert [record.getMessage() for record in caplog.records] == [f"waiting for Redis: {error}"]


@pytest.mark.parametrize("error", PERMANENT, ids=str)
def test_a_permanent_error_is_raised_at_once(error):
    @retry_redis
    def command() -> None:
        raise error

    assert not is_transient(error)
    with pytest.raises(type(error)):
        command()
