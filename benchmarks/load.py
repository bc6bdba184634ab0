"""A client that costs little: keep-alive connections in one event loop, each asking in turn.

requests ─► connections ─► latencies (ms), answers
"""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Load(NamedTuple):
    """What one closed loop measured."""

    latencies_ms: NDArray[np.float64]
    requests_per_s: float
    failures: int
    """Answers other than 200, and connections that ended without one."""


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """An HTTP/1.1 request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def closed_loop(
    port: int, requests: Sequence[bytes], concurrency: int, seconds: float
) -> Load:
    """Keep ``concurrency`` requests in flight for ``seconds``; 127.0.0.1 only."""
    stop = time.perf_counter() + seconds
    started = time.perf_counter()
    runs = await asyncio.gather(
        *(_connection(port, requests, offset, stop) for offset in range(concurrency))
    )
    taken_s = time.perf_counter() - started
    latencies_ms = np.concatenate([np.array(run[0]) for run in runs])
    return Load(latencies_ms, len(latencies_ms) / taken_s, sum(run[1] for run in runs))


async def _connection(
    port: int, requests: Sequence[bytes], offset: int, stop: float
) -> tuple[list[float], int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    latencies_ms, failures, turn = [], 0, offset
    while time.perf_counter() < stop:
        started = time.perf_counter()
        try:
            writer.write(requests[turn % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_content_length(head))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            failures += 1
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        latencies_ms.append((time.perf_counter() - started) * 1000)
        failures += b" 200 " not in head[:16]
        turn += 1
    writer.close()
    await writer.wait_closed()
    return latencies_ms, failures


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise ValueError(f"an answer without a length: {head!r}")
