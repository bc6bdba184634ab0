import copy
import platform

import numpy as np
import pytest
import torch

from xpi_ray.compression.image import encode_image
from xpi_ray.compression.ladder import LAYERS, LEVELS, Ladder
from xpi_ray.exits.confidence import normalised_entropy
from xpi_ray.link.frame import HEADER_BYTES, Frame, pack
from xpi_ray.networks.block import BlockSpec
from xpi_ray.networks.progressive import State
from xpi_ray.networks.xpi import XpiNetwork, XpiSpec
from xpi_ray.profiles import measure
from xpi_ray.profiles.measure import count_macs, measure_outcomes, measure_profile
from xpi_ray.profiles.outcomes import NO_EXIT
from xpi_ray.profiles.table import Profile
from xpi_ray.training.packing import carries

RESUMED = 7


@pytest.fixture(scope="module")
def outcomes(network, ladder, splits):
    """Of twelve images, seven of which cross every link, a few at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "CHUNK", 5)
        images, labels, _ = splits.validation
        return measure_outcomes(network, ladder, images, labels, RESUMED)


def test_multiplications_are_those_of_a_hand_count():
    """Outputs times what each of them sums over, for convolutions and classifiers."""
    blocks = (
        BlockSpec(channels=5, branch_channels=2, stride=2, stem_channels=4, branch_widths=(6,)),
        BlockSpec(channels=3, branch_channels=3),
    )
    spec = XpiSpec(num_classes=7, image_size=(8, 6), mean=(0,) * 3, std=(1,) * 3, blocks=blocks)
    stem = 8 * 6 * 4 * (3 * 9)
    conv = 4 * 3 * 5 * (4 * 9)
    branch = 2 * 2 * 6 * (2 * 9) + 6 * 7
    second = 4 * 3 * 3 * (3 * 9) + 3 * 7
    first = stem + conv + branch
    network = XpiNetwork(spec).eval()
    assert count_macs(network) == [first, first + second]
    assert count_macs(network.prepare()) == [first, first + second]


def test_a_profile_has_a_time_for_every_block(network, ladder, images):
    """All times are positive, in the order that they must have, and it says of what machine."""
    threads = torch.get_num_threads()
    profile = measure_profile(network, ladder, images, level=1, repeats=3, threads=threads)
    assert len(profile.block_ms) == len(profile.batch_ms) == network.num_blocks
    assert min(*profile.block_ms, profile.encode_ms, profile.decode_ms) > 0
    assert profile.block_ms == tuple(row[0] for row in profile.batch_ms)
    for median_ms, p95_ms in zip(profile.batch_ms, profile.batch_p95_ms, strict=True):
        assert all(0 < half <= most for half, most in zip(median_ms, p95_ms, strict=True))
    assert profile.threads == threads == torch.get_num_threads()
    assert profile.slowdown == 1
    assert torch.__version__ in profile.machine
    assert platform.machine() in profile.machine


def test_batches_go_through_the_blocks_as_executors_run_them(network, ladder, images):
    """Runs pass blocks 1..N in order, each with a whole batch and the states of the one before."""
    seen = []

    class Watched(type(network)):
        def advance(self, state, block):
            seen.append((block, len(state.carry)))
            return super().advance(state, block)

    watched = copy.deepcopy(network)
    watched.__class__ = Watched
    measure_profile(watched, ladder, images, level=1, repeats=1)
    runs = [seen[i : i + 4] for i in range(0, len(seen) - len(seen) % 4, 4)]
    whole = [run for run in runs if [block for block, _ in run] == [1, 2, 3, 4]]
    sizes = {size for run in whole for _, size in run}
    assert sizes == set(Profile.BATCH_SIZES)
    assert all(len({size for _, size in run}) == 1 for run in whole)


def test_exits_are_judged_one_by_one(outcomes, network, splits):
    """Entropy and correctness are those of the whole network, sample by sample."""
    assert outcomes.entropy.shape == outcomes.correct.shape == (12, 4)
    for number, logits in enumerate(network(splits.validation.images)):
        expected = normalised_entropy(logits.numpy())
        assert outcomes.entropy[:, number] == pytest.approx(expected, abs=1e-5)
        hits = logits.argmax(1) == splits.validation.labels
        assert outcomes.correct[:, number].tolist() == hits.tolist()


def test_exits_before_the_link_are_as_they_were(outcomes):
    """In the resumed arrays, exits 1..p are the original ones at every level."""
    for partition in range(4):
        before = outcomes.resumed_entropy[:, partition, :, :partition]
        assert (before == outcomes.entropy[:RESUMED, :partition]).all()
        right = outcomes.resumed_correct[:, partition, :, :partition]
        assert (right == outcomes.correct[:RESUMED, :partition]).all()


def test_the_image_loses_nothing(outcomes):
    """At partition 0 every exit is as without a link, whatever the level."""
    assert (outcomes.resumed_entropy[:, 0] == outcomes.entropy[:RESUMED]).all()
    assert (outcomes.resumed_correct[:, 0] == outcomes.correct[:RESUMED]).all()


@pytest.mark.parametrize("level", range(LEVELS))
@pytest.mark.parametrize("partition", [1, 2, 3])
def test_later_exits_come_from_what_arrived(outcomes, network, ladder, splits, partition, level):
    """They are the network's on the carry after encoding and decoding, sample by sample."""
    for sample in range(RESUMED):
        state = network.start(splits.validation.images[sample : sample + 1])
        for block in range(1, partition + 1):
            state = network.advance(state, block)
        segments = ladder.encode(state.carry[0].numpy(), partition, level)
        arrived = ladder.decode(segments, partition, level)
        state = State(torch.from_numpy(arrived).unsqueeze(0), state.logits)
        for block in range(partition + 1, 5):
            state = network.advance(state, block)
            logits, label = state.logits[0].numpy(), int(splits.validation.labels[sample])
            found = outcomes.resumed_entropy[level, partition, sample, block - 1]
            assert found == pytest.approx(float(normalised_entropy(logits)), abs=1e-4)
            right = outcomes.resumed_correct[level, partition, sample, block - 1]
            assert right == (logits.argmax() == label)


