import json
import pickle
from dataclasses import FrozenInstanceError, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.telemetry.records import RecordBuffer, RequestRecord


def make_record(number: int = 0) -> RequestRecord:
    """Return a record whose request id is its number."""
    values = {
        field.name: {"str": "x", "int": 1, "float": 0.5}[field.type.__name__]
        for field in fields(RequestRecord)
    }
    return RequestRecord(**{**values, "request_id": str(number)})


def test_a_record_is_plain_data():
    """A record survives JSON and pickling, and every field keeps its name."""
    record = make_record()
    assert RequestRecord(**json.loads(json.dumps(record.to_dict()))) == record
    assert pickle.loads(pickle.dumps(record)) == record


def test_a_record_does_not_change():
    """A record's fields cannot be assigned."""
    with pytest.raises(FrozenInstanceError):
        make_record().exit = 2


def test_times_and_sizes_carry_their_unit():
    """Every field that is a float says its unit, save those that have none."""
    floats = {field.name for field in fields(RequestRecord) if field.type is float}
    assert {name for name in floats if not name.endswith(("_ms", "_bps"))} == {
        "entropy",
        "link_spread",
    }


@given(
    st.integers(1, 8),
    st.lists(st.one_of(st.just("add"), st.just("drain")), max_size=60),
)
def test_a_buffer_keeps_the_latest_and_counts_the_rest(capacity, steps):
    """What is drained and what was dropped is all that was added; what is kept is the latest."""
    buffer = RecordBuffer(capacity)
    kept: list[int] = []
    added = drained = 0
    for step in [*steps, "drain"]:
        if step == "add":
            buffer.add(make_record(added))
            kept = [*kept, added][-capacity:]
            added += 1
        else:
            got = [int(record.request_id) for record in buffer.drain()]
            assert got == kept
            drained, kept = drained + len(got), []
    assert drained + buffer.dropped == added
