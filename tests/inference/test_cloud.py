import numpy as np
import pytest
import torch

from xpi_ray.compression.image import encode_image
from xpi_ray.compression.ladder import LAYERS, LEVELS
from xpi_ray.errors import CodecError, FrameError
from xpi_ray.exits.confidence import exit_entropy
from xpi_ray.inference.answer import Tier
from xpi_ray.inference.budget import Budget
from xpi_ray.link.frame import Frame, cut, pack, unpack
from xpi_ray.networks.progressive import State

NEVER = (0.0,) * 4
NOISE = np.random.default_rng(0).integers(0, 256, (3, 10, 6), np.uint8)


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
            return pack(Frame(b"8 bytes.", 0, level, empty, (encode_image(pixels),)))
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


@pytest.mark.parametrize("level", range(LEVELS))
@pytest.mark.parametrize("partition", range(4))
def test_edge_link_and_cloud_make_the_whole_network(
    cloud, network, ladder, frame_of, images, ample, partition, level
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
        segments = ladder.encode(state.carry[0].numpy(), partition, level)
        arrived = torch.from_numpy(ladder.decode(segments, partition, level))
        state = State(arrived.unsqueeze(0), state.logits.half().float())
    for answer in reply.exits:
        state = network.advance(state, answer.exit)
        assert answer.logits == pytest.approx(state.logits[0].numpy(), abs=1e-4)


@pytest.mark.parametrize("partition", range(4))
def test_the_exact_level_changes_no_class(cloud, network, frame_of, images, ample, partition):
    """At level 0 every image's answer is that of the network in one call, to a fiftieth."""
    whole = [exit_.numpy() for exit_ in network(images)]
    jobs = [cloud.admit(frame_of(partition, i), NEVER, ample) for i in range(len(images))]
    drive(cloud)
    for image, job in enumerate(jobs):
        for answer in job.exits:
            expected = whole[answer.exit - 1][image]
            assert answer.logits == pytest.approx(expected, abs=2e-2)
            assert answer.logits.argmax() == expected.argmax()


@pytest.mark.parametrize("level", [0, LEVELS - 1])
@pytest.mark.parametrize("partition", range(4))
def test_the_edges_exit_answers_where_it_is_surer_and_trusted(
    make_cloud, frame_of, images, ample, partition, level
):
    """It is compared by the level that arrives; untrusted, it never answers."""
    trusted = np.zeros((LEVELS, 4), np.bool_)
    trusted[level] = True
    surer = []
    for image in range(len(images)):
        frame = frame_of(partition, image, level)
        for table in (trusted, ~trusted):
            cloud = make_cloud(edge_trusted=table)
            job = cloud.admit(frame, NEVER, ample)
            drive(cloud)
            reply = job.reply()
            if table is not trusted or partition == 0:
                assert not reply.edge_is_surer
                continue
            edge = exit_entropy(unpack(frame).logits)
            assert reply.edge_is_surer == (edge < reply.exits[-1].entropy)
            surer.append(reply.edge_is_surer)
    assert partition == 0 or len(surer) == len(images)


def test_a_frame_cut_short_is_judged_by_what_arrives(make_cloud, frame_of, ample):
    """Without its last layers it is worth a coarser level, where the edge may be trusted more."""
    trusted = np.zeros((LEVELS, 4), np.bool_)
    trusted[LAYERS - 1] = True
    whole = frame_of(2)
    for frame, compared in ((whole, False), (cut(whole, len(whole) // 3), True)):
        job = make_cloud(edge_trusted=trusted).admit(frame, NEVER, ample)
        assert (job.edge_entropy <= 1) == compared


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
        ({"logits": np.zeros(4, np.float32)}, FrameError, "after block 2 expected 5 logits, got 4"),
        ({"level": 7}, FrameError, r"level 7 is not on the ladder 0\.\.6"),
        (
            {"segments": (bytes(range(256)),)},
            CodecError,
            "expected symbols that end where 256 bytes",
        ),
        ({"segments": (b"",) * 10}, CodecError, r"expected 1\.\.9 segments, got 10"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else None,
)
def test_foreign_frames_are_refused(cloud, frame_of, ample, change, error, message):
    """A frame for another bundle, split or level is refused, and nothing waits for it."""
    frame = unpack(frame_of(2))._replace(**change)
    with pytest.raises(error, match=message):
        cloud.admit(pack(frame), NEVER, ample)
    assert cloud.waiting == 0


@pytest.mark.parametrize("image", [b"", b"no image", encode_image(NOISE)[:-9]])
def test_what_is_no_image_is_refused(cloud, ample, image):
    """At partition 0 the frame must hold a whole image file."""
    frame = Frame(b"8 bytes.", 0, 0, np.empty(0, np.float32), (image,))
    with pytest.raises(CodecError, match="at partition 0"):
        cloud.admit(pack(frame), NEVER, ample)


@pytest.mark.parametrize("data", [b"", b"XPIF", bytes(100)])
def test_what_is_no_frame_is_refused(cloud, ample, data):
    """Bytes that are no frame raise FrameError."""
    with pytest.raises(FrameError):
        cloud.admit(data, NEVER, ample)


@pytest.fixture
def plain_frame(plain_edge, images, make_plan, clock):
    """Makes the frame of one of the images by the plain network, split after a block."""

    def make(partition, image=0):
        pixels = images[image].numpy()
        return plain_edge.run(pixels, make_plan(partition), Budget(1e9, clock)).frame

    return make


@pytest.mark.parametrize("partition", [1, 2, 3])
def test_a_plain_network_goes_on_without_logits(
    plain_cloud, plain_network, plain_frame, images, ample, partition
):
    """Its later exits are the network's; the edge's is not compared, though it is trusted."""
    job = plain_cloud.admit(plain_frame(partition), NEVER, ample)
    assert drive(plain_cloud) == [job]
    reply = job.reply()
    assert (reply.blocks, reply.complete, reply.edge_is_surer) == (4 - partition, True, False)
    assert [answer.exit for answer in reply.exits] == ([2, 4] if partition == 1 else [4])
    expected = dict(zip((2, 4), plain_network(images[:1]), strict=True))
    for answer in reply.exits:
        assert answer.logits == pytest.approx(expected[answer.exit][0].numpy(), abs=1e-5)


def test_those_from_the_link_join_those_from_the_block_before(
    plain_cloud, plain_ticking, plain_network, plain_frame, images, ample
):
    """Behind an exit that only one of the two ran here, both are one batch."""
    jobs = [plain_cloud.admit(plain_frame(1, 0), NEVER, ample)]
    plain_cloud.advance(jobs)
    jobs.append(plain_cloud.admit(plain_frame(2, 1), NEVER, ample))
    plain_ticking.ran.clear()
    drive(plain_cloud)
    assert plain_ticking.ran == [(3, 2), (4, 2)]
    for job, expected in zip(jobs, plain_network(images[:2])[-1], strict=True):
        assert job.exits[-1].logits == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize(("budget_ms", "blocks"), [(5, 0), (10, 1), (1e6, 2)])
def test_blocks_are_told_where_no_exit_ran(plain_cloud, plain_frame, clock, budget_ms, blocks):
    """Block 3 has none, so only block 4 answers."""
    job = plain_cloud.admit(plain_frame(2), (1.0,) * 4, Budget(budget_ms, clock))
    drive(plain_cloud)
    reply = job.reply()
    assert (reply.blocks, len(reply.exits), reply.complete) == (blocks, blocks // 2, blocks == 2)


def test_logits_that_nothing_reads_are_refused(plain_cloud, plain_frame, ample):
    """The frame is of a network that fuses exits, or of a faulty edge."""
    frame = unpack(plain_frame(2))._replace(logits=np.zeros(5, np.float32))
    with pytest.raises(FrameError, match="after block 2 expected 0 logits, got 5"):
        plain_cloud.admit(pack(frame), NEVER, ample)
