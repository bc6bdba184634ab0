"""Sends requests when they are due, whether or not earlier ones were answered.

    requests file, images ─► load_generator, on the edge's host ─► a record each, as JSON lines

Workload writes the file by a seed, ``Stage`` starts this program on the host and tells it when
to begin. It is an open loop: what is due is sent, on another connection if all are busy, and a
request's time counts from when it was due, however late the sender or the server was (no
coordinated omission). Answers are kept as they come and read when all is over.

The standard library alone: what the sender takes of the machine is missing to what it measures.
"""

import argparse
import asyncio
import gc
import json
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

HOST, PORT = "127.0.0.1", 8000
PATIENCE_S = 5.0  # beyond a request's deadline; what was not answered then never is
LEAD_S = 0.5  # before the first is due, to be woken in time
KEPT = (  # of an answer, what results are made of
    *("label", "exit", "tier", "status", "entropy", "partition", "level", "plan_version"),
    *("frame_bytes", "budget_left_ms", "stages"),
)
OUTCOMES = ("answered", "refused", "connection_error", "timeout")
"""200; another status; the connection failed or ended without an answer; none came."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Asked(NamedTuple):
    """One line of the requests file."""

    due_s: float
    """Since the beginning; they rise."""
    image: int
    """Number in the data set's test split, and name in the archive of images."""
    label: str
    """What is on it."""
    deadline_ms: float


class Came(NamedTuple):
    """What came of one request; times in seconds since the beginning."""

    outcome: str
    sent_s: float
    done_s: float
    status: int = 0
    body: bytes = b""


class LoadGenerator:
    """Sends one file of requests, once.

    Args:
        asked: The requests, those that are due first before others.
        images: PNG files by number.
        port: Of the server, on this host.
        patience_s: How long beyond its deadline an answer is waited for.
    """

    def __init__(
        self,
        asked: Sequence[Asked],
        images: dict[int, bytes],
        port: int = PORT,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._port, self._patience_s = port, patience_s
        self._asked = asked
        self._messages = [_message(each, images[each.image]) for each in asked]
        self._idle: list[Connection] = []
        self._begin_s = 0.0

    async def run(self, begin_s: float) -> list[Came]:
        """Send all, and wait until each has come to something.

        Args:
            begin_s: Of ``time.monotonic``, to which the requests' times are relative.

        Returns:
            In the order of the requests.
        """
        self._begin_s = begin_s
        tasks = []
        for number, asked in enumerate(self._asked):
            if (wait_s := asked.due_s - self._now_s()) > 0:
                await asyncio.sleep(wait_s)
            tasks.append(asyncio.create_task(self._ask(number)))
            # A burst must not hold up the answers to those before it.
            await asyncio.sleep(0)
        came = await asyncio.gather(*tasks)
        for _, writer in self._idle:
            writer.close()
        return came

    def _now_s(self) -> float:
        return time.monotonic() - self._begin_s

    async def _ask(self, number: int) -> Came:
        asked, sent_s = self._asked[number], self._now_s()
        left_s = asked.due_s - sent_s + asked.deadline_ms / 1000 + self._patience_s
        connection: Connection | None = None
        try:
            async with asyncio.timeout(left_s):
                connection = self._waiting() or await asyncio.open_connection(HOST, self._port)
                sent_s = self._now_s()
                connection[1].write(self._messages[number])
                status, body, goes_on = await _reply(connection[0])
        except TimeoutError:
            outcome = "timeout"
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            outcome = "connection_error"
        else:
            done_s = self._now_s()
            if goes_on:
                self._idle.append(connection)
            else:
                connection[1].close()
            return Came("answered" if status == 200 else "refused", sent_s, done_s, status, body)
        if connection:
            connection[1].close()
        return Came(outcome, sent_s, self._now_s())

    def _waiting(self) -> Connection | None:
        """A connection that nobody uses and the server has not closed."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return None


def _message(asked: Asked, image: bytes) -> bytes:
    head = (
        f"POST /v1/classify?deadline_ms={asked.deadline_ms:.3f} HTTP/1.1\r\n"
        f"Host: {HOST}\r\nContent-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
    )
    return head.encode() + image


async def _reply(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status and body, and whether the connection can take another request."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    status = int(lines[0].split(" ", 2)[1])
    if "content-length" not in fields:  # then the connection's end is the body's
        return status, await reader.read(), False
    body = await reader.readexactly(int(fields["content-length"]))
    return status, body, fields.get("connection", "").lower() != "close"


def record(number: int, asked: Asked, came: Came) -> dict[str, Any]:
    """All that is known of one request, ready for JSON."""
    answer = json.loads(came.body) if came.outcome == "answered" else {}
    return {
        "number": number,
        **asked._asdict(),
        "outcome": came.outcome,
        "http_status": came.status,
        "sent_s": round(came.sent_s, 6),
        "done_s": round(came.done_s, 6),
        "answer": {key: answer[key] for key in KEPT if key in answer},
    }


def punctuality(asked: Sequence[Asked], came: Sequence[Came]) -> dict[str, float]:
    """How late the sender itself was."""
    late_ms = sorted(1000 * (c.sent_s - a.due_s) for a, c in zip(asked, came, strict=True))
    if not late_ms:
        return {"late_max_ms": 0.0, "late_p99_ms": 0.0}
    p99_ms = late_ms[min(int(0.99 * len(late_ms)), len(late_ms) - 1)]
    return {"late_max_ms": round(late_ms[-1], 3), "late_p99_ms": round(p99_ms, 3)}


def read_requests(path: Path) -> list[Asked]:
    """The requests of a file: a JSON list each, a line each."""
    return [Asked(*json.loads(line)) for line in path.read_text().splitlines()]


def read_images(path: Path, numbers: set[int]) -> dict[int, bytes]:
    """Some PNG files of an archive, by number."""
    with zipfile.ZipFile(path) as archive:
        return {number: archive.read(f"{number}.png") for number in numbers}


def main() -> None:
    """Say ``ready``, read when to begin, send all, write records, and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("requests", type=Path)
    parser.add_argument("images", type=Path, help="archive of PNG files, by number")
    parser.add_argument("records", type=Path, help="to be written, a JSON object a line")
    parser.add_argument("--port", type=int, default=PORT)
    options = parser.parse_args()
    asked = read_requests(options.requests)
    images = read_images(options.images, {each.image for each in asked})
    generator = LoadGenerator(asked, images, options.port)
    print("ready", flush=True)
    begin_s = float(sys.stdin.readline())
    gc.collect()
    gc.disable()  # a pause of its own would count as the server's
    time.sleep(max(begin_s - LEAD_S - time.monotonic(), 0.0))
    woken_s, used_s = time.monotonic(), time.process_time()
    came = asyncio.run(generator.run(begin_s))
    used_s = time.process_time() - used_s
    cores = used_s / (time.monotonic() - woken_s)
    pairs = enumerate(zip(asked, came, strict=True))
    lines = [json.dumps(record(number, *pair)) + "\n" for number, pair in pairs]
    options.records.write_text("".join(lines))
    print(json.dumps({"cores": round(cores, 4), **punctuality(asked, came)}), flush=True)


if __name__ == "__main__":
    main()