def test_each_level_is_coarser_and_the_first_almost_exact(outcomes):
    """16 bits move no entropy by a thousandth, and 4 bits move them most."""
    errors = [
        np.abs(outcomes.resumed_entropy[level] - outcomes.entropy[None, :RESUMED]).mean()
        for level in range(LAYERS)
    ]
    assert errors[0] < 1e-3
    assert errors == sorted(errors)
    assert errors[-1] > errors[0]


def test_frames_are_weighed_with_their_header(outcomes, images):
    """A frame holds header, logits and payload; the image's size is the same at every level."""
    assert outcomes.frame_bytes.shape == (LEVELS, 4)
    assert (outcomes.frame_bytes[:, 1:] > HEADER_BYTES + 2 * 5).all()
    sizes = [len(encode_image(image)) + 6 for image in images[:RESUMED].numpy()]
    assert outcomes.frame_bytes[:, 0] == pytest.approx(HEADER_BYTES + np.mean(sizes))
    assert (np.diff(outcomes.frame_bytes[:LAYERS, 1:], axis=0) < 0).all()
    assert (np.diff(outcomes.frame_bytes[LAYERS:, 1:], axis=0) < 0).all()


def test_no_more_samples_cross_than_there_are(network, ladder, splits):
    """Asked for more than there are, all of them cross; progress counts chunks of images."""
    seen = []

    def track(items, description):
        seen.extend(items)
        return seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "CHUNK", 5)
        found = measure_outcomes(network, ladder, *splits.validation[:2], 1_000, track)
    assert found.resumed_entropy.shape == (LEVELS, 4, 12, 4)
    assert seen == [0, 5, 10]


@pytest.fixture(scope="module")
def plain_ladder(plain_network, images):
    """Codecs for the plain network's carries."""
    return Ladder.fit(carries(plain_network, images))


