"""One form of a Redis URL, which redis-py, kombu and Celery's result backend read alike."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.url import parse_url as kombu_reads
from pydantic import ValidationError
from redis.connection import parse_url as redis_reads

from workers.errors import ConfigError
from workers.redis_url import canonical
from workers.settings import REDIS_ENV, QueueSettings


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("redis://", "redis://127.0.0.1:6379/0"),
        ("redis:///2", "redis://127.0.0.1:6379/2"),
        ("redis://h:6380/", "redis://h:6380/0"),
        ("redis://h:6380/7/", "redis://h:6380/7"),
        ("redis://h:6379?db=3", "redis://h:6379/3"),
        ("redis://h:6379/3?db=3", "redis://h:6379/3"),
        (" redis://h:6379/0\n", "redis://h:6379/0"),
        ("REDIS://H:6379/0", "redis://h:6379/0"),
        ("redis://[::1]/1", "redis://[::1]:6379/1"),
        ("redis://:p%40s%2Fs@h", "redis://:p%40s%2Fs@h:6379/0"),
        ("redis://:a+b;c@h", "redis://:a%2Bb%3Bc@h:6379/0"),
        ("redis://me@h", "redis://me@h:6379/0"),
        ("rediss://h", "rediss://h:6379/0?ssl_cert_reqs=required"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", "rediss://h:6379/0?ssl_cert_reqs=none"),
        (
            "rediss://h?db=2&ssl_ca_certs=/a.pem",
            "rediss://h:6379/2?ssl_ca_certs=/a.pem&ssl_cert_reqs=required",
        ),
        (
            "rediss://h?ssl_check_hostname=0",
            "rediss://h:6379/0?ssl_check_hostname=false&ssl_cert_reqs=required",
        ),
    ],
)
def test_a_url_is_written_in_canonical_form(given: str, meant: str) -> None:
    assert canonical(given) == meant
    assert canonical(meant) == meant


def test_a_certificate_is_found_from_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert "ssl_ca_certs=/home/someone/ca.pem&" in canonical("rediss://h?ssl_ca_certs=~/ca.pem")


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("unix:///run/redis.sock", "write redis://127.0.0.1:6379/0"),
        ("redis+socket:///run/redis.sock", "write redis://127.0.0.1:6379/0"),
        ("socket:///run/redis.sock", "write redis://127.0.0.1:6379/0"),
        ("sentinel://h:26379/0", "write the address of the primary"),
        ("redis+cluster://h:6379/0", "single server"),
        ("redis://a:1,b:2/0", "write the address of the primary"),
        ("redis://a;redis://b", "write the address of the primary"),
        ("h:6379", "write redis://"),
        ("localhost", "write redis://"),
        ("http://h:6379/0", "write redis://"),
        ("redis:/h", "write redis://"),
        ("redis://h:port/0", "write redis://"),
        ("redis://h:99999/0", "write redis://"),
        ("redis://h/main", "as in redis://host/3"),
        ("redis://h/-1", "as in redis://host/3"),
        ("redis://h/0/1", "as in redis://host/3"),
        ("redis://h?db=x", "as in redis://host/3"),
        ("redis://h/1?db=2", "write one"),
        ("redis://h/0#1", "percent-encoded"),
        ("redis://:se/cret@h/0", "percent-encode"),
        ("redis://:se?cret@h/0", "percent-encode"),
        ("redis://:se#cret@h/0", "percent-encode"),
        ("redis://:se[cret@h/0", "percent-encode"),
        ("redis://h?ssl_cert_reqs=none", "write rediss://"),
        ("redis://h?socket_timeout=5", "leave it out"),
        ("redis://h?virtual_host=3", "leave it out"),
        ("rediss://h?ssl_cert_reqs=maybe", "required, optional or none"),
    ],
)
def test_any_other_url_is_refused_with_the_form_to_write(
    url: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError, match="redis_url"):
        QueueSettings(redis_url=url)
    monkeypatch.setenv(REDIS_ENV, url)
    with pytest.raises(ConfigError) as caught:
        _ = QueueSettings().url
    said = str(caught.value)
    assert said.startswith(f"queue.redis_url (or {REDIS_ENV}): ")
    assert hint in said
    assert "cret" not in said


hosts = st.from_regex(r"[a-z][a-z0-9-]{0,9}(\.[a-z]{2,3})?|\[::1\]|10\.0\.0\.[1-9]", fullmatch=True)


@given(hosts, st.integers(1, 65_535), st.integers(0, 99), st.text(max_size=8), st.text(max_size=8))
def test_all_clients_read_the_canonical_form_alike(
    host: str, port: int, database: int, user: str, password: str
) -> None:
    name = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
    url = canonical(f"redis://{name}{host}:{port}?db={database}")
    one, other = redis_reads(url), kombu_reads(url)
    assert (one["host"], one["port"], one["db"]) == (host.strip("[]"), port, database)
    assert (other["hostname"], other["port"], int(other["virtual_host"])) == (
        host.strip("[]"),
        port,
        database,
    )
    assert (one.get("username"), one.get("password")) == (other["userid"], other["password"])
    if password:
        assert one["password"] == password
