"""Front-to-back training: one block after the other takes its turn at the front.

    epochs ─► turns ─► front block ─┬─ blocks before it: frozen
                                    ├─ front block: prediction and manipulation losses
                                    └─ blocks after it: the rest of the network, which reads its
                                       carry and is trained with it

First all blocks train together for a while (front 0). Then each takes its turn. For it the block
gets a reference network, which is fitted to the block's features and frozen, and its most important
channels are mapped to the first k. This is AgileNN's training (MobiCom'22, sections 3.1 to 3.3) of
each block, with the blocks behind it as the remote network; the order is Xpi's (section II).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xpi_ray.networks.progressive import ProgressiveNetwork, State
from xpi_ray.networks.reference import build_reference
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.data import Split, Track, silent
from xpi_ray.training.losses import Manipulation, counted_shares, manipulation_loss
from xpi_ray.training.objectives import Objective, Prediction, rising_weights
from xpi_ray.training.quantization import FIRST_HARDNESS, CarryQuantization
from xpi_ray.training.references import (
    Reordered,
    can_map,
    fit_reference,
    map_channels,
    rank_channels,
)

JOINT_SHARE = 0.5  # of all epochs, so that blocks have features to rank when their turn comes
CENTRE_IMAGES = 256
CENTRES_RATE = 0.01  # their learning rate, to the network's
BLOCKS_A_BATCH = 3
LAST_HARDNESS = 8.0
SETTLED = 0.5  # of a joint training; until then carries change too much for centres to follow


def turns(num_blocks: int, epochs: int, joint_share: float = JOINT_SHARE) -> tuple[float, ...]:
    """The time, in epochs, at which all blocks' joint turn ends, and then each block's own.

    Args:
        num_blocks: N.
        epochs: When the last block's turn ends.
        joint_share: Of the epochs, in which all blocks train together first; 0 where the network
            is trained already.
    """
    each = (1 - joint_share) / num_blocks
    return tuple(epochs * (joint_share + each * block) for block in range(num_blocks + 1))


class Staged(Objective):
    """The front block's loss, or that of all blocks together.

    The front block's exit weighs as much as all later exits together. While all blocks train
    together, importance is moved in none of them, or in all.

    Args:
        network: What is to be trained; its shapes are looked at.
        prediction: Judges the exits.
        manipulation: Moves importance; None leaves it where it is.
        together: Whether it moves importance in all blocks at once, while they train together.
        quantization: Puts a carry through what the link does to it; None leaves carries exact.
        entropy_weight: Of the bits a value that the crossing carry needs, in the loss.
        track: Shows progress while reference networks are fitted.
    """

    front: Tensor

    def __init__(
        self,
        network: XpiNetwork,
        prediction: Prediction,
        manipulation: Manipulation | None = None,
        together: bool = False,
        quantization: CarryQuantization | None = None,
        entropy_weight: float = 0.0,
        track: Track = silent,
    ) -> None:
        super().__init__()
        self.prediction = prediction
        self.manipulation = manipulation
        self.together = together
        self.quantization = quantization
        self.entropy_weight = entropy_weight
        self.track = track
        self.generator = torch.Generator()
        self.register_buffer("front", torch.tensor(-1))  # belongs to the checkpoint
        self.references = nn.ModuleDict()
        if manipulation is not None:
            for number in range(1, network.num_blocks):
                _, height, width = network.carry_shape(number)
                channels = network.block(number).spec.channels
                reference = build_reference(
                    manipulation.reference, channels, (height, width), network.num_classes
                )
                self.references[str(number)] = Reordered(reference, channels).requires_grad_(
                    manipulation.reference_follows
                )

    def train(self, mode: bool = True) -> "Staged":
        """Reference networks stay in eval mode, but while they are fitted."""
        super().train(mode)
        self.references.eval()
        return self

    def begin(
        self, network: ProgressiveNetwork, front: int, train: Split, seed: int, progress: float
    ) -> None:
        """Fit the reference and map the channels when another block comes to the front."""
        assert isinstance(network, XpiNetwork)
        self.generator.manual_seed(seed + front)
        new_turn = front != int(self.front)
        self.front.fill_(front)
        if self.quantization is not None:
            self.quantization.hardness = FIRST_HARDNESS + progress * (
                LAST_HARDNESS - FIRST_HARDNESS
            )
            if new_turn or (front == 0 and progress < SETTLED):
                self._spread_centres(network, front, train)
        if not new_turn:
            return
        for number in self._blocks_in_turn(front):
            self._make_ready(network, number, train)

    def _blocks_in_turn(self, front: int) -> list[int]:
        """The blocks whose importance is moved while ``front`` is at the front."""
        blocks = [int(number) for number in self.references]
        return [block for block in blocks if block == front or (front == 0 and self.together)]

    def _make_ready(self, network: XpiNetwork, number: int, train: Split) -> None:
        """Fit the reference to the block's features and map its channels."""
        assert self.manipulation is not None
        block, reference = network.block(number), self.references[str(number)]
        assert isinstance(reference, Reordered)
        steps = self.manipulation.reference_steps
        fit_reference(reference, network, number, train, self.generator, steps, self.track)
        if self.manipulation.map_channels and can_map(block):
            ranking = rank_channels(
                self.manipulation, reference, network, number, train, self.generator
            )
            map_channels(block, reference, ranking.order()[: block.spec.branch_channels].tolist())
        reference.requires_grad_(self.manipulation.reference_follows)

    def _watched_blocks(self, front: int) -> list[int]:
        """The blocks whose importance this batch looks at: at most a few, as each costs a block."""
        blocks = self._blocks_in_turn(front)
        order = torch.randperm(len(blocks), generator=self.generator)
        return [blocks[index] for index in order[:BLOCKS_A_BATCH].tolist()]

    def _manipulate(
        self, number: int, features: Tensor, labels: Tensor, branch_channels: int
    ) -> Tensor:
        """A block's manipulation loss and, if its reference follows, the reference's own."""
        assert self.manipulation is not None
        reference = self.references[str(number)]
        shares = counted_shares(self.manipulation, reference, features, labels)
        moved = manipulation_loss(self.manipulation, shares, branch_channels)
        loss = self.manipulation.weight * moved
        if self.manipulation.reference_follows:
            reference.train()
            loss = loss + F.cross_entropy(reference(features.detach()), labels)
            reference.eval()
        return loss

    def forward(self, network: ProgressiveNetwork, images: Tensor, labels: Tensor) -> Tensor:
        """Run the network, look at the front block's features, and weigh what was found."""
        assert isinstance(network, XpiNetwork)
        front, crossing = int(self.front), self._crossing(network)
        watched = self._watched_blocks(front)
        state = network.start(images)
        exits: list[Tensor] = []
        loss = torch.zeros(())
        for number in range(1, network.num_blocks + 1):
            features = network.features(state.carry, number)
            block = network.block(number)
            if number in watched:
                k = block.spec.branch_channels
                loss = loss + self._manipulate(number, features, labels, k)
            state = network.leave(features, state.logits, number)
            if number == crossing and self.quantization is not None:
                if self.entropy_weight:
                    bits = self.quantization.entropy_bits(state.carry, number)
                    loss = loss + self.entropy_weight * bits
                state = State(self.quantization(state.carry, number, self.generator), state.logits)
            if number >= front:
                exits.append(state.logits)
        losses = self.prediction(exits, images, labels)
        if front in (0, network.num_blocks):
            return loss + losses @ rising_weights(len(losses))
        return loss + (losses[0] + losses[1:] @ rising_weights(len(losses) - 1)) / 2

    def trained(self) -> list[tuple[nn.Module, float]]:
        """The references where they follow, and the centres, which move little a step."""
        follows = self.manipulation is not None and self.manipulation.reference_follows
        parts: list[tuple[nn.Module, float]] = [(self.references, 1.0)] if follows else []
        if self.quantization is not None:
            parts.append((self.quantization, CENTRES_RATE))
        return parts

    def centres(self) -> dict[str, Tensor]:
        """The learned centres, if carries were quantised."""
        return self.quantization.learned() if self.quantization is not None else {}

    def _spread_centres(self, network: XpiNetwork, front: int, train: Split) -> None:
        """Fit the centres of the last frozen block and of those that are still to change."""
        assert self.quantization is not None
        network.eval()
        state = network.start(train.images[:CENTRE_IMAGES])
        with torch.no_grad():
            for number in range(1, network.num_blocks):
                state = network.advance(state, number)
                if number >= front - 1:
                    self.quantization.initialise(number, state.carry)

    def _crossing(self, network: XpiNetwork) -> int | None:
        """The partition that this batch crosses the link at, 1..N-1; None if carries stay exact.

        Earlier than the front too: blocks behind must not forget what a quantised carry is like.
        """
        if self.quantization is None or network.num_blocks == 1:
            return None
        return int(torch.randint(1, network.num_blocks, (), generator=self.generator))
