"""A learned encoder and decoder after one block, as in DeepCOD: how small, at what accuracy?

    python -m benchmarks.deepcod [--partition 6] [--channels 8 16 32 64] [--epochs 8]

Yao et al., "Deep Compressive Offloading" (SenSys'20), on the default bundle's network: the encoder
is one convolution with stride 2 to few channels, each value becomes one of 8 learned centres, and
a decoder of self-attention and residual upsampling restores the carry. They learn, for the network
as it is, its own answers on the exact carry (distillation), the labels, and the carry.
Orthogonality of the encoder costs 1e-4, as in the paper's code. What is sent are the centres'
numbers through LZW, as AgileNN (MobiCom'22) compresses both systems' output. So few symbols LZW
makes larger: ``bytes_packed`` tells what they take at 3 bits each, ``bytes_huffman`` by Huffman's
code, and ``bytes_context`` by the range coder with this project's context model.

The checkpoint with the best validation accuracy is judged on the test split, and so are the
bundle's own levels, from the third on: rows with ``level``, whose ``bytes_mean`` are those of all
segments. Writes ``benchmarks/results/deepcod.json``.
"""

import argparse
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.result import Rows, write
from xpi_ray.bundle import Bundle
from xpi_ray.compression.centres import assign
from xpi_ray.compression.coders import HuffmanCoder, LzwCoder, bits_of, packed_bytes
from xpi_ray.compression.context_model import ContextModel
from xpi_ray.compression.deepcod import CENTRES, DeepCod
from xpi_ray.compression.range_coder import RangeCoder
from xpi_ray.networks.progressive import ProgressiveNetwork, State
from xpi_ray.training.data import Split, load
from xpi_ray.training.networks import weights_digest
from xpi_ray.training.objectives import divergence
from xpi_ray.training.transforms import Crossing, crossings

BATCH, PEAK_LEARNING_RATE = 128, 2e-3
TEMPERATURE = 3.0
ORTHOGONALITY = 1e-4
CHUNK = 250
CODED = 1_000  # test images whose symbols are coded
FIRST_LEVEL = 3  # of the ladder that is compared
OUTPUT = Path("runs/deepcod")


def crossing(network: ProgressiveNetwork, split: Split, partition: int) -> list[Crossing]:
    """A split at one partition, and mirrored where that may be."""
    return next(islice(crossings(network, split), partition - 1, None))


def loss_of(
    codec: DeepCod, network: ProgressiveNetwork, batch: Crossing, partition: int, scale: float
) -> Tensor:
    """Distillation, labels and the carry itself."""
    restored = codec(batch.carry)
    state = State(restored.contiguous(memory_format=torch.channels_last), batch.logits)
    answers = network.finish(state, partition)
    return (
        divergence(answers, batch.taught, TEMPERATURE)
        + F.cross_entropy(answers, batch.labels)
        + F.mse_loss(restored, batch.carry) / scale
        + ORTHOGONALITY * codec.orthogonality()
    )


def accuracy(
    arrives: Callable[[Tensor], Tensor],
    network: ProgressiveNetwork,
    images: Crossing,
    partition: int,
) -> float:
    """The last exit's, on what arrives of carries (n, C, h, w)."""
    right = 0
    with torch.inference_mode():
        for part in images.split(CHUNK):
            arrived = arrives(part.carry).contiguous(memory_format=torch.channels_last)
            answers = network.finish(State(arrived, part.logits), partition)
            right += int((answers.argmax(1) == part.labels).sum())
    return right / len(images.labels)


def train(
    network: ProgressiveNetwork,
    partition: int,
    channels: int,
    sides: Sequence[Crossing],
    validation: Crossing,
    epochs: int,
    progress: Progress,
) -> DeepCod:
    """Train one codec and return it as it was in its best epoch by validation."""
    torch.manual_seed(0)
    carry = sides[0].carry
    codec = DeepCod(carry.shape[1], channels)
    with torch.no_grad():
        codec.centres.initialise(codec.analyse(carry[:CHUNK].float()))
    optimiser = torch.optim.Adam(codec.parameters(), PEAK_LEARNING_RATE)
    steps = len(carry) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, PEAK_LEARNING_RATE, total_steps=epochs * steps
    )
    scale = float(carry[:1_000].float().square().mean())
    best, kept = -1.0, codec
    task = progress.add_task(f"{channels} channels", total=epochs * steps)
    for _ in range(epochs):
        codec.train()
        order = torch.randperm(len(carry))
        side = torch.randint(len(sides), (steps,))
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            batch = sides[int(side[step])].select(rows)
            loss = loss_of(codec, network, batch, partition, scale)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            progress.advance(task)
        found = accuracy(codec.eval(), network, validation, partition)
        if found > best:
            best, kept = found, copy.deepcopy(codec)
    return kept


