import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.relay import Wire

FRAMES = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), max_size=30)


def never():
    """A chance that loses nothing."""
    return 0.5


@given(FRAMES, st.floats(0, 2))
def test_frames_arrive_in_order_after_the_delay(frames, delay_s):
    """None before its time, none after it, none changed."""
    wire = Wire(delay_s, 0.0, never)
    frames = sorted(frames, key=lambda pair: pair[0])
    for now_s, frame in frames:
        wire.put(now_s, frame)
    arrived = []
    while wire.next_s < float("inf"):
        now_s = wire.next_s
        arrived += [(now_s, frame) for frame in wire.due(now_s)]
    assert arrived == [(now_s + delay_s, frame) for now_s, frame in frames]
    assert list(wire.due(1e9)) == []


def test_nothing_is_handed_out_early():
    """A frame that is under way is not there yet."""
    wire = Wire(0.02, 0.0, never)
    wire.put(1.0, b"frame")
    assert list(wire.due(1.0199)) == []
    assert wire.next_s == pytest.approx(1.02)
    assert list(wire.due(wire.next_s)) == [b"frame"]


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.5])
def test_the_share_that_is_lost_is_the_one_asked_for(loss):
    """Among 20,000 frames, within four standard deviations; the same seed loses the same ones."""
    kept = []
    for _ in range(2):
        wire = Wire(0.0, loss, random.Random(7).random)
        for number in range(20_000):
            wire.put(0.0, number.to_bytes(4))
        kept.append(list(wire.due(0.0)))
    assert kept[0] == kept[1]
    deviation = 4 * (20_000 * loss * (1 - loss)) ** 0.5
    assert 20_000 - len(kept[0]) == pytest.approx(20_000 * loss, abs=deviation)


def test_what_is_under_way_is_bounded():
    """Frames beyond the limit are lost, and there is room again once some have arrived."""
    wire = Wire(1.0, 0.0, never, limit_bytes=10)
    for now_s, frame in enumerate([b"1234", b"5678", b"9abc", b"de"]):
        wire.put(now_s / 10, frame)
    assert list(wire.due(1.05)) == [b"1234"]
    wire.put(1.1, b"fghi")
    assert list(wire.due(9.0)) == [b"5678", b"de", b"fghi"]
