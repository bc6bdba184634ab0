"""What a request costs the edge in energy: SAC-d's model (equations 1 to 3) over a profile.

    Profile ─ blocks 1..i ─► compute_j ─┐
    frame, bandwidth ─► transmission_j ─┴─► edge_energy_j

A model, not a measurement. Its constants are those of SAC-d's device, a Raspberry Pi 4 on Wi-Fi;
the profile has to be of such a machine, or of one slowed to stand for it.
"""

from xpi_ray.profiles.table import Profile

CORE_HZ = 1.5e9
"""Equation 1's f: the clock that SAC-d fixed its Raspberry Pi 4 to (section IV-A2)."""
CORES = 4
CORE_W = (6.4 - 2.7) / CORES
"""Of one busy core: a Raspberry Pi 4 draws 6.4 W with all four busy and 2.7 W idle (J. Geerling,
Raspberry Pi Dramble, "Power Consumption Benchmarks")."""
K0 = CORE_W / CORE_HZ**3
"""Equation 1's k0 of one core, in J s² a cycle, which SAC-d does not tell: 2.7e-28 from the two
above, of the order of the 1e-28 that simulations of edge computing take."""
TRANSMIT_W = 0.1
"""Equation 2's P: what a station may radiate at 2.4 GHz (ETSI EN 300 328, 20 dBm)."""


def compute_j(profile: Profile, blocks: int, encoded: bool = False) -> float:
    """Energy of blocks 1..``blocks`` for one image: equation 1, k0 f² Σ O_i X_p.

    O_i X_p, a layer's intensity times its data, is the cycles that it takes; here these are its
    time by the profile, times f, times the cores it ran on.

    Args:
        profile: Of the edge machine.
        blocks: That ran there, 0..N.
        encoded: Whether a carry was encoded too, which SAC-d leaves out.

    Returns:
        Joules.
    """
    busy_ms = sum(profile.block_ms[:blocks]) + (profile.encode_ms if encoded else 0.0)
    cycles = busy_ms / 1000 * CORE_HZ * profile.threads
    return K0 * CORE_HZ**2 * cycles


def transmission_j(size_bytes: float, bandwidth_bps: float) -> float:
    """Energy to send: equation 2, P X_t / (B log2(1 + P γ)).

    Its denominator is the rate at which bits leave. The project measures that
    (``link/estimator.py``), so it is given whole and not made of a band and a noise ratio.

    Args:
        size_bytes: X_t, at least 0.
        bandwidth_bps: Bits a second, above 0.

    Returns:
        Joules.
    """
    return TRANSMIT_W * size_bytes * 8 / bandwidth_bps


def edge_energy_j(profile: Profile, blocks: int, frame_bytes: float, bandwidth_bps: float) -> float:
    """Energy of one request at the edge: equation 3, the sum of the other two.

    Args:
        profile: Of the edge machine.
        blocks: That ran there before the request left or was sent on, 0..N.
        frame_bytes: What was sent on, 0 if nothing was. After block 0 it is the image itself.
        bandwidth_bps: What the link carried, bits a second, above 0.

    Returns:
        Joules.
    """
    encoded = blocks > 0 and frame_bytes > 0
    return compute_j(profile, blocks, encoded) + transmission_j(frame_bytes, bandwidth_bps)