@pytest.fixture(scope="module")
def plain_outcomes(plain_network, plain_ladder, splits):
    """Of the plain network, which has exits after blocks 2 and 4."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "CHUNK", 5)
        images, labels, _ = splits.validation
        return measure_outcomes(plain_network, plain_ladder, images, labels, RESUMED)


def test_blocks_without_an_exit_are_never_sure_nor_right(plain_outcomes, plain_network, splits):
    """With a link before them and without; the exits that there are are the network's."""
    assert plain_outcomes.exits.tolist() == [False, True, False, True]
    for place in (0, 2):
        assert (plain_outcomes.entropy[:, place] == NO_EXIT).all()
        assert (plain_outcomes.resumed_entropy[..., place] == NO_EXIT).all()
        assert not plain_outcomes.correct[:, place].any()
        assert not plain_outcomes.resumed_correct[..., place].any()
    for place, logits in zip((1, 3), plain_network(splits.validation.images), strict=True):
        expected = normalised_entropy(logits.numpy())
        assert plain_outcomes.entropy[:, place] == pytest.approx(expected, abs=1e-5)
        hits = logits.argmax(1) == splits.validation.labels
        assert plain_outcomes.correct[:, place].tolist() == hits.tolist()


def test_frames_of_a_plain_network_hold_no_logits(plain_outcomes, plain_network, plain_ladder):
    """Their size is that of header and segments."""
    images = torch.randint(0, 256, (1, 3, 10, 6), dtype=torch.uint8)
    state = plain_network.advance(plain_network.start(images), 1)
    state = plain_network.advance(state, 2)
    segments = plain_ladder.encode(state.carry[0].numpy(), 2, 0)
    nothing = np.empty(0, np.float32)
    outcomes = measure_outcomes(
        plain_network, plain_ladder, images, torch.zeros(1, dtype=torch.int64), 1
    )
    packed = pack(Frame(bytes(8), 2, 0, nothing, tuple(segments)))
    assert outcomes.frame_bytes[0, 2] == len(packed)
    assert plain_outcomes.frame_bytes.shape == (LAYERS, 4)


@pytest.mark.parametrize("partition", [1, 2, 3])
def test_later_plain_exits_come_from_what_arrived(
    plain_outcomes, plain_network, plain_ladder, splits, partition
):
    """They are the network's on the carry after encoding and decoding, with no logits beside it."""
    images = splits.validation.images[:RESUMED]
    state = plain_network.start(images)
    for block in range(1, partition + 1):
        state = plain_network.advance(state, block)
    for level in range(plain_ladder.levels):
        arrived = [
            plain_ladder.decode(plain_ladder.encode(carry, partition, level), partition, level)
            for carry in state.carry.numpy()
        ]
        resumed = State(torch.from_numpy(np.stack(arrived)), torch.empty(RESUMED, 0))
        logits = plain_network.finish(resumed, partition).numpy()
        found = plain_outcomes.resumed_entropy[level, partition, :, 3]
        assert found == pytest.approx(normalised_entropy(logits), abs=1e-4)


def test_multiplications_are_of_the_exits_that_there_are(plain_network):
    """Dropping the exit after block 2 saves exactly what its branch costs, from block 2 on."""
    squeeze, convs = 3 * 2 * 3 * 8, 2 * 1 * 4 * (3 * 9) + 1 * 1 * 6 * (4 * 9)
    saved = squeeze + convs + 6 * 5
    with_exit, without = count_macs(plain_network), count_macs(plain_network.keeping(()))
    assert (np.array(with_exit) - without).tolist() == [0, saved, saved, saved]


def test_a_profile_times_the_exits_that_there_are(plain_network, plain_ladder, images, monkeypatch):
    """Every block has a time, and only exits are asked how sure they are."""
    asked = []
    monkeypatch.setattr(measure, "exit_entropy", lambda logits: asked.append(logits.shape))
    profile = measure_profile(plain_network, plain_ladder, images, level=1, repeats=2)
    assert len(profile.block_ms) == 4
    assert min(profile.block_ms) > 0
    assert set(asked) == {(5,)}
