"""A client that costs little: keep-alive connections in one event loop.

requests ─► connections that each ask in turn ─► latencies (ms)
requests, times ─► each sent at its time ─► answers
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


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


class Reply(NamedTuple):
    """One answer in an open loop."""

    sent_s: float
    """Since the loop began."""
    latency_ms: float
    status: int
    body: bytes


async def open_loop(port: int, requests: Sequence[bytes], times_s: Sequence[float]) -> list[Reply]:
    """Send each request at its time, whether or not others were answered; 127.0.0.1 only.

    Args:
        port: Where to.
        requests: As many as times.
        times_s: Since the beginning, rising.

    Returns:
        The answers in the order of the requests.

    Raises:
        ConnectionError: A new connection ended without an answer.
    """
    idle: list[Stream] = []
    started = time.perf_counter()

    async def ask(request: bytes) -> Reply:
        sent = time.perf_counter()
        while idle:  # the server may have closed one that was idle for long
            stream = idle.pop()
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                return await send(request, stream, sent)
            stream[1].close()
        return await send(request, await asyncio.open_connection("127.0.0.1", port), sent)

    async def send(request: bytes, stream: Stream, sent: float) -> Reply:
        stream[1].write(request)
        head = await stream[0].readuntil(b"\r\n\r\n")
        body = await stream[0].readexactly(_content_length(head))
        latency_ms = (time.perf_counter() - sent) * 1000
        idle.append(stream)
        return Reply(sent - started, latency_ms, int(head.split(b" ", 2)[1]), body)

    tasks = []
    for request, time_s in zip(requests, times_s, strict=True):
        await asyncio.sleep(started + time_s - time.perf_counter())
        tasks.append(asyncio.create_task(ask(request)))
    try:
        return list(await asyncio.gather(*tasks))
    except asyncio.IncompleteReadError as err:
        raise ConnectionError("the server closed a connection without an answer") from err
    finally:
        for _, writer in idle:
            writer.close()


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
