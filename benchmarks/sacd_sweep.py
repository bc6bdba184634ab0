"""How do SAC-d co-inference's choices move with the bandwidth, and what do they bring?

    python -m benchmarks.sacd_sweep [--run runs/sacd] [--seeds 0 1 2] [--steps 30000]

Niu et al., "An Adaptive Device-Edge Co-Inference Framework Based on Soft Actor-Critic", figures 5
and 6, from what `xpi train-sacd` left in the run's folder. Four policies choose exit, partition and
bits at every bandwidth from 0.01 to 10 MB/s: SAC-d and DQN, trained here with each seed; ``best``,
the choice of the highest reward among all 189; ``on_device``, the whole network on the device, the
paper's "On Device". Agents and rewards know validation accuracies alone; the accuracy of a row is
the test split's, of values that crossed the link compressed.

Writes ``sacd_sweep.json``; ``sacd_costs.json``, figure 5's sizes and accuracies and all that the
rewards are made of; and ``sacd_exits.json``, the exits' accuracies.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from rich.progress import track

from benchmarks.result import Row, write
from rl.sacd.agents import Agent, AgentConfig
from rl.sacd.alexnet import EXITS, LAYERS, LEAVES_TRUNK, AlexNet
from rl.sacd.command import COSTS
from rl.sacd.costs import ACTIONS, Action, Costs, of_distinct
from rl.sacd.dqn import Dqn
from rl.sacd.environment import FEATURES, CoInference
from rl.sacd.measuring import crossing_accuracies
from rl.sacd.reward import LEAST_BPS, MEGABYTE_BITS, ON_DEVICE, Model
from rl.sacd.sac import SacD
from rl.sacd.training import accuracies, trained
from xpi_ray.training.data import Split, load

SWEEP_BPS = (
    LEAST_BPS,
    *(MEGABYTE_BITS * rate for rate in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75)),
    *(MEGABYTE_BITS * half / 2 for half in range(2, 21)),
)
AGENTS: dict[str, type[Agent]] = {"sacd": SacD, "dqn": Dqn}
SETTLED = 10  # choices at a bandwidth, each seeing what the one before led to, before it counts


def settled(agent: Agent, model: Model) -> list[int]:
    """What an agent chooses as the bandwidth rises, each time when it has settled."""
    environment = CoInference(model, SWEEP_BPS[0])
    state, _ = environment.reset(seed=0)
    found = []
    for next_bps in (*SWEEP_BPS[1:], SWEEP_BPS[-1]):
        for left in reversed(range(SETTLED)):
            action = agent.act(state)
            environment.fixed_bps = environment.bandwidth_bps if left else next_bps
            state, *_ = environment.step(action)
        found.append(action)
    return found


def choices(model: Model, seeds: list[int], steps: int) -> list[tuple[str, int, float, int]]:
    """Policy, seed, bandwidth and action, over the sweep."""
    found = []
    for bps in SWEEP_BPS:
        found.append(("best", 0, bps, int(model.outcomes(bps).reward.argmax())))
        found.append(("on_device", 0, bps, ON_DEVICE))
    for name, kind in AGENTS.items():
        for seed in seeds:
            agent = kind(FEATURES, len(ACTIONS), AgentConfig(steps=steps, seed=seed))
            learning = agent.learn(CoInference(model))
            for _ in track(learning, f"{name}, seed {seed}", total=steps):
                pass
            swept = zip(SWEEP_BPS, settled(agent, model), strict=True)
            found += [(name, seed, bps, action) for bps, action in swept]
    return found


def judged(
    network: AlexNet, test: Split, exact: list[float], actions: set[Action]
) -> dict[Action, float]:
    """Of distinct actions, on the test split."""
    found: dict[Action, float] = {}
    for exit_, partition, bits in track(sorted(actions), "test images"):
        if bits == 0:
            found[Action(exit_, partition, bits)] = exact[exit_ - 1]
        elif (exit_, partition, bits) not in found:
            shared = exit_ < EXITS[-1] and partition <= LEAVES_TRUNK[exit_ - 1]
            via = EXITS[-1] if shared else exit_  # what crosses in the trunk serves all exits
            reached = crossing_accuracies(network, test, via, partition, bits)
            found |= {Action(each, partition, bits): share for each, share in reached.items()}
    return found


def kind(network: AlexNet, exit_: int, partition: int) -> str:
    """What the last layer is whose values cross: ReLU, MaxPool2d, ..."""
    return type(network.path(exit_)[partition - 1]).__name__ if partition else "image"


def main() -> None:
    """Train the agents, sweep, judge and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/sacd"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=AgentConfig.steps)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    costs, network = Costs.load(arguments.run / COSTS), trained(arguments.run)
    test = load("cifar10").test
    model = Model(costs)
    exact = accuracies(network, test)
    chosen = choices(model, arguments.seeds, arguments.steps)
    accuracy = judged(network, test, exact, {of_distinct(ACTIONS[action]) for *_, action in chosen})
    rows: list[Row] = []
    for policy, seed, bandwidth_bps, action in chosen:
        outcome, distinct = model.outcomes(bandwidth_bps).of(action), of_distinct(ACTIONS[action])
        rows.append(
            {
                "policy": policy,
                "seed": seed,
                "bandwidth_bps": bandwidth_bps,
                "latency_ms": round(outcome.latency_ms, 4),
                "accuracy": round(accuracy[distinct], 4),
                "exit": distinct.exit,
                "partition": distinct.partition,
                "bits": distinct.bits,
                "reward": round(outcome.reward, 5),
            }
        )
    device = {"device": asdict(model.device), "sensitivity_bps": model.sensitivity_bps}
    settings = {**device, "steps": arguments.steps, "images": len(test.labels)}
    print(write("sacd_sweep", settings, rows))
    measured: list[Row] = [
        {"layer": kind(network, row.exit, row.partition), **row._asdict()} for row in costs.rows
    ]
    print(write("sacd_costs", {"split": "validation"}, measured))
    exits: list[Row] = [
        {"exit": exit_, "layers": layers, "accuracy": round(share, 4)}
        for exit_, layers, share in zip(EXITS, LAYERS, exact, strict=True)
    ]
    print(write("sacd_exits", {"images": len(test.labels)}, exits))


if __name__ == "__main__":
    main()
