"""Training of the multi-branch AlexNet: all exits at once, on one core.

Splits.train ─► batches ─► AlexNet ─► sum of the exits' cross-entropies ─► checkpoint.pt
Splits.validation ─► accuracy of each exit after every epoch ─► alexnet.pt, the best one's weights

The paper trains for 100 epochs at batch 128 and learning rate 0.01 with exponential decay; one
cycle (Smith and Topin, 2018) with crops and mirroring reaches its accuracies in a fifth of them.
Convolutions run in bfloat16 under autocast; weights, losses and all evaluation are float32.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from rl.sacd.alexnet import EXITS, AlexNet
from xpi_ray.errors import DataError, TrainingError
from xpi_ray.training.data import Split, Splits, Track, batches, silent

CHECKPOINT, WEIGHTS = "checkpoint.pt", "alexnet.pt"
Parts = dict[str, nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler]
EVALUATED = 500  # images at a time


@dataclass(frozen=True)
class TrainingConfig:
    """One training; a checkpoint of another is refused."""

    epochs: int = 20
    batch: int = 128
    peak_rate: float = 0.04
    """Of SGD with Nesterov's momentum of 0.9, reached after a quarter of all steps."""
    weight_decay: float = 5e-4
    seed: int = 0


def train(
    splits: Splits,
    folder: Path,
    config: TrainingConfig,
    track: Track = silent,
    tell: Callable[[str], None] = lambda _: None,
) -> list[float]:
    """Train, or go on where a stopped training left its checkpoint.

    Every epoch draws from a generator of its own, so going on gives what not stopping gives.

    Returns:
        Validation accuracy of the three exits, of the epoch whose mean is best.

    Raises:
        TrainingError: The folder's checkpoint is of another configuration.
    """
    torch.manual_seed(config.seed)
    network = AlexNet(len(splits.classes))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = len(splits.train.labels) // config.batch
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=config.peak_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=config.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.peak_rate, total_steps=config.epochs * steps, pct_start=0.25
    )
    parts: Parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    first, best = _restore(folder / CHECKPOINT, parts, config)
    for epoch in range(first, config.epochs):
        torch.manual_seed(config.seed * 10_000 + epoch)
        generator = torch.Generator().manual_seed(config.seed * 10_000 + epoch)
        network.train()
        shown = batches(splits.train, config.batch, generator)
        for images, labels in track(shown, steps, f"epoch {epoch + 1} of {config.epochs}"):
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(images)
            loss = torch.stack([F.cross_entropy(each.float(), labels) for each in logits]).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        found = accuracies(network.eval(), splits.validation)
        if sum(found) > sum(best):
            best = found
            _save(network.state_dict(), folder / WEIGHTS)
        state = {name: part.state_dict() for name, part in parts.items()}
        reached = {"config": asdict(config), "epoch": epoch + 1, "best": best}
        _save({**state, **reached}, folder / CHECKPOINT)
        tell(f"epoch {epoch + 1}: validation " + ", ".join(f"{each:.2%}" for each in found))
    return best


@torch.inference_mode()
def accuracies(network: AlexNet, split: Split) -> list[float]:
    """Share of right answers of each exit."""
    right = torch.zeros(len(EXITS), dtype=torch.float64)
    for images, labels in zip(
        split.images.split(EVALUATED), split.labels.split(EVALUATED), strict=True
    ):
        right += torch.stack([(each.argmax(1) == labels).sum() for each in network(images)])
    shares: list[float] = (right / len(split.labels)).tolist()
    return shares


def trained(folder: Path) -> AlexNet:
    """The network that ``train`` chose, folded for inference.

    Raises:
        DataError: The folder holds none.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise DataError(f"{path} is missing; make it with `xpi train-sacd --output {folder}`")
    state = torch.load(path, weights_only=True)
    network = AlexNet(len(state["trunk.19.bias"]))
    network.load_state_dict(state)
    return network.fold()


def _restore(path: Path, parts: Parts, config: TrainingConfig) -> tuple[int, list[float]]:
    """Epochs done and the best accuracies so far; brings the parts to where they were."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        return 0, [0.0]
    found = torch.load(path, weights_only=True)
    if found["config"] != asdict(config):
        raise TrainingError(
            f"{path} is of a training with {found['config']}, not {asdict(config)}; "
            "give these options, or another folder"
        )
    for name, part in parts.items():
        part.load_state_dict(found[name])
    return found["epoch"], found["best"]


def _save(state: dict[str, object], path: Path) -> None:
    """Write whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)
