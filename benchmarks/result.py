"""The file that a benchmark leaves: its rows, and all that one needs to judge or repeat them.

rows ─► write ─► benchmarks/results/<name>.json ─► benchmarks.tables ─► README
"""

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "results"

Row = Mapping[str, object]
"""As a benchmark makes it."""
Rows = list[dict[str, float | int | str]]
"""As a file holds them."""


def write(name: str, settings: Mapping[str, object], rows: Sequence[Row], seed: int = 0) -> Path:
    """Write one result and return its path."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    result = {
        "name": name,
        "commit": commit.stdout.strip() or None,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {_processor()}, torch {torch.__version__}",
        "seed": seed,
        "settings": dict(settings),
        "rows": [dict(row) for row in rows],
    }
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
