import asyncio
import logging
from dataclasses import asdict
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from xpi_ray.compression.image import decode_image, encode_image
from xpi_ray.compression.ladder import LEVELS
from xpi_ray.errors import (
    CodecError,
    DeadlineError,
    FrameError,
    OverloadError,
    TierLostError,
    UnavailableError,
)
from xpi_ray.inference import flow as flow_module
from xpi_ray.inference.answer import Status, Tier
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.flow import ANSWER_MS, EDGE_LEAST_MS, Flow
from xpi_ray.link.estimator import LinkEstimate
from xpi_ray.link.frame import unpack
from xpi_ray.telemetry.tracing import Tracing

DIGEST = b"8 bytes."
HOUR_S = 3_600.0


def exits_of(answer):
    """Exit numbers and tiers, in order."""
    return [(exit_.exit, exit_.tier.value) for exit_ in answer.exits]


EDGE_2 = [(1, "edge"), (2, "edge")]
CLOUD_2 = [(3, "cloud"), (4, "cloud")]
ALL_CLOUD = [(1, "cloud"), (2, "cloud"), *CLOUD_2]


def check(answer, budget):
    """What holds for every answer: its stages are times, and fit into its total."""
    stages = asdict(answer.stages)
    assert min(stages.values()) >= 0
    total_ms = stages.pop("total_ms")
    assert sum(stages.values()) <= total_ms + 0.1
    assert answer.deadline_ms == budget.given_ms
    assert answer.budget_left_ms + total_ms == pytest.approx(budget.given_ms, abs=1.0)


async def test_a_sure_edge_answers_alone(flow, tiers, pixels, make_plan):
    """An exit that is sure at the edge completes the request, and the cloud is not asked."""
    budget = Budget(10_000)
    answer = await flow.answer(pixels, make_plan(3, leave_at=2), budget)
    assert (answer.status, exits_of(answer)) == (Status.COMPLETE, EDGE_2)
    assert (answer.plan_version, answer.partition, answer.level) == (3, 3, 0)
    assert (answer.frame_bytes, [tier for tier, _ in tiers.asked]) == (0, ["edge"])
    assert answer.stages.edge_ms > 0
    assert answer.stages.link_ms == answer.stages.cloud_ms == 0
    check(answer, budget)


@pytest.mark.parametrize("partition", range(5))
async def test_wherever_it_is_split_every_exit_is_the_networks(
    flow, tiers, network, pixels, make_plan, partition
):
    """All N exits come in order, from edge and cloud, as the network has them in one call."""
    budget = Budget(10_000)
    answer = await flow.answer(pixels, make_plan(partition), budget)
    assert answer.status is Status.COMPLETE
    assert answer.partition == partition
    assert (answer.edge_blocks, answer.cloud_blocks) == (partition, 4 - partition)
    tiers_of = ["edge"] * partition + ["cloud"] * (4 - partition)
    assert exits_of(answer) == list(zip(range(1, 5), tiers_of, strict=True))
    for exit_, expected in zip(
        answer.exits, network(torch.from_numpy(pixels).unsqueeze(0)), strict=True
    ):
        assert exit_.logits == pytest.approx(expected[0].numpy(), abs=2e-2)
    assert answer.frame_bytes == sum(map(len, tiers.frames))
    check(answer, budget)


async def test_a_sure_cloud_completes(flow, pixels, make_plan):
    """The cloud leaves early too, and its stages are told."""
    budget = Budget(10_000)
    answer = await flow.answer(pixels, make_plan(2, leave_at=3), budget)
    assert (answer.status, exits_of(answer)) == (Status.COMPLETE, [*EDGE_2, (3, "cloud")])
    assert min(answer.stages.encode_ms, answer.stages.decode_ms, answer.stages.cloud_ms) > 0
    check(answer, budget)


async def test_a_surer_edge_answers_for_the_cloud(flow, tiers, pixels, make_plan):
    """Where that is trusted, and only if it is surer."""
    tiers.trusted[:] = True
    answer = await flow.answer(pixels, make_plan(2), Budget(10_000))
    assert answer.best is min(answer.exits[1], answer.exits[3], key=lambda exit_: exit_.entropy)


async def test_partition_0_goes_straight_to_the_cloud(flow, tiers, pixels, make_plan):
    """The image itself is sent, and the edge is not asked."""
    answer = await flow.answer(pixels, make_plan(0), Budget(10_000))
    assert [tier for tier, _ in tiers.asked] == ["cloud"]
    frame = unpack(tiers.frames[0])
    assert (frame.partition, frame.logits.size) == (0, 0)
    assert (decode_image(frame.segments[0], (10, 6)) == pixels).all()
    assert exits_of(answer) == ALL_CLOUD


