"""A network as it would run on a weaker machine: a stand-in for real edge hardware.

    advance ─► the wrapped network's advance ─► sleep (slowdown − 1) × the time that it took

Answers are those of the wrapped network; only time differs. A processor that sleeps is free for
others, so what shares the machine is not slowed along with it.
"""

import time
from collections.abc import Callable

from xpi_ray.networks.progressive import ProgressiveNetwork, State


class SlowedNetwork(ProgressiveNetwork):
    """Makes every block take ``slowdown`` times as long.

    Args:
        network: Prepared for serving.
        slowdown: At least 1.
    """

    def __init__(self, network: ProgressiveNetwork, slowdown: float) -> None:
        super().__init__()
        self.network = network
        self.slowdown = slowdown
        self.num_classes = network.num_classes
        self.image_size = network.image_size
        self.fuses = network.fuses

    @property
    def num_blocks(self) -> int:
        """N of the wrapped network."""
        return self.network.num_blocks

    @property
    def exits(self) -> tuple[int, ...]:
        """As in the wrapped network."""
        return self.network.exits

    def carry_shape(self, partition: int) -> tuple[int, int, int]:
        """As in the wrapped network."""
        return self.network.carry_shape(partition)

    def advance(self, state: State, block: int) -> State:
        """Run the block, then wait."""
        return self._slowed(self.network.advance, state, block)

    def skip_exit(self, state: State, block: int) -> State:
        """Run the block without its exit, then wait."""
        return self._slowed(self.network.skip_exit, state, block)

    def _slowed(self, run: Callable[[State, int], State], state: State, block: int) -> State:
        started = time.perf_counter()
        state = run(state, block)
        time.sleep((self.slowdown - 1) * (time.perf_counter() - started))
        return state
