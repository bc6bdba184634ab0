"""Runs of a comparison, each once: what is there already is read, not run again.

    systems × traces × seeds × loads ─► Campaign.run ─ Rig, if it must ─► Run ─► rows of results

Raw records stay in ``runs/<name>/<dataset>/…``, a folder for each run; one that was broken off is
run anew. What an edge is like was measured once for all runs of a data set, and loads are multiples
of what it holds with the full network.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

from rich.console import Console

from benchmarks import rig
from benchmarks.edge_facts import EdgeFacts, measure
from benchmarks.replies import Replies
from benchmarks.rig import RECORDS, Rig
from benchmarks.systems import DATASETS, System
from benchmarks.workload import DEADLINES_MS, POOL, Sources, Workload, make, sources

FACTS = "run.json"
SHOWN = ("requests", "deadline_satisfaction", "accuracy", "p50_ms", "mean_exit")
FOLDER = Path("runs") / "figure4"
TRACES = ("ATT-LTE-driving.up", "TMobile-LTE-short.up", "5g_trace_60_walking")
"""None of them was trained with."""
SEEDS = (0, 1, 2)
WARM_UP_S, DURATION_S = 10.0, 30.0


class Run(NamedTuple):
    """What came of one system and one workload."""

    facts: dict[str, Any]
    counted: Replies
    """Without the warm-up."""
    every: Replies

    def row(self) -> dict[str, Any]:
        """Who ran what, and the figures of what counts."""
        facts, figures = self.facts, self.counted.facts()
        requests = max(self.counted.due_s.size, 1)
        return {
            **{key: facts[key] for key in ("system", "dataset", "trace", "seed", "load")},
            **figures,
            "edge_cores": facts["edge_cores"],
            "edge_cpu_ms": round(facts["edge_used_ms"] / requests, 3),
            "up_bytes": round(facts["up_bytes"] / requests, 1),
            "rate_rps": facts["rate_rps"],
            "trace_bps": facts["trace_bps"],
            "arrivals": facts["arrivals"],
            "late_p99_ms": facts["sender"]["late_p99_ms"],
            "late_max_ms": facts["sender"]["late_max_ms"],
            "sender_cores": facts["sender"]["cores"],
        }


class Asking(NamedTuple):
    """A workload before it is drawn."""

    trace: str
    seed: int
    load: float
    """Multiple of what the edge holds with the full network."""

    @property
    def name(self) -> str:
        """Of its runs' folders."""
        return f"{self.trace}-seed{self.seed}-load{self.load:g}"


class Campaign:
    """Use it as a context; the testbed comes up when the first run needs it.

    Args:
        folder: Where runs are kept.
        warm_up_s: Of each run, before requests count.
        duration_s: Of what counts.
        drawn_from: Links and arrivals; the shared ones if left out.
    """

    def __init__(
        self,
        folder: Path = FOLDER,
        warm_up_s: float = WARM_UP_S,
        duration_s: float = DURATION_S,
        drawn_from: Sources | None = None,
    ) -> None:
        self.folder, self.warm_up_s, self.duration_s = folder, warm_up_s, duration_s
        self._sources = drawn_from or sources()
        self._stack = ExitStack()
        self._rig: Rig | None = None
        self._console = Console(stderr=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def edge(self, dataset: str) -> EdgeFacts:
        """What the edge is like for a data set; measured if it is not known yet."""
        path = self.folder / dataset / "edge.json"
        if not path.exists():
            self._console.log(f"measuring the edge for {dataset}")
            found = measure(self._ready(), dataset)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found._asdict(), indent=1) + "\n")
            self._console.log(str(found))
        return EdgeFacts(**json.loads(path.read_text()))

    def workload(self, dataset: str, asking: Asking) -> Workload:
        """Draw what is asked; the same for all systems."""
        rate_rps = asking.load * self.edge(dataset).holds_rps
        return make(
            self._sources,
            dataset,
            asking.trace,
            asking.seed,
            rate_rps,
            self.warm_up_s,
            self.duration_s,
        )

    def run(self, system: System, asking: Asking, cuts_s: Sequence[float] = ()) -> Run:
        """Run a workload on a system, unless that was done.

        Args:
            system: Its bundle must be there.
            asking: What is asked.
            cuts_s: When the cable is pulled, seconds since the run began.
        """
        folder = self.folder / system.dataset / system.name / asking.name
        if not (folder / FACTS).exists():
            self._make(system, asking, cuts_s, folder)
        return read(folder)

    def _make(self, system: System, asking: Asking, cuts_s: Sequence[float], folder: Path) -> None:
        """Run it, the facts written last."""
        work = self.workload(system.dataset, asking)
        begun_s = time.monotonic()
        edge = self.edge(system.dataset)
        rig = self._ready()
        rig.deploy(system, edge.as_told(), edge.cores)
        cores = edge.cores_now(rig.gauge_ms(system.dataset, edge.cores))
        rig.weaken(cores)
        facts = rig.run(work, folder, cuts_s)
        taken_s = round(time.monotonic() - begun_s, 1)
        facts |= {"load": asking.load, "edge_cores": cores, "took_s": taken_s}
        (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
        figures = read(folder).counted.facts()
        told = ", ".join(f"{key} {figures[key]}" for key in SHOWN)
        self._console.log(f"{system.dataset} {system.name} {asking.name}: {told}")

    def all(
        self,
        systems: Sequence[System],
        askings: Sequence[Sequence[Asking]],
        cuts_s: Sequence[float] = (),
    ) -> Iterator[tuple[System, Asking, Run]]:
        """Run every system with every workload.

        Args:
            systems: Of one data set.
            askings: In groups; each system is deployed once for a group, and they take turns in
                who comes first.
            cuts_s: When the cable is pulled in each run.
        """
        for number, group in enumerate(askings):
            turn = number % max(len(systems), 1)
            for system in (*systems[turn:], *systems[:turn]):
                for asking in group:
                    yield system, asking, self.run(system, asking, cuts_s)

    def settings(self, datasets: Iterable[str]) -> dict[str, object]:
        """How all was run, for the results."""
        return {
            "warm_up_s": self.warm_up_s,
            "duration_s": self.duration_s,
            "deadlines_ms": DEADLINES_MS,
            "one_way_ms": rig.ONE_WAY_MS,
            "edge_replicas": rig.EDGE_REPLICAS,
            "limited": "executor",
            "test_images": POOL,
            "edge": {dataset: self.edge(dataset)._asdict() for dataset in datasets},
        }

    def _ready(self) -> Rig:
        if self._rig is None:
            self._rig = self._stack.enter_context(Rig(self.folder))
        return self._rig


def read(folder: Path) -> Run:
    """A run that was made."""
    facts = json.loads((folder / FACTS).read_text())
    every = Replies.read(folder / RECORDS)
    total_s = facts["warm_up_s"] + facts["duration_s"]
    return Run(facts, every.during(facts["warm_up_s"], total_s), every)


def there(systems: Iterable[System]) -> list[System]:
    """Those whose bundles were made; the others are told."""
    found = []
    for system in systems:
        if system.is_there:
            found.append(system)
        else:
            Console(stderr=True).print(f"left out: {system.name}, no bundle in {system.folder}")
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every command of the comparison can be told."""
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=DATASETS)
    parser.add_argument("--traces", nargs="+", default=list(TRACES), help="names of files")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--duration", type=float, default=DURATION_S, help="seconds that count")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where runs are kept")
