"""Latency, energy and reward of every choice at a given bandwidth: the paper's model.

    Costs, bandwidth ─► Model.outcomes ─► latency, energy, accuracy, reward of all 189 actions

Latency is the sum of the device's layers, of coding, of the payload over the bandwidth, and of the
server's layers; what comes back is a class number and counts nothing. Figures that the paper leaves
open are named here, each with its source.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rl.sacd.costs import ACTIONS, Action, Costs, Floats
from xpi_ray.errors import PlanError
from xpi_ray.profiles.energy import CORE_HZ, CORES, K0, TRANSMIT_W

MEGABYTE_BITS = 8e6
LEAST_BPS, MOST_BPS = 0.01 * MEGABYTE_BITS, 10 * MEGABYTE_BITS
"""Of the sweep, 0 to 10 MB/s (section IV-B3); at 0 itself nothing would ever arrive."""


@dataclass(frozen=True)
class Device:
    """A Raspberry Pi 4 beside a laptop with an i7-10710U (section IV-A2).

    The server is the machine that ``Costs`` were measured on; the device is so many times slower.
    """

    slowdown: float = 8.0
    """Assumed, as neither machine is at hand: Geekbench 5 gives the Pi about 600 with all cores,
    laptop processors of that kind about 4,800."""
    cores: int = CORES
    """That are busy while a layer runs."""
    frequency_hz: float = CORE_HZ
    """f of equation 1."""
    capacitance: float = K0
    """k0 of equation 1, of one core."""
    transmission_w: float = TRANSMIT_W
    """P of equation 2."""
    signal_to_noise_per_w: float = 10.0
    """γ of equation 2. The bandwidth of the sweep is what WonderShaper sets, a rate already, so
    log2(1 + Pγ) must be 1: γ = 1 / P."""


class Outcome(NamedTuple):
    """What one choice leads to."""

    latency_ms: float
    energy_j: float
    accuracy: float
    reward: float


class Outcomes(NamedTuple):
    """What all actions lead to, columns (189,)."""

    latency_ms: Floats
    energy_j: Floats
    accuracy: Floats
    reward: Floats

    def of(self, action: int) -> Outcome:
        """One action's figures."""
        return Outcome(*(float(column[action]) for column in self))


@dataclass(frozen=True)
class Model:
    """The paper's equations over measured costs.

    The paper standardises accuracy and latency "to the same magnitude" and does not say how: here
    each is divided by the best there is, the last exit's accuracy and the least latency at the same
    bandwidth, so both terms of the reward reach 1 at every bandwidth. (Over the least latency at
    the highest bandwidth, the best reward fell to a quarter where the link is slow; how much the
    next, random bandwidth can bring then differed by far more than two choices do.)
    """

    costs: Costs
    device: Device = field(default_factory=Device)
    sensitivity_bps: float = 10 * MEGABYTE_BITS
    """s of equation 13, open in the paper; large, so that exits 2 and 3 come late, as there."""
    most_emphasis: float = 0.98
    """a at the highest bandwidth, by n of equation 13. At 1 latency would count nothing there, and
    of choices that are as accurate any one could be the best."""

    @cached_property
    def most_energy_j(self) -> float:
        """ê of equation 14, open in the paper: what the whole network takes on the device."""
        return float(self._energy_j(MOST_BPS)[ON_DEVICE])

    @cached_property
    def most_accuracy(self) -> float:
        """Of exact values at the last exit."""
        return float(self.costs.column("accuracy")[ON_DEVICE])

    @cached_property
    def least_latency_ms(self) -> float:
        """Of all choices at the highest bandwidth; there is no less."""
        return float(self._latency_ms(MOST_BPS).min())

    def emphasis(self, bandwidth_bps: float) -> float:
        """The accuracy's weight a, 0..1 (equation 13); 0 without a link."""
        most = np.log1p(MOST_BPS / self.sensitivity_bps)
        return float(self.most_emphasis * np.log1p(bandwidth_bps / self.sensitivity_bps) / most)

    def outcomes(self, bandwidth_bps: float) -> Outcomes:
        """All actions' columns, rewards by equations 12 to 14.

        Raises:
            PlanError: The bandwidth is not between ``LEAST_BPS`` and ``MOST_BPS``.
        """
        if not LEAST_BPS <= bandwidth_bps <= MOST_BPS:
            raise PlanError(
                f"expected {LEAST_BPS:.0f}..{MOST_BPS:.0f} bit/s of bandwidth, got {bandwidth_bps}"
            )
        latency_ms, energy_j = self._latency_ms(bandwidth_bps), self._energy_j(bandwidth_bps)
        accuracy, a = self.costs.column("accuracy"), self.emphasis(bandwidth_bps)
        reward = a * accuracy / self.most_accuracy + (1 - a) * latency_ms.min() / latency_ms
        reward = np.where(energy_j <= self.most_energy_j, reward, 0.0)
        return Outcomes(latency_ms, energy_j, accuracy, reward)

    def _device_ms(self) -> Floats:
        return self.device.slowdown * (
            self.costs.column("before_ms") + self.costs.column("encode_ms")
        )

    def _transmission_ms(self, bandwidth_bps: float) -> Floats:
        return 1000 * 8 * self.costs.column("payload_bytes") / bandwidth_bps

    def _latency_ms(self, bandwidth_bps: float) -> Floats:
        server_ms = self.costs.column("decode_ms") + self.costs.column("after_ms")
        return self._device_ms() + self._transmission_ms(bandwidth_bps) + server_ms

    def _energy_j(self, bandwidth_bps: float) -> Floats:
        """Equations 1 to 3; O_i X_p, a layer's cycles, are its time there times f on every core."""
        device = self.device
        cycles = device.cores * device.frequency_hz * self._device_ms() / 1000
        compute_j = device.capacitance * device.frequency_hz**2 * cycles
        capacity = np.log2(1 + device.transmission_w * device.signal_to_noise_per_w)
        sending_s = self._transmission_ms(bandwidth_bps) / 1000 / capacity
        energy_j: Floats = compute_j + device.transmission_w * sending_s
        return energy_j


ON_DEVICE = ACTIONS.index(Action(3, 20, 4))
"""The whole network on the device, without early exit: the paper's baseline."""
