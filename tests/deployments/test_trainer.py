import asyncio

import pytest
from ray.exceptions import RayActorError

from deployments import trainer as module
from deployments.args import SchedulerArgs
from deployments.trainer import TrainerHandle
from rl.lesson import Lesson

LESSON = Lesson(None, {"refused": "not better in rehearsal"})


class Actor:
    """Stands for the trainer's actor; its lessons go as told."""

    def __init__(self, lesson):
        self.lesson = lesson
        self.learn = self

    async def remote(self, *call):
        """Give the lesson, fail or hang."""
        if isinstance(self.lesson, Exception):
            raise self.lesson
        await asyncio.sleep(0 if self.lesson else 3_600)
        return self.lesson


@pytest.fixture
def actors(monkeypatch):
    """The actors that are to be found one after the other, and those that were killed."""
    waiting, killed = [], []
    monkeypatch.setattr(module, "open_trainer", lambda args: waiting.pop(0))
    monkeypatch.setattr(
        module.ray, "kill", lambda actor, no_restart: killed.append((actor, no_restart))
    )
    return waiting, killed


async def test_a_lesson_is_handed_on(actors):
    """What the actor says comes back."""
    actors[0].append(Actor(LESSON))
    assert await TrainerHandle(SchedulerArgs())(b"", [], []) == LESSON


async def test_a_lesson_that_is_given_up_ends_the_process(actors):
    """It would go on for ever; Ray starts another."""
    waiting, killed = actors
    hanging = Actor(None)
    waiting.append(hanging)
    handle = TrainerHandle(SchedulerArgs())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(handle(b"", [], []), 0.01)
    assert killed == [(hanging, False)]


async def test_a_trainer_that_is_gone_is_looked_for_anew(actors):
    """The call fails, the next one finds another actor."""
    actors[0].extend([Actor(RayActorError()), Actor(LESSON)])
    handle = TrainerHandle(SchedulerArgs())
    with pytest.raises(RayActorError):
        await handle(b"", [], [])
    assert await handle(b"", [], []) == LESSON
