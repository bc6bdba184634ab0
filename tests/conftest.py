"""What tests of several packages share: a small network, its bundle, and the data sets."""

import itertools
import os

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import nn
from xdist.scheduler import LoadScopeScheduling

from xpi_ray.compression.ladder import Ladder
from xpi_ray.compression.transform import Transform
from xpi_ray.networks.block import BlockSpec
from xpi_ray.networks.plain import ExitSpec, PlainBlockSpec, PlainNetwork, PlainSpec
from xpi_ray.networks.xpi import XpiNetwork, XpiSpec
from xpi_ray.policies.learned import FEATURES, SHORTLIST, to_bytes
from xpi_ray.policies.utility import Weights
from xpi_ray.profiles.outcomes import Outcomes
from xpi_ray.telemetry.records import RequestRecord
from xpi_ray.training.data import Split, Splits, data_folder, load
from xpi_ray.training.packing import carries, pack

# How long an example takes is the machine's matter.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the processor
    torch.set_num_threads(1)


class ByFile(LoadScopeScheduling):
    """Gives workers a file at a time; what starts Ray goes to one of them."""

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return "ray" if file.startswith(("tests/e2e/", "tests/rl/")) else file


def pytest_xdist_make_scheduler(config, log):
    """Called where there are workers."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    """What starts Ray takes longest, and begins first."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture(scope="session")
def spec():
    """Four blocks, five classes, images higher than wide, odd sizes on the way, one residual."""
    blocks = (
        BlockSpec(channels=10, branch_channels=4, stem_channels=3, stride=2, branch_widths=(5,)),
        BlockSpec(channels=8, branch_channels=2, branch_widths=(4, 6)),
        BlockSpec(channels=11, branch_channels=4, stride=2),
        BlockSpec(channels=9, branch_channels=9),
    )
    return XpiSpec(
        num_classes=5, image_size=(10, 6), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), blocks=blocks
    )


@pytest.fixture(scope="session")
def plain_spec(spec):
    """Likewise, of a plain network; blocks 2 and 4 have exits, block 3 is residual."""
    blocks = (
        PlainBlockSpec(channels=10, stem_channels=3, stride=2),
        PlainBlockSpec(channels=8, stride=2, exit=ExitSpec(squeezed=3, widths=(4, 6))),
        PlainBlockSpec(channels=8),
        PlainBlockSpec(channels=9, exit=ExitSpec()),
    )
    return PlainSpec(**{**dict(spec), "blocks": blocks})


@pytest.fixture(scope="session")
def make_network():
    """Makes a network, in eval mode and not folded, whose every weight and statistic matters."""

    def make(spec, seed=0):
        torch.manual_seed(seed)
        network = XpiNetwork(spec) if isinstance(spec, XpiSpec) else PlainNetwork(spec)
        network.eval().requires_grad_(False)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.1, 0.4)
                module.weight.uniform_(0.7, 1.5)
                module.bias.normal_(0, 0.3)
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, 1.0)
        if isinstance(spec, XpiSpec):
            for number in range(1, network.num_blocks + 1):
                network.block(number).fusion_weight.fill_(number - 2.0)
        return network

    return make


@pytest.fixture(scope="session")
def network(spec, make_network):
    """A small network, prepared for serving; not to be changed."""
    return make_network(spec).prepare()


@pytest.fixture(scope="session")
def plain_network(plain_spec, make_network):
    """A small plain network, prepared for serving; not to be changed."""
    return make_network(plain_spec).prepare()


@pytest.fixture(scope="session")
def images():
    """Twelve images of noise for the small network, uint8 (12, 3, 10, 6)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (12, 3, 10, 6), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="session")
def transforms(network, images):
    """Untrained transforms of the small network's carries, whose latents are wide."""
    torch.manual_seed(2)
    found = {}
    for partition, carry in carries(network, images).items():
        transform = Transform(carry.shape[1]).normalise(torch.from_numpy(carry)).eval()
        transform.analysis.weight.data *= 4
        found[partition] = transform.requires_grad_(False)
    return found


@pytest.fixture(scope="session")
def ladder(network, images, transforms):
    """Codecs for the small network's carries."""
    return Ladder.fit(carries(network, images), transforms)


