"""Trains one network on one objective, an epoch at a time, and can stop and go on at any of them.

    batches ─► objective ─► gradients ─► SGD (one cycle)     each epoch: validation, log, checkpoint

A run's folder holds ``config.json``, ``log.csv`` (a line an epoch) and ``checkpoint.pt``. The
random numbers of an epoch come from the seed and the epoch's number alone, so a run that was
stopped and resumed sees the batches that an unbroken one sees.
"""

import csv
import math
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from xpi_ray.config import Frozen
from xpi_ray.errors import DataError
from xpi_ray.networks.bundled import BundledNetwork
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.networks.stack import StackNetwork
from xpi_ray.training.data import Split, Track, batches, silent
from xpi_ray.training.objectives import Objective

CHECKPOINT, LOG = "checkpoint.pt", "log.csv"
PRETRAINED_RATE = 0.05  # learning rate of what a network brings along, to that of the rest
CHECKPOINT_PARTS = {"config", "network", "epoch"}  # that readers rely on


class TrainingConfig(Frozen):
    """How to train."""

    epochs: int = Field(default=24, ge=1)
    batch_size: int = Field(default=128, ge=1)
    peak_learning_rate: float = Field(default=0.2, gt=0)
    """Reached after ``warm_up`` of the steps of a turn; falls to zero by a cosine."""
    warm_up: float = Field(default=0.2, ge=0, lt=1)
    """Share of a turn's steps in which the learning rate rises."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    """Of weights with more than one dimension; norms, biases and fusions are left free."""
    bfloat16: bool = False
    """Whether convolutions and products are made in bfloat16 ("mixed precision": Micikevicius et
    al., ICLR'18); weights and losses stay float32."""
    seed: int = 0
    purpose: str = ""
    """What is trained how, on what and from where; a checkpoint of another purpose is refused."""


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The network's weights in a run's checkpoint.

    Raises:
        DataError: There is no checkpoint in the folder.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise DataError(f"{path} is not there; expected the folder of a run of `xpi train`")
    weights: dict[str, Tensor] = read_checkpoint(path)["network"]
    return weights


def read_checkpoint(path: Path) -> dict[str, Any]:
    """All of a checkpoint.

    Raises:
        DataError: The file is damaged, or no checkpoint.
    """
    try:
        saved = torch.load(path, weights_only=True)
    except Exception as err:  # torch, zipfile and pickle raise all kinds on damage
        raise DataError(
            f"{path} is damaged or no checkpoint ({type(err).__name__}); begin anew"
        ) from err
    if not isinstance(saved, dict) or not saved.keys() >= CHECKPOINT_PARTS:
        raise DataError(f"{path} is no checkpoint of `xpi train`; begin anew")
    return saved


class Trainer:
    """Trains ``network`` in place.

    Args:
        network: Trained in place.
        objective: What is minimised; its parameters are trained too, its state is saved.
        config: How.
        folder: Of the run.
        track: Shows progress.
        turns: The time, in epochs, at which each turn ends, ascending, the last one all epochs;
            first the turn of all blocks, then that of block 1, and so on. Blocks are frozen after
            their own. In each turn the learning rate rises and falls to zero. None is one turn.
    """

    def __init__(
        self,
        network: ProgressiveNetwork,
        objective: Objective,
        config: TrainingConfig,
        folder: Path,
        track: Track = silent,
        turns: Sequence[float] | None = None,
    ) -> None:
        self.network = network
        self.objective = objective
        self.config = config
        self.folder = folder
        self.track = track
        self.turns = tuple(turns or [config.epochs])
        self.epoch = 0  # epochs done
        self.optimizer = torch.optim.SGD(
            self._parameter_groups(),
            lr=config.peak_learning_rate,
            momentum=config.momentum,
            nesterov=True,
        )

    def run(self, train: Split, validation: Split) -> list[float]:
        """Train the epochs that are left and return the validation accuracy of every exit.

        Raises:
            DataError: The training split does not fill one batch in every turn.
        """
        self._check_turns(len(train.labels))
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.epoch == 0:  # what is there is of a run that this one replaces
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
            (self.folder / LOG).unlink(missing_ok=True)
        (self.folder / "config.json").write_text(self.config.model_dump_json(indent=2) + "\n")
        accuracies = exit_accuracies(self.network, validation) if self._finished() else []
        while not self._finished():
            started = time.perf_counter()
            loss = self._train_epoch(train)
            accuracies = exit_accuracies(self.network, validation)
            self._log(loss, accuracies, time.perf_counter() - started)
            self._save()
        return accuracies

    def resume(self) -> None:
        """Take up the folder's checkpoint, if there is one.

        Raises:
            DataError: The checkpoint was made with another network or configuration.
        """
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return
        saved = read_checkpoint(path)
        made = TrainingConfig().model_dump() | saved["config"]  # older runs lack younger settings
        if made != self.config.model_dump() or saved["turns"] != list(self.turns):
            raise DataError(
                f"{path} was made with other settings ({saved['config']}, turns that end at "
                f"{saved['turns']}); use the same ones, or another folder"
            )
        try:
            self.network.load_state_dict(saved["network"])
            self.objective.load_state_dict(saved["objective"])
            self.optimizer.load_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError) as err:  # missing names or other shapes; other groups
            raise DataError(f"{path} was made with another network: {err}") from err
        self.epoch = saved["epoch"]
        self._trim_log()

    def _check_turns(self, images: int) -> None:
        """Refuse a split of ``images`` images that leaves a turn without a batch."""
        batch_size, steps = self.config.batch_size, images // self.config.batch_size
        if steps == 0:
            raise DataError(
                f"a batch of {batch_size} needs as many training images, got {images}; use a "
                "smaller batch"
            )
        starts_and_ends = pairwise(math.ceil(end * steps) for end in (0.0, *self.turns))
        empty = [turn for turn, (start, end) in enumerate(starts_and_ends) if start == end]
        if self.turns[0] == 0:  # all blocks are trained already
            empty.remove(0)
        if empty:
            raise DataError(
                f"{len(empty)} of {len(self.turns)} turns would pass without a batch: "
                f"{self.config.epochs} epochs have {self.config.epochs * steps} batches of "
                f"{batch_size}; use more epochs or a smaller batch"
            )

    def _finished(self) -> bool:
        return self.epoch >= self.config.epochs

    def _parameter_groups(self) -> list[dict[str, object]]:
        """What is trained of the network and of the objective, with and without weight decay."""
        groups: list[dict[str, object]] = []
        pretrained = self.network.pretrained() if isinstance(self.network, BundledNetwork) else []
        slow = {parameter for module in pretrained for parameter in module.parameters()}
        parts: list[tuple[Iterable[nn.Parameter], float]] = [
            ((p for p in self.network.parameters() if p not in slow), 1.0),
            ((p for p in self.network.parameters() if p in slow), PRETRAINED_RATE),
            *((module.parameters(), rate) for module, rate in self.objective.trained()),
        ]
        for parameters, rate in parts:
            trained = [p for p in parameters if p.requires_grad]
            for decay in (True, False):
                chosen = [p for p in trained if (p.ndim > 1) == decay]
                weight_decay = self.config.weight_decay if decay else 0.0
                if chosen:
                    groups.append({"params": chosen, "weight_decay": weight_decay, "rate": rate})
        return groups

    def _blocks(self) -> Sequence[nn.Module]:
        """The blocks that can take turns."""
        return list(self.network.blocks) if isinstance(self.network, StackNetwork) else []

    def _train_epoch(self, train: Split) -> float:
        seed = self.config.seed * 1_000_003 + self.epoch
        torch.manual_seed(seed)
        steps = len(train.labels) // self.config.batch_size
        front, total = -1, 0.0
        items = batches(train, self.config.batch_size, torch.Generator().manual_seed(seed))
        title = f"epoch {self.epoch + 1}/{self.config.epochs}"
        for step, (images, labels) in enumerate(self.track(items, steps, title)):
            now = self.epoch + step / steps
            before, front = front, sum(end <= now for end in self.turns[:-1])
            if front != before:
                self._bring_to_front(front, train, seed, now / self.config.epochs)
            self._set_learning_rates(now, front)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bfloat16):
                loss = self.objective(self.network, images, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += float(loss.detach())
        self.epoch += 1
        return total / steps

    def _bring_to_front(self, front: int, train: Split, seed: int, progress: float) -> None:
        self.objective.begin(self.network, front, train, seed, progress)
        self.network.train()
        self.objective.train()
        for block in self._blocks()[: max(front - 1, 0)]:
            block.eval().requires_grad_(False)

    def _set_learning_rates(self, now: float, front: int) -> None:
        """One cycle a turn; ``now`` is in epochs."""
        start, end = (0.0, *self.turns)[front : front + 2]
        progress, warm_up = (now - start) / (end - start), self.config.warm_up
        if progress < warm_up:
            share = progress / warm_up
        else:
            share = (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.peak_learning_rate * share * group["rate"]

    def _log(self, loss: float, accuracies: list[float], seconds: float) -> None:
        path = self.folder / LOG
        exits = [f"exit_{i}_accuracy" for i in self.network.exits]
        fresh = not path.is_file()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["epoch", "loss", "seconds", *exits])
            row = [f"{value:.4f}" for value in accuracies]
            writer.writerow([self.epoch, f"{loss:.4f}", f"{seconds:.1f}", *row])

    def _trim_log(self) -> None:
        """Drop the line of an epoch that was logged and not saved."""
        path = self.folder / LOG
        if path.is_file():
            lines = path.read_text().splitlines(keepends=True)
            part = path.with_suffix(".part")
            part.write_text("".join(lines[: self.epoch + 1]))
            part.rename(path)

    def _save(self) -> None:
        part = self.folder / f"{CHECKPOINT}.part"
        torch.save(
            {
                "config": self.config.model_dump(),
                "turns": list(self.turns),
                "network": self.network.state_dict(),
                "objective": self.objective.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "epoch": self.epoch,
            },
            part,
        )
        part.rename(self.folder / CHECKPOINT)  # a stop in mid-write leaves the old one whole


@torch.inference_mode()
def exit_accuracies(network: nn.Module, split: Split, batch_size: int = 500) -> list[float]:
    """Accuracy of every exit, 0..1, with the network in eval mode."""
    network.eval()
    hits: list[Tensor] = []
    for images, labels in zip(
        split.images.split(batch_size), split.labels.split(batch_size), strict=True
    ):
        hits.append(torch.stack([(exit_.argmax(1) == labels).sum() for exit_ in network(images)]))
    return (torch.stack(hits).sum(0) / len(split.labels)).tolist()
