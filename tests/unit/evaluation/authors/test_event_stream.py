"""Server-sent events: the same events however the bytes are split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.authors.chunks import MAX_EVENT_BYTES, EventStream, UnreadableStream


def read(pieces: list[bytes]) -> list[str]:
    stream = EventStream()
    return [event for piece in pieces for event in stream.feed(piece)] + stream.close()


LINE = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(LINE, max_size=6), st.sampled_from(["\n", "\r\n"]), st.data())
def test_the_events_do_not_depend_on_how_the_bytes_are_cut(events, newline, data):
    whole = "".join(f"data: {event}{newline}{newline}" for event in events).encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=12)))
    edges = [0, *cuts, len(whole)]
    assert read([whole[a:b] for a, b in itertools.pairwise(edges)]) == events


def test_an_event_of_several_lines_is_one_text():
    assert read([b"data: one\ndata: two\n\n"]) == ["one\ntwo"]


def test_comments_and_other_fields_are_left_out():
    assert read([b": keep-alive\n\nevent: delta\nid: 7\ndata:x\n\n"]) == ["x"]


def test_the_last_event_counts_without_its_empty_line():
    assert read([b"data: a\n\ndata: b"]) == ["a", "b"]


def test_an_event_without_end_is_refused_before_it_fills_the_memory():
    stream = EventStream()
    for _ in range(MAX_EVENT_BYTES // 2**16):
        stream.feed(b"x" * 2**16)
    with pytest.raises(UnreadableStream, match="over"):
        stream.feed(b"x")


def test_bytes_that_are_no_utf8_are_refused():
    with pytest.raises(UnreadableStream, match="UTF-8"):
        EventStream().feed(b"data: \xff\n\n")


def test_a_line_in_many_pieces_is_one_event():
    assert read([b"data: ", *[b"x"] * 1000, b"\r", b"\n", b"\n"]) == ["x" * 1000]
