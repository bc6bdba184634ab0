"""When a caller may stop a request, as far as they say.

form or query fields ─► read_stops ─► StopTimes ─► elastic mode
"""

import math
from collections.abc import Mapping

import numpy as np

from xpi_ray.api.deadline import LONGEST_MS
from xpi_ray.elastic.stop_times import LEAST_SPAN_MS, StopTimes
from xpi_ray.errors import RequestError

FIELDS = ("stop_within_ms", "stops_ms")
MOST_STOPS = 1000
NEVER = "never"


def read_stops(fields: Mapping[str, str]) -> StopTimes | None:
    """The distribution that a request gives, or None.

    Args:
        fields: ``stop_within_ms``: any time up to this one is as likely as any other; or
            ``stops_ms``: times at which such requests were stopped, with commas between them,
            ``never`` for one that was not.

    Raises:
        RequestError: Both are there, or one holds what it should not.
    """
    within, stops = (fields.get(name) for name in FIELDS)
    if within is not None and stops is not None:
        raise RequestError("expected stop_within_ms or stops_ms, got both; leave one out")
    if within is not None:
        return StopTimes.uniform(_time_ms("stop_within_ms", within))
    if stops is not None:
        texts = stops.split(",", MOST_STOPS)
        if len(texts) > MOST_STOPS:
            raise RequestError(f"expected at most {MOST_STOPS} times in stops_ms, got more")
        times = [
            math.inf if text.strip() == NEVER else _time_ms("stops_ms", text) for text in texts
        ]
        return StopTimes.recorded(np.array(times))
    return None


def _time_ms(name: str, text: str) -> float:
    try:
        time_ms = float(text) if len(text) <= 32 else math.nan
    except ValueError:
        time_ms = math.nan
    if not LEAST_SPAN_MS <= time_ms <= LONGEST_MS:
        raise RequestError(
            f"{name} must be in milliseconds, at least {LEAST_SPAN_MS} and at most 24 hours, "
            f"got {text[:64]!r}"
        )
    return time_ms
