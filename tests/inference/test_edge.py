from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xpi_ray.compression.ladder import LEVELS
from xpi_ray.exits.confidence import normalised_entropy
from xpi_ray.inference.answer import Tier
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.edge import EdgeSide, exit_answer
from xpi_ray.inference.pace import ENCODING, Pace
from xpi_ray.link.frame import unpack

PARTITIONS = pytest.mark.parametrize("partition", [1, 2, 3, 4])


@pytest.fixture
def ample(clock):
    """A budget that is never used up."""
    return Budget(1e6, clock)


@PARTITIONS
def test_every_exit_is_the_networks(edge, network, pixels, make_plan, ample, partition):
    """Unsure of all, the edge runs blocks 1..p, and each exit has the network's logits."""
    reply = edge.run(pixels, make_plan(partition), ample)
    exits = network(torch.from_numpy(pixels).unsqueeze(0))[:partition]
    assert [answer.exit for answer in reply.exits] == list(range(1, partition + 1))
    for answer, expected in zip(reply.exits, exits, strict=True):
        assert answer.tier is Tier.EDGE
        assert (answer.logits == expected[0].numpy()).all()
        assert answer.entropy == pytest.approx(float(normalised_entropy(answer.logits)))


@PARTITIONS
@pytest.mark.parametrize("sure", [1, 2, 3, 4])
def test_it_leaves_at_the_first_sure_exit(edge, ticking, pixels, make_plan, ample, partition, sure):
    """No block runs after an exit that is sure, and nothing is sent; others' are not asked."""
    reply = edge.run(pixels, make_plan(partition, leave_at=sure), ample)
    assert len(ticking.ran) == len(reply.exits) == min(sure, partition)
    assert reply.complete == (sure <= partition or partition == 4)
    assert bool(reply.frame) == (not reply.complete)


def test_an_entropy_at_its_threshold_is_sure(edge, pixels, make_plan, ample):
    """τ is the highest entropy to leave at, and a hair above it is not sure."""
    entropy = edge.run(pixels, make_plan(4), ample).exits[0].entropy
    plan = make_plan(4)
    at = plan.model_copy(update={"thresholds": (entropy, 0, 0, 0)})
    below = plan.model_copy(update={"thresholds": (np.nextafter(entropy, 0), 0, 0, 0)})
    assert len(edge.run(pixels, at, ample).exits) == 1
    assert len(edge.run(pixels, below, ample).exits) == 4


def test_the_whole_network_at_the_edge_is_complete(edge, pixels, make_plan, ample):
    """With p = N the last block's exit answers, sure or not, and nothing crosses the link."""
    reply = edge.run(pixels, make_plan(4), ample)
    assert (len(reply.exits), reply.complete, reply.frame) == (4, True, b"")


@pytest.mark.parametrize("level", range(LEVELS))
@pytest.mark.parametrize("partition", [1, 2, 3])
def test_an_unsure_edge_sends_what_the_cloud_needs(
    edge, network, ladder, pixels, make_plan, ample, partition, level
):
    """The frame has bundle, partition, level, the exit's logits and the carry, coded."""
    reply = edge.run(pixels, make_plan(partition, level=level), ample)
    frame = unpack(reply.frame)
    assert (frame.bundle_digest, frame.partition, frame.level) == (b"8 bytes.", partition, level)
    assert (frame.logits == reply.exits[-1].logits.astype(np.float16)).all()
    state = network.start(torch.from_numpy(pixels).unsqueeze(0))
    for block in range(1, partition + 1):
        state = network.advance(state, block)
    expected = ladder.encode(state.carry[0].numpy(), partition, level)
    assert frame.segments == tuple(expected)


@pytest.mark.parametrize("partition", [1, 2, 3])
def test_a_level_beyond_the_ladder_is_the_image(edge, pixels, make_plan, ample, clock, partition):
    """Nothing is encoded; the router is told to send the image, if the edge came to the end."""
    reply = edge.run(pixels, make_plan(partition, level=LEVELS), ample)
    assert (reply.sends_image, reply.crosses, reply.frame) == (True, True, b"")
    assert (reply.blocks, reply.complete, reply.encode_ms) == (partition, False, 0)
    short = edge.run(pixels, make_plan(partition, level=LEVELS), Budget(5, clock))
    sure = edge.run(pixels, make_plan(partition, leave_at=1, level=LEVELS), ample)
    whole = edge.run(pixels, make_plan(4, level=LEVELS), ample)
    assert [each.crosses for each in (short, sure, whole)] == [False] * 3


@pytest.mark.parametrize(("budget_ms", "blocks"), [(8, 0), (10, 1), (19.5, 2), (28.5, 2), (40, 3)])
def test_no_block_begins_that_would_be_late(edge, pixels, make_plan, clock, budget_ms, blocks):
    """A block is expected to take 9 ms and takes 10; exits in hand are kept, nothing is sent."""
    reply = edge.run(pixels, make_plan(3), Budget(budget_ms, clock))
    assert len(reply.exits) == blocks
    assert not reply.complete
    assert bool(reply.frame) == (blocks == 3)


def test_no_frame_is_made_that_would_be_late(ticking, ladder, pixels, make_plan, clock):
    """Exits answer where to encode the carry is expected to take longer than there is time."""
    edge = EdgeSide(ticking, ladder, b"8 bytes.", Pace([9.0] * 4, encode_ms=20.0))
    for budget_ms, sends in [(45, False), (55, True)]:
        reply = edge.run(pixels, make_plan(3), Budget(budget_ms, clock))
        assert (reply.blocks, reply.complete, bool(reply.frame)) == (3, False, sends)


