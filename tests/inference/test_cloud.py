import numpy as np
import pytest
import torch

from xpi_ray.compression.codec import IMAGE_CODEC, LADDER
from xpi_ray.errors import CodecError, FrameError
from xpi_ray.inference.answer import Tier
from xpi_ray.inference.budget import Budget
from xpi_ray.link.frame import Frame, pack, unpack
from xpi_ray.networks.progressive import State

NEVER = (0.0,) * 4


def leave_at(exit_):
    """Thresholds that are met at one exit and no other."""
    return tuple(1.0 if number == exit_ else 0.0 for number in range(1, 5))


@pytest.fixture
def frame_of(edge, images, make_plan, clock):
    """Makes the frame of one of the images, split after a block."""

    def make(partition, image=0, level=0):
        pixels = images[image].numpy()
        if partition == 0:
            empty = np.empty(0, np.float32)
            return pack(
                Frame(b"8 bytes.", 0, level, pixels.shape, empty, IMAGE_CODEC.encode(pixels))
            )
        return edge.run(pixels, make_plan(partition, level=level), Budget(1e9, clock)).frame

    return make


@pytest.fixture
def ample(clock):
    """A budget that is never used up."""
    return Budget(1e6, clock)


def drive(cloud):
    """Run until nobody waits; return the jobs in the order in which they were done."""
    done = []
    while cloud.waiting:
        batch = cloud.pick()
        cloud.advance(batch)
        done += cloud.settle(batch)
    return done


@pytest.mark.parametrize("level", range(len(LADDER)))
@pytest.mark.parametrize("partition", range(4))
def test_edge_link_and_cloud_make_the_whole_network(
    cloud, network, frame_of, images, ample, partition, level
):
    """Wherever it is split, later exits are the network's on what the codec lets through."""
    job = cloud.admit(frame_of(partition, level=level), NEVER, ample)
    assert drive(cloud) == [job]
    reply = job.reply()
    assert reply.complete
    assert [answer.exit for answer in reply.exits] == list(range(partition + 1, 5))
    assert {answer.tier for answer in reply.exits} == {Tier.CLOUD}
    state = network.start(images[:1])
    for block in range(1, partition + 1):
        state = network.advance(state, block)
    if partition:
        carry, codec = state.carry[0].numpy(), LADDER[level]
        arrived = torch.from_numpy(codec.decode(codec.encode(carry), carry.shape))
        state = State(arrived.unsqueeze(0), state.logits)
    for answer in reply.exits:
        state = network.advance(state, answer.exit)
        assert answer.logits == pytest.approx(state.logits[0].numpy(), abs=1e-4)


@pytest.mark.parametrize("partition", range(4))
def test_the_exact_level_changes_no_class(cloud, network, frame_of, images, ample, partition):
    """At level 0 every image's answer is that of the network in one call, to a thousandth."""
    whole = [exit_.numpy() for exit_ in network(images)]
    jobs = [cloud.admit(frame_of(partition, i), NEVER, ample) for i in range(len(images))]
    drive(cloud)
    for image, job in enumerate(jobs):
        for answer in job.exits:
            expected = whole[answer.exit - 1][image]
            assert answer.logits == pytest.approx(expected, abs=1e-3)
            assert answer.logits.argmax() == expected.argmax()


def test_jobs_at_one_block_run_together_and_as_if_alone(
    make_cloud, ticking, frame_of, images, ample
):
    """Twelve requests make two batches a block; nobody's answer depends on the others."""
    alone = []
    for image in range(len(images)):
        cloud = make_cloud()
        job = cloud.admit(frame_of(1, image), NEVER, ample)
        drive(cloud)
        alone.append([answer.logits for answer in job.exits])
    together = make_cloud(max_batch=8)
    jobs = [together.admit(frame_of(1, image), NEVER, ample) for image in range(len(images))]
    ticking.ran.clear()
    drive(together)
    assert sorted(ticking.ran) == [(2, 4), (2, 8), (3, 4), (3, 8), (4, 4), (4, 8)]
    for job, expected in zip(jobs, alone, strict=True):
        for answer, logits in zip(job.exits, expected, strict=True):
            assert answer.logits == pytest.approx(logits, abs=1e-5)


def test_a_sure_job_leaves_its_batch(cloud, ticking, frame_of, ample):
    """Whoever is done at an exit costs the later blocks nothing."""
    jobs = [
        cloud.admit(frame_of(1, i), leave_at(exit_), ample) for i, exit_ in enumerate((2, 3, 9))
    ]
    ticking.ran.clear()
    assert drive(cloud) == jobs
    assert ticking.ran == [(2, 3), (3, 2), (4, 1)]
    assert [len(job.exits) for job in jobs] == [1, 2, 3]
    assert all(job.reply().complete for job in jobs)
    assert cloud.waiting == 0