@torch.inference_mode()
def symbols_of(codec: DeepCod, carry: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """What is sent of carries."""
    return assign(codec.analyse(carry.float()).numpy(), codec.centres.ascending().numpy())


def judge(
    codec: DeepCod, network: ProgressiveNetwork, train_: Crossing, test: Crossing, partition: int
) -> dict[str, float | int | str]:
    """A codec's row."""
    sent, known = symbols_of(codec, test.carry[:CODED]), symbols_of(codec, train_.carry[:2_000])
    coders = {
        "bytes_lzw": LzwCoder(),
        "bytes_huffman": HuffmanCoder(),
        "bytes_context": RangeCoder(ContextModel.fit(known, CENTRES)),
    }
    return {
        "partition": partition,
        "channels": codec.encoder.out_channels,
        "symbols": math.prod(sent.shape[1:]),
        "bytes_packed": packed_bytes(math.prod(sent.shape[1:]), bits_of(CENTRES)),
        **{
            name: round(float(np.mean([len(coder.encode(each, CENTRES)) for each in sent])), 1)
            for name, coder in coders.items()
        },
        "accuracy": round(accuracy(codec, network, test, partition), 4),
        "exact_accuracy": round(float((test.taught.argmax(1) == test.labels).float().mean()), 4),
    }


def judge_ladder(
    bundle: Bundle, network: ProgressiveNetwork, test: Crossing, partition: int
) -> Iterator[dict[str, float | int | str]]:
    """Rows of the bundle's own levels."""
    for level in range(FIRST_LEVEL, bundle.ladder.levels):
        sizes: list[int] = []

        def arrives(carry: Tensor, level: int = level, sizes: list[int] = sizes) -> Tensor:
            coded = [bundle.ladder.encode(each, partition, level) for each in carry.numpy()]
            sizes += [sum(map(len, segments)) for segments in coded]
            arrived = [bundle.ladder.decode(each, partition, level) for each in coded]
            return torch.from_numpy(np.stack(arrived))

        found = accuracy(arrives, network, test, partition)
        yield {
            "partition": partition,
            "level": level,
            "bytes_mean": round(float(np.mean(sizes)), 1),
            "accuracy": round(found, 4),
        }


def main() -> None:
    """Train, judge and write; what is trained already is read from its file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partition", type=int, default=6)
    parser.add_argument("--channels", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    bundle = Bundle.load()
    weights = weights_digest(bundle.network)
    network = bundle.network.prepare()
    splits, partition = load(bundle.manifest.name), arguments.partition
    sides = crossing(network, splits.train, partition)
    (validation,) = crossing(network, splits.validation._replace(mirrored=False), partition)
    (test,) = crossing(network, splits.test._replace(mirrored=False), partition)
    rows: Rows = []
    with Progress() as progress:
        for channels in arguments.channels:
            name = f"{weights}_{partition}_{channels}_{arguments.epochs}.pt"
            codec = DeepCod(network.carry_shape(partition)[0], channels)
            if (OUTPUT / name).is_file():
                codec.load_state_dict(torch.load(OUTPUT / name, weights_only=True))
            else:
                codec = train(
                    network, partition, channels, sides, validation, arguments.epochs, progress
                )
                OUTPUT.mkdir(parents=True, exist_ok=True)
                torch.save(codec.state_dict(), OUTPUT / name)
            rows.append(judge(codec.eval(), network, sides[0], test, partition))
    rows += judge_ladder(bundle, network, test, partition)
    settings = {
        "bundle": bundle.digest.hex(),
        "epochs": arguments.epochs,
        "images": len(test.labels),
        "coded": CODED,
    }
    print(write("deepcod", settings, rows))


if __name__ == "__main__":
    main()