async def test_the_clients_own_file_goes_where_it_is_smaller(flow, tiers, make_plan):
    """A lossy photo crosses as it is, with the answer of its pixels; a larger file does not."""
    noise = np.random.default_rng(0).integers(0, 256, (10, 6, 3), np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, "WEBP", quality=1)
    photo = buffer.getvalue()
    pixels = decode_image(photo, (10, 6))
    own = encode_image(pixels)
    assert len(photo) < len(own)
    answers = [
        await flow.answer(pixels, make_plan(0), Budget(10_000), file=file)
        for file in (photo, own + b"longer", b"")
    ]
    assert (answers[0].best.logits == answers[2].best.logits).all()
    sent = [unpack(frame).segments[0] for frame in tiers.frames]
    assert sent == [photo, own, own]


@pytest.mark.parametrize(
    "fault",
    [TierLostError("gone"), OverloadError("full"), FrameError("?"), CodecError("?"), HOUR_S],
)
async def test_with_an_exit_in_hand_no_cloud_is_an_error(
    flow, tiers, pixels, make_plan, fault, exporter, tracing
):
    """Dead, full, of another bundle or late: the edge's exit is the best effort, and in time."""
    tiers.fault["cloud"] = fault
    budget = Budget(300)
    answer = await flow.answer(pixels, make_plan(2), budget)
    assert (answer.status, exits_of(answer)) == (Status.BEST_EFFORT, EDGE_2)
    assert answer.frame_bytes > 0
    assert answer.stages.cloud_ms == answer.stages.link_ms == 0
    assert tiers.given_up == (["cloud"] if fault is HOUR_S else [])
    tracing.flush()
    (span,) = exporter.get_finished_spans()
    expected = "TimeoutError" if fault is HOUR_S else type(fault).__name__
    assert span.attributes["xpi.error"] == expected
    check(answer, budget)


async def test_a_cloud_of_another_bundle_is_logged(flow, tiers, pixels, make_plan, caplog):
    """A refused frame is a fault of the deployment: somebody must see it."""
    tiers.fault["cloud"] = FrameError("deploy the same bundle on both")
    with caplog.at_level(logging.ERROR):
        await flow.answer(pixels, make_plan(2), Budget(10_000))
    assert "deploy the same bundle on both" in caplog.text


async def test_a_dead_edge_leaves_it_to_the_cloud(flow, tiers, pixels, make_plan):
    """The image goes to the cloud, which runs every block; the answer says partition 0."""
    tiers.fault["edge"] = TierLostError("gone")
    budget = Budget(10_000)
    answer = await flow.answer(pixels, make_plan(2), budget)
    assert (answer.status, exits_of(answer)) == (Status.COMPLETE, ALL_CLOUD)
    assert answer.partition == 0
    assert answer.stages.edge_ms == 0
    check(answer, budget)


async def test_both_dead_is_unavailable(flow, tiers, pixels, make_plan, check_refusal):
    """With time left and nobody to ask, the client shall come back later."""
    tiers.fault.update(edge=TierLostError("gone"), cloud=TierLostError("gone"))
    answer = await flow.answer(pixels, make_plan(2), Budget(10_000))
    check_refusal(answer, UnavailableError, "neither edge nor cloud")


async def test_a_full_edge_is_told_to_the_client(flow, tiers, pixels, make_plan, check_refusal):
    """Too many wait at the edge: the client shall come back later."""
    tiers.fault["edge"] = OverloadError("full")
    answer = await flow.answer(pixels, make_plan(2), Budget(10_000))
    check_refusal(answer, OverloadError, "full")
    assert not tiers.frames


async def test_a_slow_edge_misses_the_deadline(flow, tiers, pixels, make_plan, check_refusal):
    """No exit in time is an error that names the deadline, and the call is taken back."""
    tiers.fault["edge"] = HOUR_S
    answer = await flow.answer(pixels, make_plan(2), Budget(50))
    check_refusal(answer, DeadlineError, "deadline of 50 ms does not allow the first exit")
    assert tiers.given_up == ["edge"]


@pytest.mark.parametrize("partition", [0, 2])
@pytest.mark.parametrize(("given_ms", "spent_ms"), [(0.001, 0.0), (1.0, 0.0), (100.0, 99.0)])
async def test_too_short_a_deadline_is_said_so(
    flow, tiers, pixels, make_plan, check_refusal, partition, given_ms, spent_ms
):
    """A budget that allows no exit, or was spent before, is a DeadlineError."""
    budget = Budget(given_ms, spent_ms=spent_ms)
    answer = await flow.answer(pixels, make_plan(partition), budget)
    check_refusal(answer, DeadlineError, f"deadline of {given_ms:g} ms")