def test_jobs_at_other_blocks_wait_for_their_turn(cloud, frame_of, clock):
    """The most pressing request is served first, with all that wait at its block."""
    late = cloud.admit(frame_of(1, 0), NEVER, Budget(500, clock))
    first = cloud.admit(frame_of(2, 1), NEVER, Budget(100, clock))
    other = cloud.admit(frame_of(2, 2), NEVER, Budget(900, clock))
    assert cloud.pick() == [first, other]
    cloud.advance([first, other])
    assert (first.block, late.block) == (4, 2)
    assert cloud.pick() == [first, other]
    assert cloud.waiting == 3


@pytest.mark.parametrize(("budget_ms", "blocks"), [(5, 0), (10, 1), (25, 2)])
def test_a_job_out_of_time_gives_what_it_has(cloud, frame_of, clock, budget_ms, blocks):
    """No block begins that would be late; the exits in hand are the answer."""
    frame = frame_of(1)
    job = cloud.admit(frame, NEVER, Budget(budget_ms, clock))
    assert drive(cloud) == [job]
    reply = job.reply()
    assert (len(reply.exits), reply.complete) == (blocks, False)


def test_a_job_out_of_time_does_not_hold_its_batch_up(cloud, ticking, frame_of, clock):
    """It is left out of the next run, which goes on with the others."""
    frames = [frame_of(1, i) for i in range(2)]
    ticking.ran.clear()
    short = cloud.admit(frames[0], NEVER, Budget(5, clock))
    long = cloud.admit(frames[1], NEVER, Budget(1e6, clock))
    assert drive(cloud) == [short, long]
    assert ticking.ran == [(2, 1), (3, 1), (4, 1)]


def test_a_dropped_job_is_forgotten(cloud, ticking, frame_of, ample):
    """Nothing more is computed for a caller that is gone."""
    gone = cloud.admit(frame_of(1, 0), NEVER, ample)
    kept = cloud.admit(frame_of(1, 1), NEVER, ample)
    cloud.drop(gone)
    ticking.ran.clear()
    assert drive(cloud) == [kept]
    assert (gone.exits, gone.done) == ([], True)
    assert ticking.ran[0] == (2, 1)
    cloud.drop(gone)


def test_only_single_runs_teach_the_pace(cloud, frame_of, ample):
    """A batch's time is not what one image takes."""
    before = cloud._pace.expected_ms(4)
    for image in range(2):
        cloud.admit(frame_of(3, image), NEVER, ample)
    drive(cloud)
    assert cloud._pace.expected_ms(4) == before
    cloud.admit(frame_of(3), NEVER, ample)
    drive(cloud)
    assert cloud._pace.expected_ms(4) != before


def test_times_add_up(cloud, frame_of):
    """Waiting, decoding and computing are not negative, and together no more than was spent."""
    budget = Budget(1e6)
    job = cloud.admit(frame_of(1), NEVER, budget)
    drive(cloud)
    reply = job.reply()
    stages = reply.cloud_wait_ms, reply.decode_ms, reply.cloud_ms
    assert min(stages) >= 0
    assert sum(stages) <= budget.spent_ms
    assert reply.cloud_ms > 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bundle_digest": b"another."}, FrameError, "deploy the same bundle on both"),
        ({"partition": 4}, FrameError, "partition 4 leaves no block to run"),
        ({"partition": 3}, FrameError, r"after block 3 expected a carry of \(7, 3, 2\)"),
        ({"shape": (5, 3, 6)}, FrameError, r"expected a carry of .* got \(5, 3, 6\)"),
        ({"logits": np.zeros(4, np.float32)}, FrameError, "5 logits, got .* and 4"),
        ({"level": 3}, FrameError, r"level 3 is not on the ladder 0\.\.2"),
        ({"level": 1}, CodecError, "expected"),
        ({"payload": b""}, CodecError, "expected a payload"),
        ({"payload": bytes(30)}, CodecError, "expected"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else None,
)
def test_foreign_frames_are_refused(cloud, frame_of, ample, change, error, message):
    """A frame for another bundle, split, shape or level is refused, and nothing waits for it."""
    frame = unpack(frame_of(2))._replace(**change)
    with pytest.raises(error, match=message):
        cloud.admit(pack(frame), NEVER, ample)
    assert cloud.waiting == 0


def test_an_image_of_another_size_is_refused(cloud, ample):
    """At partition 0 the frame must hold an image of the network's size."""
    frame = Frame(b"8 bytes.", 0, 0, (3, 6, 10), np.empty(0, np.float32), bytes(180))
    with pytest.raises(FrameError, match=r"expected a carry of \(3, 10, 6\)"):
        cloud.admit(pack(frame), NEVER, ample)


@pytest.mark.parametrize("data", [b"", b"XPIF", bytes(100)])
def test_what_is_no_frame_is_refused(cloud, ample, data):
    """Bytes that are no frame raise FrameError."""
    with pytest.raises(FrameError):
        cloud.admit(data, NEVER, ample)
