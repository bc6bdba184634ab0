"""What every choice of SAC-d costs and is worth, measured: the paper's offline stage.

    AlexNet ─► measuring ─► Costs ─► file ─► reward ─► environment

An action is an exit, a partition point and bits. The paper contradicts itself on the bits: {8, 12,
16} in equation 6, {4, 8, 12} in its experiments (section IV-A1), 12 and 16 in its results. Ours are
those of the experiments: 8 bits already lose nothing, so only with 4 is there anything to weigh.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rl.sacd.alexnet import EXITS, LAYERS
from xpi_ray.errors import DataError

BITS = (4, 8, 12)
PARTITIONS = LAYERS[-1] + 1

Floats = NDArray[np.float64]


class Action(NamedTuple):
    """A choice; the device runs the first ``partition`` layers on the way to ``exit``."""

    exit: int
    partition: int
    """0 sends the image; from the exit's number of layers on nothing crosses the link."""
    bits: int


ACTIONS = tuple(Action(e, p, b) for e in EXITS for p in range(PARTITIONS) for b in BITS)
"""All 189, as agents number them."""


class Cost(NamedTuple):
    """What was measured of one choice. Times are the server's, for one image."""

    exit: int
    partition: int
    bits: int
    """0 where nothing crosses."""
    before_ms: float
    """Of the layers up to the partition."""
    after_ms: float
    encode_ms: float
    decode_ms: float
    exact_bytes: float
    """As float32."""
    payload_bytes: float
    """Mean over validation images, quantised and Huffman-coded."""
    accuracy: float
    """On validation, of the values as they arrive."""


@dataclass(frozen=True)
class Costs:
    """The table, each column by action (189,).

    Raises:
        DataError: A choice is missing, or a figure is no finite number that is 0 or more.
    """

    rows: tuple[Cost, ...]

    def __post_init__(self) -> None:
        """Check and look up each action's row."""
        known = {row[:3]: row for row in self.rows}
        found = []
        for action in ACTIONS:
            key = of_distinct(action)
            if key not in known:
                raise DataError(f"costs of exit, partition, bits {tuple(key)} are missing")
            if not all(math.isfinite(figure) and figure >= 0 for figure in known[key]):
                raise DataError(f"expected finite figures, 0 or more, got {known[key]}")
            found.append(known[key])
        object.__setattr__(self, "_columns", np.array(found, np.float64))

    def column(self, name: str) -> Floats:
        """One figure of all actions, (189,), by its name in ``Cost``."""
        columns: Floats = self.__dict__["_columns"]
        return columns[:, Cost._fields.index(name)]

    def save(self, path: Path, settings: Mapping[str, object]) -> None:
        """Write as JSON, in the form of a benchmark's result."""
        rows = [row._asdict() for row in self.rows]
        path.write_text(json.dumps({"settings": dict(settings), "rows": rows}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Costs":
        """Read what ``save`` wrote.

        Raises:
            DataError: The file is missing, damaged or incomplete.
        """
        if not path.is_file():
            raise DataError(f"{path} is missing; measure the costs with `xpi train-sacd`")
        try:
            return cls(tuple(_rows(json.loads(path.read_text())["rows"])))
        except (ValueError, KeyError, TypeError) as err:
            raise DataError(f"{path} holds no costs ({err!r}); measure them anew") from err


def of_distinct(action: Action) -> Action:
    """The action by which its costs are listed: bits 0 where the device runs all layers."""
    layers = LAYERS[action.exit - 1]
    return action if action.partition < layers else Action(action.exit, layers, 0)


def _rows(rows: Iterable[Mapping[str, float]]) -> Iterable[Cost]:
    for row in rows:
        exit_, partition, bits = (int(row[key]) for key in Cost._fields[:3])
        yield Cost(exit_, partition, bits, *(float(row[key]) for key in Cost._fields[3:]))