async def test_an_edge_out_of_time_is_the_best_effort(flow, tiers, pixels, make_plan):
    """Exits that ran are the answer when the budget does not allow the next block."""
    tiers.edge_side._pace._step_ms[3] = 1e9
    answer = await flow.answer(pixels, make_plan(3), Budget(10_000))
    assert (answer.status, exits_of(answer)) == (Status.BEST_EFFORT, EDGE_2)
    assert not tiers.frames


async def test_a_cloud_out_of_time_is_the_best_effort(flow, tiers, pixels, make_plan):
    """What the cloud got done counts, though it was not sure and not at the end."""
    tiers.cloud_side._pace._step_ms[4] = 1e9
    budget = Budget(10_000)
    answer = await flow.answer(pixels, make_plan(2), budget)
    assert (answer.status, exits_of(answer)) == (Status.BEST_EFFORT, [*EDGE_2, (3, "cloud")])
    check(answer, budget)


@pytest.mark.parametrize("tier", ["edge", "cloud"])
async def test_what_a_crossing_takes_is_kept_back(flow, tiers, pixels, make_plan, tier):
    """Once a crossing was seen, a tier gets that much less, so that its best effort is in time."""
    tiers.fault[tier] = 0.2
    plan = make_plan(partition=2)
    for _ in range(2):
        await flow.answer(pixels, plan, Budget(10_000))
    first_ms, second_ms = tiers.budgets_ms[tier]
    assert second_ms <= first_ms - 100


async def test_a_jittery_edge_is_not_asked_at_the_last_moment(flow, tiers, pixels, make_plan):
    """Where one call in eight takes 60 ms longer, that is kept back: a late reply loses all."""
    plan = make_plan(partition=4)
    for call in range(16):
        tiers.fault["edge"] = 0.06 if call % 8 == 0 else None
        await flow.answer(pixels, plan, Budget(10_000))
    assert tiers.budgets_ms["edge"][-1] < 10_000 - 60


async def test_the_edge_is_done_before_its_reply_would_be_lost(flow, tiers, pixels, make_plan):
    """The first request already leaves it time to hand over what it has when its budget ends."""
    await flow.answer(pixels, make_plan(partition=4), Budget(10_000))
    assert tiers.budgets_ms["edge"][0] <= 10_000 - ANSWER_MS - EDGE_LEAST_MS


async def test_a_wait_at_the_edge_is_not_kept_back(tiers, pixels, make_plan):
    """How long a request waited for its turn says nothing of the next one's way."""

    async def queued(*call):
        return (await tiers.edge(*call))._replace(wait_ms=60.0)

    tiers.fault["edge"] = 0.06
    flow = Flow(queued, tiers.cloud, DIGEST, Tracing("router"))
    for _ in range(4):
        await flow.answer(pixels, make_plan(partition=4), Budget(10_000))
    assert tiers.budgets_ms["edge"][-1] > 10_000 - 50


async def test_an_overrun_at_the_edge_is_kept_back(tiers, pixels, make_plan):
    """Where last blocks take 100 ms longer than expected, the edge gets as much less time."""

    async def overrunning(*call):
        return (await tiers.edge(*call))._replace(overrun_ms=100.0)

    flow = Flow(overrunning, tiers.cloud, DIGEST, Tracing("router"))
    for _ in range(4):
        await flow.answer(pixels, make_plan(partition=4), Budget(10_000))
    assert tiers.budgets_ms["edge"][-1] < 10_000 - 100


async def test_nothing_is_sent_that_cannot_be_back_in_time(flow, tiers, pixels, make_plan):
    """Once crossings were seen to take 300 ms, a request with 200 ms left is not sent."""
    tiers.fault["cloud"] = 0.3
    first = await flow.answer(pixels, make_plan(2), Budget(10_000))
    assert first.stages.link_ms > 200
    second = await flow.answer(pixels, make_plan(2), Budget(10_000, spent_ms=9_800))
    assert (second.status, exits_of(second)) == (Status.BEST_EFFORT, EDGE_2)
    assert (len(tiers.frames), second.frame_bytes) == (1, 0)


async def test_an_image_may_follow_unsure_exits(flow, tiers, pixels, make_plan):
    """The cloud runs all blocks anew; exits that the edge had come to count once."""
    answer = await flow.answer(pixels, make_plan(2, level=LEVELS), Budget(10_000))
    assert (answer.status, exits_of(answer)) == (Status.COMPLETE, EDGE_2 + CLOUD_2)
    assert (answer.edge_blocks, answer.cloud_blocks, answer.cloud_from) == (2, 4, 0)
    assert (answer.partition, answer.stages.encode_ms) == (2, 0)
    frame = unpack(tiers.frames[0])
    assert frame.partition == 0
    assert (decode_image(frame.segments[0], (10, 6)) == pixels).all()
    record = answer.record("", "", "")
    assert (record.cloud_from, record.partition, record.level) == (0, 2, LEVELS)