def test_a_slow_encoding_is_noticed(edge, pixels, make_plan, ample):
    """And expected from then on."""
    assert edge._pace.expected_ms(ENCODING) == 0
    reply = edge.run(pixels, make_plan(2), ample)
    assert edge._pace.expected_ms(ENCODING) == pytest.approx(0.1 * reply.encode_ms)


def test_the_last_block_out_of_time_is_not_complete(edge, pixels, make_plan, clock):
    """With p = N and time for three blocks, the third exit is in hand and no more."""
    reply = edge.run(pixels, make_plan(4), Budget(35, clock))
    assert (len(reply.exits), reply.complete, reply.frame) == (3, False, b"")


def test_a_slower_machine_is_noticed(edge, pixels, make_plan, ample, monkeypatch):
    """What blocks really take moves what is expected of them."""
    readings = iter(np.arange(0.0, 1e3, 0.5))  # each look at the clock is half a second later
    fake = SimpleNamespace(perf_counter=lambda: next(readings))
    monkeypatch.setattr("xpi_ray.inference.edge.time", fake)
    before = edge._pace.expected_ms(1)
    edge.run(pixels, make_plan(1), ample)
    assert edge._pace.expected_ms(1) == pytest.approx(before + 0.1 * (500 - before))


def test_what_was_not_expected_is_told(edge, pixels, make_plan, ample, monkeypatch):
    """Of the last step only, what it took beyond its expected time."""
    readings = iter(np.arange(0.0, 1e3, 0.5))
    fake = SimpleNamespace(perf_counter=lambda: next(readings))
    monkeypatch.setattr("xpi_ray.inference.edge.time", fake)
    assert edge.run(pixels, make_plan(2), ample).overrun_ms == pytest.approx(500)
    readings = iter(np.arange(0.0, 1e3, 0.5))
    assert edge.run(pixels, make_plan(4), ample).overrun_ms == pytest.approx(500 - 9)


def test_an_exit_is_read_from_its_own_row(network, images):
    """Row i of a batch is sample i's answer."""
    state = network.advance(network.start(images), 1)
    for row in range(len(images)):
        answer = exit_answer(state, 1, Tier.CLOUD, row)
        assert (answer.exit, answer.tier) == (1, Tier.CLOUD)
        assert (answer.logits == state.logits[row].numpy()).all()


def test_times_are_told(edge, pixels, make_plan, ample):
    """Blocks and coding took some time."""
    reply = edge.run(pixels, make_plan(2), ample)
    assert reply.edge_ms > 0
    assert reply.encode_ms > 0


@PARTITIONS
def test_a_block_without_an_exit_is_only_run(
    plain_edge, plain_network, pixels, make_plan, ample, partition
):
    """Of a plain network that has exits 2 and 4; a frame holds its features and no logits."""
    reply = plain_edge.run(pixels, make_plan(partition), ample)
    assert reply.blocks == partition
    found = {answer.exit: answer.logits for answer in reply.exits}
    assert list(found) == [exit_ for exit_ in (2, 4) if exit_ <= partition]
    expected = dict(zip((2, 4), plain_network(torch.from_numpy(pixels)[None]), strict=True))
    for exit_, logits in found.items():
        assert (logits == expected[exit_][0].numpy()).all()
    assert reply.complete == (partition == 4)
    if not reply.complete:
        frame = unpack(reply.frame)
        assert (frame.partition, frame.logits.size) == (partition, 0)


def test_an_exit_that_is_not_there_is_not_sure(plain_edge, pixels, make_plan, ample):
    """Whatever its threshold: the first one that is there is left at."""
    plan = make_plan(4).model_copy(update={"thresholds": (1.0,) * 4})
    reply = plain_edge.run(pixels, plan, ample)
    assert (reply.blocks, [answer.exit for answer in reply.exits]) == (2, [2])
    assert reply.complete


@pytest.mark.parametrize("partition", [0, 1, 3])
@pytest.mark.parametrize(("budget_ms", "blocks"), [(1e6, 4), (31, 3)])
def test_it_can_go_on_behind_the_partition(
    edge, network, pixels, make_plan, clock, partition, budget_ms, blocks
):
    """Block by block as far as the budget allows, on its own carry; nothing more is sent."""
    run = edge.start(pixels, make_plan(partition), Budget(budget_ms, clock))
    while run.step():
        pass
    if partition:
        assert run.reply().frame
    run.go_on()
    while run.step():
        pass
    reply = run.reply()
    assert (reply.blocks, reply.frame, reply.complete) == (blocks, b"", blocks == 4)
    exits = network(torch.from_numpy(pixels)[None])[:blocks]
    for answer, expected in zip(reply.exits, exits, strict=True):
        assert (answer.logits == expected[0].numpy()).all()


@pytest.mark.parametrize(("partition", "blocks"), [(0, 1), (1, 1), (2, 2)])
def test_going_on_may_be_forbidden(edge, pixels, make_plan, ample, partition, blocks):
    """Behind the partition, and never before the first exit, each block is asked for anew."""
    run, allowed = edge.start(pixels, make_plan(partition), ample), [False]
    run.go_on(lambda: allowed[0])
    while run.step():
        pass
    assert (run.reply().blocks, run.reply().crosses, run.reply().complete) == (blocks, False, False)
    allowed[0] = True
    assert run.finish().complete


def test_going_on_ends_at_a_sure_exit(edge, pixels, make_plan, ample):
    """As it would have before the partition."""
    run = edge.start(pixels, make_plan(1, leave_at=3), ample)
    run.go_on()
    while run.step():
        pass
    assert (run.reply().blocks, run.reply().complete) == (3, True)
