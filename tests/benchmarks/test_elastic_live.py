import asyncio
import os
import time

from benchmarks.elastic_live import Held, ask, process, row

EVENT = b'event: exit\r\ndata: {"exit": %d, "elapsed_ms": 1.0}\r\n\r\n'
END = b'event: end\r\ndata: {"status": "complete", "blocks": 4, "elapsed_ms": 2.0}\r\n\r\n'
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


async def asked(events, stop_ms):
    """What `ask` has of a server that sends these events and then nothing more."""
    gone, seen = asyncio.Event(), b""

    async def serve(reader, writer):
        nonlocal seen
        seen = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(events))
        with_end = await reader.read()
        del with_end
        writer.close()
        gone.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        held = await ask(port, TRACE_ID, b"", stop_ms)
        await asyncio.wait_for(gone.wait(), 10)
    assert TRACE_ID.encode() in seen
    return held


async def test_a_client_hangs_up_with_what_came():
    """At its time the client closes the connection and holds the last exit that came."""
    before_ns = time.time_ns()
    held = await asked([EVENT % 1, EVENT % 3], 200)
    assert (held.exit, held.ended) == (3, False)
    assert held.closed_ns - before_ns > 0.15e9


async def test_a_stream_may_end_before_the_client_hangs_up():
    """The end is known as such."""
    held = await asked([EVENT % 1, END], 60_000)
    assert (held.exit, held.ended) == (1, True)


def test_a_row_says_how_late_the_edge_was():
    """Lateness is from hanging up until the edge's span ended; without a span there is none."""
    span = {"end_ns": 5_000_000, "attributes": {"xpi.exit": 2, "xpi.blocks": 3}}
    found = row(Held(1, False, 2_000_000, 1.0), span)
    assert (found["late_ms"], found["ran"], found["blocks"], found["reached"]) == (3, 2, 3, True)
    assert not row(Held(0, False, 2_000_000, 0.0), {})["reached"]


def test_a_process_has_memory_threads_and_files():
    """Figures are those of the process itself."""
    before = process(os.getpid())
    with open(os.devnull):
        assert process(os.getpid())["files"] == before["files"] + 1
    assert before["memory_kib"] > 1_000
    assert before["threads"] >= 1