async def test_a_carry_lets_the_cloud_begin_behind_it(flow, tiers, pixels, make_plan):
    """And the record says behind which block."""
    answer = await flow.answer(pixels, make_plan(2), Budget(10_000))
    assert answer.record("", "", "").cloud_from == 2
    tiers.fault["cloud"] = TierLostError("gone")
    lost = await flow.answer(pixels, make_plan(2), Budget(10_000))
    assert lost.record("", "", "").cloud_from == 0


@pytest.mark.parametrize("lost", ["edge", "cloud"])
async def test_a_lost_tier_is_left_alone_for_a_while(
    flow, tiers, pixels, make_plan, lost, monkeypatch
):
    """After a loss the next requests do without; after its rest the tier is asked again."""
    monkeypatch.setattr(flow_module, "REST_S", HOUR_S)
    tiers.fault[lost] = TierLostError("gone")
    expected = EDGE_2 if lost == "cloud" else ALL_CLOUD
    for _ in range(3):
        answer = await flow.answer(pixels, make_plan(2), Budget(10_000))
        assert exits_of(answer) == expected
        assert answer.partition == (0 if lost == "edge" else 2)
    assert [tier for tier, _ in tiers.asked].count(lost) == 1
    tiers.fault[lost] = None
    flow._rests_until_s[Tier(lost)] = 0.0
    answer = await flow.answer(pixels, make_plan(2), Budget(10_000))
    assert exits_of(answer) == EDGE_2 + CLOUD_2


async def test_a_slow_link_gets_the_layers_that_it_carries_in_time(
    flow, tiers, pixels, make_plan, monkeypatch
):
    """Where the whole frame would be late, leading segments go, and the answer is complete."""
    await flow.answer(pixels, make_plan(2), Budget(10_000))
    slow = LinkEstimate(bandwidth_bps=1_000, round_trip_s=0, spread=0)
    monkeypatch.setattr(flow._link, "estimate", lambda _: slow)
    whole = unpack(tiers.frames[0])
    answer = await flow.answer(pixels, make_plan(2), Budget(8 * len(tiers.frames[0]) / 2))
    sent = unpack(tiers.frames[1])
    assert sent.segments == whole.segments[: len(sent.segments)]
    assert 1 <= len(sent.segments) < len(whole.segments)
    assert answer.frame_bytes == len(tiers.frames[1])
    assert exits_of(answer) == EDGE_2 + CLOUD_2


async def test_an_answer_tells_what_the_link_is_believed_to_carry(flow, pixels, make_plan):
    """After a crossing; an answer of the edge alone says nothing of it."""
    crossed = await flow.answer(pixels, make_plan(2), Budget(10_000))
    assert crossed.link_bps > 0
    assert crossed.round_trip_ms > 0
    stayed = await flow.answer(pixels, make_plan(4), Budget(10_000))
    assert (stayed.link_bps, stayed.round_trip_ms) == (0, 0)


async def test_a_cloud_that_never_answers_in_time_lowers_the_links_rate(
    flow, tiers, pixels, make_plan
):
    """Frames that wait in vain tell too, so that later ones can be cut to what may still arrive."""
    await flow.answer(pixels, make_plan(2), Budget(10_000))
    tiers.fault["cloud"] = 60
    believed = []
    for _ in range(6):
        answer = await flow.answer(pixels, make_plan(2), Budget(150))
        assert (answer.status, exits_of(answer)) == (Status.BEST_EFFORT, EDGE_2)
        believed.append(answer.link_bps)
    assert 0 < believed[-1] < believed[0]


async def test_requests_do_not_mix(flow, tiers, network, images, make_plan):
    """Many at a time on one event loop each get their own image's answer."""
    tiers.fault.update(edge=0.001, cloud=0.001)
    answers = await asyncio.gather(
        *(flow.answer(image.numpy(), make_plan(2), Budget(10_000)) for image in images)
    )
    for answer, expected in zip(answers, network(images)[-1], strict=True):
        assert answer.best.logits == pytest.approx(expected.numpy(), abs=2e-2)


async def test_the_links_span_is_between_router_and_cloud(
    flow, tiers, pixels, make_plan, exporter, tracing
):
    """The edge continues the request's own span, the cloud that of the link."""
    with tracing.span("xpi.request") as request:
        await flow.answer(pixels, make_plan(2), Budget(10_000), request.traceparent)
    tracing.flush()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    link = spans["xpi.link"]
    assert link.parent.span_id == spans["xpi.request"].context.span_id
    assert dict(tiers.asked)["edge"] == request.traceparent
    assert format(link.context.span_id, "016x") in dict(tiers.asked)["cloud"]
    assert link.attributes["xpi.frame_bytes"] == len(tiers.frames[0])
    assert (link.attributes["xpi.partition"], link.attributes["xpi.level"]) == (2, 0)
