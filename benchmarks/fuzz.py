"""Can bytes from outside crash, hang or bloat what reads them?

    python -m benchmarks.fuzz [--minutes 10]

A coverage-guided fuzzer (Atheris, which drives libFuzzer) feeds frames, segments, payloads and
image files to their readers, whose own errors are what is expected; anything else is a crash.
Checksums would stop it at once, so segments also go to their codecs directly. Seeds are true frames
of the default bundle. Needs the extra ``fuzz``.

Writes ``benchmarks/results/fuzz.json``: by target, inputs tried, crashes, the longest time of one
input and the most memory that Python objects and arrays took during one.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.result import Rows, write
from xpi_ray.bundle import Bundle
from xpi_ray.compression.coders import HuffmanCoder, Lz4Coder, LzwCoder
from xpi_ray.compression.image import decode_image, encode_image
from xpi_ray.errors import XpiError
from xpi_ray.link.frame import MAX_FRAME_BYTES, Frame, pack, unpack
from xpi_ray.training.packing import carries

LONGEST_INPUT_BYTES = 4_096
SPLIT = b"\xff\xfe\xfd"  # between segments, for the target that has no frame around them
REPORT_EVERY = 500  # inputs
SHAPE, ALPHABET = (16, 8, 8), 11


def targets(bundle: Bundle) -> dict[str, Callable[[bytes], object]]:
    """What reads bytes, by name."""
    ladder, blocks = bundle.ladder, bundle.network.num_blocks

    def segments(data: bytes) -> object:
        level, partition = divmod(data[0] if data else 0, blocks - 1)
        return ladder.decode(data[1:].split(SPLIT), 1 + partition, level % ladder.levels)

    def frame(data: bytes) -> object:
        found = unpack(data)
        if not 0 < found.partition < blocks or found.level >= ladder.levels:
            return None
        return ladder.decode(found.segments, found.partition, found.level)

    def coder(each: Lz4Coder | LzwCoder | HuffmanCoder) -> Callable[[bytes], object]:
        return lambda data: each.decode(data, SHAPE, ALPHABET)

    return {
        "frame": frame,
        "segments": segments,
        "image": lambda data: decode_image(data, (32, 32)),
        "lz4": coder(Lz4Coder()),
        "lzw": coder(LzwCoder()),
        "huffman": coder(HuffmanCoder()),
    }


def seeds(bundle: Bundle, name: str) -> list[bytes]:
    """True inputs of a target."""
    noise = torch.randint(0, 256, (1, 3, *bundle.network.image_size), dtype=torch.uint8)
    if name == "image":
        return [encode_image(noise[0].numpy())]
    if name in ("lz4", "lzw", "huffman"):
        coders = {"lz4": Lz4Coder(), "lzw": LzwCoder(), "huffman": HuffmanCoder()}
        symbols = np.random.default_rng(0).integers(0, ALPHABET, SHAPE).astype(np.uint8)
        return [coders[name].encode(symbols, ALPHABET)]
    found = []
    network = bundle.network.prepare()
    for partition, carry in carries(network, noise).items():
        logits = np.zeros(network.num_classes, np.float32)
        for level in range(3, bundle.ladder.levels):
            coded = bundle.ladder.encode(carry[0], partition, level)
            if name == "frame":
                found.append(pack(Frame(bundle.digest, partition, level, logits, tuple(coded))))
            else:
                which = level * (network.num_blocks - 1) + partition - 1
                found.append(bytes([which]) + SPLIT.join(coded))
    return found


def fuzz(name: str, seconds: float, report: Path, corpus: Path) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris  # noqa: PLC0415 (optional, and it must see this process only)

    bundle = Bundle.load()
    for number, seed in enumerate(seeds(bundle, name)):
        (corpus / str(number)).write_bytes(seed)
    read = targets(bundle)[name]
    atheris.instrument_func(read)
    state = {"inputs": 0, "longest_ms": 0.0, "most_bytes": 0}
    tracemalloc.start()

    def once(data: bytes) -> None:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        started = time.perf_counter()
        with contextlib.suppress(XpiError):
            read(data)
        state["longest_ms"] = max(state["longest_ms"], (time.perf_counter() - started) * 1000)
        state["most_bytes"] = max(state["most_bytes"], tracemalloc.get_traced_memory()[1] - before)
        state["inputs"] += 1
        if state["inputs"] % REPORT_EVERY == 0:
            report.write_text(json.dumps(state))

    options = [f"-max_total_time={seconds:.0f}", f"-max_len={LONGEST_INPUT_BYTES}"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={corpus}/", str(corpus)], once)
    atheris.Fuzz()


def main() -> None:
    """Fuzz each target in a process of its own, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = list(targets(Bundle.load()))
    seconds = 60 * arguments.minutes / len(names)
    if arguments.target:
        fuzz(arguments.target, 60 * arguments.minutes, arguments.report, arguments.corpus)
        return
    rows: Rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            report, corpus = Path(folder) / "report.json", Path(folder) / "corpus"
            corpus.mkdir()
            command = [sys.executable, "-m", "benchmarks.fuzz", "--target", name]
            command += ["--minutes", str(seconds / 60)]
            command += ["--report", str(report), "--corpus", str(corpus)]
            ended = subprocess.run(command, check=False, capture_output=True, text=True)
            state = json.loads(report.read_text())
            crashes = [path.name for path in corpus.glob("crash-*")]
            if ended.returncode:
                print(ended.stderr[-4_000:], file=sys.stderr)
        row = {"target": name, "seconds": round(seconds), **state, "crashes": len(crashes)}
        row["longest_ms"] = round(state["longest_ms"], 1)
        rows.append(row)
        print(row)
    print(write("fuzz", {"limit_bytes": MAX_FRAME_BYTES, "longest": LONGEST_INPUT_BYTES}, rows))


if __name__ == "__main__":
    main()
