"""The scheduler's journal: every decision and change of policy, so that each can be made again.

    Scheduler ─► Journal ─► JSON lines, two files by turns; policies beside them ─► replay
                    └─► tail, in memory

A file begins with an entry ``start``, which has what decisions depend on: bundle and rule.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from deployments.args import SchedulerArgs
from deployments.deciding import PEERS, Choice, Decider, name_of
from xpi_ray.bundle import Bundle
from xpi_ray.errors import DataError, PlanError
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass

logger = logging.getLogger("ray.serve")

MAX_FILE_BYTES = 32 << 20
TAIL = 500
DEPENDED_ON = ("least_partition", "edge_slowdown", "round_trip_ms", "policy_file")
"""What rules go by of the scheduler's arguments."""
RULES = {"static", "least_latency", *PEERS}
Entry = dict[str, Any]


class Journal:
    """Writes entries; a disk that fails is reported and stops nothing.

    Args:
        path: The file; the one before it ends in ``.1``. None keeps the tail alone.
        start: What every file begins with.
        max_file_bytes: Length at which a new file is begun.
    """

    def __init__(
        self, path: Path | None, start: Mapping[str, object], max_file_bytes: int = MAX_FILE_BYTES
    ) -> None:
        self._path = path
        self._start = dict(start)
        self._max_file_bytes = max_file_bytes
        self._policies: list[set[Path]] = [set(), set()]  # named in the file before, and in this
        self._present: Path | None = None
        self.tail: deque[Entry] = deque(maxlen=TAIL)
        """The latest entries."""
        self.write("start", **self._start)

    def write(self, kind: str, **facts: object) -> None:
        """Add an entry."""
        entry: Entry = {"kind": kind, "time_s": time.time(), **facts}
        self.tail.append(entry)
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size > self._max_file_bytes:
                self._turn(self._path)
            with self._path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as err:
            logger.error("the journal %s cannot be written: %s", self._path, err)

    def keep(self, file: bytes) -> None:
        """Lay a policy beside the journal, as decisions are to go by it from now on."""
        if self._path is None:
            return
        self._present = policy_path(self._path, name_of(file))
        self._policies[1].add(self._present)
        try:
            self._present.parent.mkdir(parents=True, exist_ok=True)
            self._present.write_bytes(file)
        except OSError as err:
            logger.error("the policy %s cannot be written: %s", self._present, err)

    def _turn(self, path: Path) -> None:
        """Begin a new file; the one before the last goes, with policies that only it names."""
        path.replace(_before(path))
        gone, kept = self._policies
        for policy in gone - kept:
            policy.unlink(missing_ok=True)
        self._policies = [kept, {self._present} if self._present else set()]
        entry: Entry = {"kind": "start", "time_s": time.time(), **self._start}
        path.write_text(json.dumps(entry) + "\n")


class Difference(NamedTuple):
    """A decision that comes out differently now."""

    version: int
    site: str
    slo_class: str
    recorded: Entry
    now: Entry


def start_of(args: SchedulerArgs, bundle: Bundle) -> Entry:
    """What decisions depend on beside what is seen."""
    return {
        "bundle": args.bundle,
        "digest": bundle.digest.hex(),
        "rule": "least_latency" if args.policy == "learned" else args.policy,
        **{name: getattr(args, name) for name in DEPENDED_ON},
    }


def plan_entry(slo: SloClass, choice: Choice) -> Entry:
    """One class's part of a decision."""
    return {
        "deadline_ms": slo.deadline_ms,
        "policy": choice.policy,
        "action": None if choice.pick is None else choice.pick.action,
        "partition": choice.decision.partition,
        "thresholds": list(choice.decision.thresholds),
        "level": choice.decision.level,
    }


def seed_of(version: int, slo: SloClass) -> list[int]:
    """What chance a class's decision has: of its version, so that it can be made again."""
    return [version, *slo.name.encode()]


def replay(path: Path, bundle: str | None = None) -> Iterator[Difference | None]:
    """Make every decision of a journal again; None for each that comes out the same.

    Policies of peers that remember what they saw begin anew with each file, so the first decisions
    of a file that was begun for its length may differ.

    Args:
        path: The journal.
        bundle: Takes the place of the bundle that it names.

    Raises:
        DataError: It is no journal, is of another bundle, or lacks a policy's file.
    """
    decider: Decider | None = None
    for number, line in enumerate(_lines(path), start=1):
        try:
            entry = json.loads(line)
            if entry["kind"] == "start":
                decider = _decider(entry, bundle, path)
            if entry["kind"] != "decision":
                continue
            if decider is None:
                raise DataError(f"{path} does not begin with an entry 'start'")
            observation = Observation.model_validate(entry["observation"])
            site = entry["site"]
            for name, recorded in entry["plans"].items():
                slo = SloClass(name=name, deadline_ms=recorded["deadline_ms"])
                seed = seed_of(entry["version"], slo) if entry["tries"] else None
                choice = _again(decider, recorded["policy"], observation, slo, seed, site, path)
                now = plan_entry(slo, choice)
                same = now == recorded
                yield (None if same else Difference(entry["version"], site, name, recorded, now))
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise DataError(f"{path}, line {number}, is no entry of a journal: {err!r}") from err


def policy_path(journal: Path, name: str) -> Path:
    """Where a policy lies that the journal names."""
    return journal.with_name(f"policy-{name}.safetensors")


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open() as file:
            yield from file
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"the journal {path} cannot be read: {err}") from err


def _decider(start: Entry, bundle: str | None, path: Path) -> Decider:
    args = SchedulerArgs(
        bundle=bundle or start["bundle"],
        policy=start["rule"],
        **{name: start[name] for name in DEPENDED_ON if name in start},
    )
    loaded = Bundle.load(args.bundle)
    if loaded.digest.hex() != start["digest"]:
        raise DataError(
            f"{path} is of a bundle of the digest {start['digest']}, this one's is "
            f"{loaded.digest.hex()}; name that one"
        )
    return Decider(args, loaded)


def _again(
    decider: Decider,
    policy: str,
    observation: Observation,
    slo: SloClass,
    seed: list[int] | None,
    site: str,
    path: Path,
) -> Choice:
    if policy in RULES:
        return decider.by_rule(observation, slo, site)
    if policy != decider.name:
        file = policy_path(path, policy)
        try:
            decider.adopt(file.read_bytes())
        except (OSError, PlanError) as err:
            raise DataError(f"the policy {file} cannot be used: {err}") from err
        if decider.name != policy:
            raise DataError(f"{file} is not the policy {policy} any more")
    return decider.decide(observation, slo, seed, site)


def _before(path: Path) -> Path:
    return path.with_name(path.name + ".1")
