"""The trainer: an actor of its own in the cloud, where RLlib learns on while the scheduler decides.

Learning ─ policy, Experience…, SiteLog… ─► TrainerHandle ─► Trainer (rl.online) ─► Lesson

It may die, hang or learn nonsense: the scheduler goes on by the policy in force.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import cast

import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from deployments.args import SchedulerArgs
from deployments.placement import CLOUD
from rl.lesson import Lesson, SiteLog
from xpi_ray.bundle import Bundle
from xpi_ray.policies.experience import Experience

NAME, NAMESPACE = "xpi-trainer", "xpi"
CPUS = 0.1  # what it asks Ray for; Ray only counts, it does not bind
NICENESS = 10  # requests on the same machine come first


class Trainer:
    """Runs lessons, one at a time.

    Args:
        args: The scheduler's.
    """

    def __init__(self, args: SchedulerArgs) -> None:
        from rl.online import Online  # noqa: PLC0415 - RLlib takes seconds: here alone

        os.nice(NICENESS)
        torch.set_num_threads(1)
        self._online = Online(Bundle.load(args.bundle), args.slo_classes, args.period_s)

    def learn(
        self, present: bytes, experiences: Sequence[Experience], sites: Sequence[SiteLog]
    ) -> Lesson:
        """See ``rl.online.Online.learn``."""
        return self._online.learn(present, experiences, sites)


class TrainerHandle:
    """Calls the trainer; starts it, and again when it is gone for good.

    Args:
        args: The scheduler's.
    """

    def __init__(self, args: SchedulerArgs) -> None:
        self._args = args
        self._actor = open_trainer(args)

    async def __call__(
        self, present: bytes, experiences: Sequence[Experience], sites: Sequence[SiteLog]
    ) -> Lesson:
        """A lesson; raises what went wrong. Whoever gives up waiting ends the trainer's process."""
        try:
            lesson = await self._actor.learn.remote(present, experiences, sites)
        except asyncio.CancelledError:  # it hangs, or nobody wants to know any more
            ray.kill(self._actor, no_restart=False)
            raise
        except RayActorError:  # Ray starts it anew, except where it could not even begin
            self._actor = open_trainer(self._args)
            raise
        return cast(Lesson, lesson)


def open_trainer(args: SchedulerArgs) -> ActorHandle:
    """The scheduler's trainer; it ends with the scheduler."""
    actor = ray.remote(Trainer).options(
        name=NAME,
        namespace=NAMESPACE,
        get_if_exists=True,
        max_restarts=-1,
        num_cpus=CPUS,
        label_selector=CLOUD,
    )
    handle: ActorHandle = actor.remote(args)
    return handle