@pytest.fixture(scope="session")
def splits(images):
    """A data set of noise for the small network; validation has 12 images."""
    labels = torch.arange(len(images)) % 5
    return Splits(
        "noise", tuple("abcde"), Split(images, labels), Split(images, labels), Split(images, labels)
    )


@pytest.fixture(scope="session")
def bundle(spec, make_network, splits, transforms):
    """The small network as a bundle that was not saved yet; not to be changed."""
    return pack(make_network(spec), splits, "7", transforms=transforms)


@pytest.fixture(scope="session")
def bundle_folder(bundle, tmp_path_factory):
    """The small bundle, saved; not to be changed."""
    folder = tmp_path_factory.mktemp("bundle")
    bundle.save(folder)
    return folder


@pytest.fixture(scope="session")
def elastic_facts(bundle):
    """What plans of the small network's exits go by; not to be changed."""
    return bundle.elastic


@pytest.fixture(scope="session")
def make_outcomes():
    """Makes outcomes of a make-believe network: 4 blocks, 3 levels of which the last harms."""

    def make(seed, samples=60, exits=4, levels=3):
        rng = np.random.default_rng(seed)
        ease = rng.normal(size=(samples, 1)) + np.linspace(-0.5, 1.5, exits)
        ease = ease + rng.normal(size=(samples, exits)) / 2
        entropy = (1 / (1 + np.exp(2 * np.abs(ease) - 1))).astype(np.float32)
        correct = ease + rng.normal(size=(samples, exits)) / 2 > 0
        resumed_entropy = np.broadcast_to(entropy, (levels, exits, samples, exits)).copy()
        resumed_correct = np.broadcast_to(correct, (levels, exits, samples, exits)).copy()
        for partition in range(1, exits):
            harmed = rng.random((samples, exits - partition)) < 0.5
            resumed_correct[2, partition, :, partition:] &= ~harmed
            shift = rng.normal(0, 0.02, (samples, exits - partition))
            resumed_entropy[1:, partition, :, partition:] += shift.astype(np.float32)
        frame_bytes = np.array([[400, 900, 600, 300]] * levels, np.float32)
        frame_bytes[:, 1:] /= 2.0 ** np.arange(levels)[:, None]
        return Outcomes(entropy, correct, resumed_entropy.clip(0, 1), resumed_correct, frame_bytes)

    return make


@pytest.fixture(scope="session")
def make_policy():
    """Makes the file of a policy for a bundle, of random layers that choose among all its plans."""

    def make(bundle, seed=0):
        rng = np.random.default_rng(seed)
        widths = (FEATURES, 64, 64, SHORTLIST)
        layers = [
            (
                rng.normal(0, inputs**-0.5, (outputs, inputs)).astype(np.float32),
                np.zeros(outputs, "f"),
            )
            for inputs, outputs in itertools.pairwise(widths)
        ]
        return to_bytes(layers, range(len(bundle.candidates())), Weights())

    return make


@pytest.fixture(scope="session")
def make_record():
    """Makes the record of a request that the edge answered in time."""

    def make(**changes):
        facts = {
            "request_id": "1",
            "model": "m",
            "slo_class": "tight",
            "deadline_ms": 50.0,
            "status": "complete",
            "exit": 2,
            "tier": "edge",
            "entropy": 0.3,
            "plan_version": 7,
            "partition": 3,
            "level": 1,
            "edge_blocks": 2,
            "edge_ms": 10.0,
            "total_ms": 20.0,
            "budget_left_ms": 30.0,
        }
        return RequestRecord(**{**facts, **changes})

    return make


@pytest.fixture(scope="session")
def cifar10():
    """The real CIFAR-10, where it lies at hand; nothing is fetched."""
    if data_folder() is None:
        pytest.skip(
            "no cifar10_train.npz in $XPI_DATA_DIR or ../shared/data; set XPI_DATA_DIR to a "
            "folder that holds it"
        )
    return load("cifar10")


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        """The time."""
        return self.now_s

    def sleep_ms(self, ms):
        """Let time pass."""
        self.now_s += ms / 1000


@pytest.fixture
def clock():
    """A clock that stands still until told otherwise."""
    return Clock()
