"""Trains one network on one objective, an epoch at a time, and can stop and go on at any of them.

    batches ─► objective ─► gradients ─► SGD (one cycle)     each epoch: validation, log, checkpoint

A run's folder holds ``config.json``, ``log.csv`` (a line an epoch) and ``checkpoint.pt``. The
random numbers of an epoch come from the seed and the epoch's number alone, so a run that was
stopped and resumed sees the batches that an unbroken one sees.
"""

import csv
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from xpi_ray.config import Frozen
from xpi_ray.errors import DataError
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.training.data import Split, batches
from xpi_ray.training.objectives import Objective

CHECKPOINT, LOG = "checkpoint.pt", "log.csv"

Track = Callable[[Iterable[tuple[Tensor, Tensor]], int, str], Iterable[tuple[Tensor, Tensor]]]
"""Shows progress over batches: (batches, their number, a description) -> the same batches."""


class TrainingConfig(Frozen):
    """How to train."""

    epochs: int = Field(default=24, ge=1)
    batch_size: int = Field(default=128, ge=1)
    peak_learning_rate: float = Field(default=0.2, gt=0)
    """Reached after ``warm_up`` of all steps; falls to zero by a cosine."""
    warm_up: float = Field(default=0.2, ge=0, lt=1)
    """Share of all steps in which the learning rate rises."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    """Of weights with more than one dimension; norms, biases and fusions are left free."""
    seed: int = 0


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The network's weights in a run's checkpoint.

    Raises:
        DataError: There is no checkpoint in the folder.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise DataError(f"{path} is not there; expected the folder of a run of `xpi train`")
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)["network"]
    return weights


def silent(
    items: Iterable[tuple[Tensor, Tensor]], total: int, description: str
) -> Iterable[tuple[Tensor, Tensor]]:
    """Show nothing."""
    del total, description
    return items


class Trainer:
    """Trains ``network`` in place."""

    def __init__(
        self,
        network: ProgressiveNetwork,
        objective: Objective,
        config: TrainingConfig,
        folder: Path,
        track: Track = silent,
    ) -> None:
        self.network = network
        self.objective = objective
        self.config = config
        self.folder = folder
        self.track = track
        self.epoch = 0  # epochs done
        decayed = [p for p in network.parameters() if p.ndim > 1]
        free = [p for p in network.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.SGD(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": free, "weight_decay": 0.0},
            ],
            lr=config.peak_learning_rate,
            momentum=config.momentum,
            nesterov=True,
        )

    def run(self, train: Split, validation: Split) -> list[float]:
        """Train the epochs that are left and return the validation accuracy of every exit.

        Raises:
            DataError: The training split does not fill one batch.
        """
        if len(train.labels) < self.config.batch_size:
            raise DataError(
                f"a batch of {self.config.batch_size} needs as many training images, got "
                f"{len(train.labels)}; use a smaller batch"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.epoch == 0:
            (self.folder / LOG).unlink(missing_ok=True)  # of a run that this one replaces
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
        saved = torch.load(path, weights_only=True)
        if saved["config"] != self.config.model_dump():
            raise DataError(
                f"{path} was made with other settings ({saved['config']}); use the same ones, "
                "or another folder"
            )
        try:
            self.network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError) as err:  # missing names or other shapes; other groups
            raise DataError(f"{path} was made with another network: {err}") from err
        self.epoch = saved["epoch"]

    def _finished(self) -> bool:
        return self.epoch >= self.config.epochs

    def _train_epoch(self, train: Split) -> float:
        self.network.train()
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.epoch)
        steps = len(train.labels) // self.config.batch_size
        total = 0.0
        items = batches(train, self.config.batch_size, generator)
        title = f"epoch {self.epoch + 1}/{self.config.epochs}"
        for step, (images, labels) in enumerate(self.track(items, steps, title)):
            self._set_learning_rate((self.epoch * steps + step) / (self.config.epochs * steps))
            loss = self.objective(self.network, images, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += float(loss.detach())
        self.epoch += 1
        return total / steps

    def _set_learning_rate(self, progress: float) -> None:
        warm_up = self.config.warm_up
        if progress < warm_up:
            share = progress / warm_up
        else:
            share = (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.peak_learning_rate * share

    def _log(self, loss: float, accuracies: list[float], seconds: float) -> None:
        path = self.folder / LOG
        exits = [f"exit_{i}_accuracy" for i in range(1, len(accuracies) + 1)]
        fresh = not path.is_file()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["epoch", "loss", "seconds", *exits])
            row = [f"{value:.4f}" for value in accuracies]
            writer.writerow([self.epoch, f"{loss:.4f}", f"{seconds:.1f}", *row])

    def _save(self) -> None:
        part = self.folder / f"{CHECKPOINT}.part"
        torch.save(
            {
                "config": self.config.model_dump(),
                "network": self.network.state_dict(),
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
