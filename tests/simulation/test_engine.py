from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpi_ray.inference.flow import ANSWER_MS, EDGE_LEAST_MS
from xpi_ray.link.estimator import LinkEstimator
from xpi_ray.policies.base import Decision
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.cluster import Cluster

OVER_MS = ANSWER_MS + EDGE_LEAST_MS  # less than the deadline has the edge
NEVER, ALWAYS = (0.0,) * 4, (1.0,) * 4
DECISIONS = st.builds(
    Decision,
    st.integers(0, 4),
    st.sampled_from([NEVER, ALWAYS, (0.3,) * 4, (0.0, 0.5, 0.5, 0.0)]),
    st.integers(0, 2),
)


def run(setting, sites, decision=None):
    """All requests' rows, and their order, under one plan for all."""
    cluster = Cluster(setting, sites)
    for site in range(len(sites)):
        cluster.set_plans(site, [decision or setting.static] * len(setting.classes))
    ended = cluster.advance(np.inf)
    return cluster.requests, ended


def test_a_request_alone_takes_what_its_stages_take(setting, make_site):
    """Work, blocks, encoding, hop, link, decoding and blocks add up, and nothing waits."""
    ((row,), _) = run(setting, [make_site([7.0], samples=3)])
    link_ms = 1 + 10 + 8 * 600 / 8e6 * 1000
    assert row[at.TOTAL] == pytest.approx(0.6 + 1 + 2 + 0.5 + link_ms + 0.25 + 3 + 4)
    assert row[[at.EDGE_MS, at.ENCODE_MS, at.EDGE_WAIT]] == pytest.approx([3, 0.5, 0])
    assert row[at.LINK_MS] == pytest.approx(link_ms)
    assert row[[at.DECODE_MS, at.CLOUD_MS, at.CLOUD_WAIT]] == pytest.approx([0.25, 7, 0])
    assert (row[at.STATUS], row[at.EDGE_BLOCKS], row[at.BLOCK]) == (at.ANSWERED, 2, 4)


def test_the_edge_is_a_queue_with_one_server(with_machines, make_site):
    """With random arrivals and equal work, the mean wait is Pollaczek and Khinchine's."""
    rng = np.random.default_rng(0)
    count, busy, work_ms = 200_000, 0.7, 1 + 2 + 3 + 4
    arrivals = np.cumsum(rng.exponential(work_ms / busy, count))
    site = make_site(arrivals, deadlines_ms=1e12, work_ms=0.0)
    rows, _ = run(with_machines(most_open=count), [site], Decision(4, NEVER, 0))
    assert (rows[:, at.STATUS] == at.ANSWERED).all()
    expected_ms = busy * work_ms / (2 * (1 - busy))
    assert rows[:, at.EDGE_WAIT].mean() == pytest.approx(expected_ms, rel=0.03)


def test_a_wait_at_the_edge_is_not_kept_back(setting, make_site):
    """After requests that waited for each other, one alone has all its time for its blocks."""
    site = make_site([0.0] * 20 + [500.0], deadlines_ms=[400.0] * 20 + [10.7 + OVER_MS])
    rows, _ = run(setting, [site], Decision(4, NEVER, 0))
    assert rows[-2, at.EDGE_WAIT] > 100
    assert (rows[-1, at.STATUS], rows[-1, at.EXIT]) == (at.ANSWERED, 4)


def test_an_overrun_at_the_edge_is_kept_back(setting, make_site):
    """Where every other request's blocks take half as long again, that is left for the next one."""
    deadlines_ms = [400.0] * 40 + [10.7 + OVER_MS] * 2
    site = make_site(500.0 * np.arange(42), deadlines_ms=deadlines_ms, edge_factors=[1.0, 1.5] * 21)
    rows, _ = run(setting, [site], Decision(4, NEVER, 0))
    assert (rows[:40, at.EXIT] == 4).all()
    assert list(rows[40:, at.STATUS]) == [at.BEST_EFFORT] * 2
    assert list(rows[40:, at.EXIT]) == [3, 3]


def test_a_long_block_that_is_not_done_in_time_is_not_waited_for(setting, make_site):
    """The exit before it answers when time is up; the next request waits for its end."""
    arrivals, deadlines_ms = [0.0, 20.0], [28.0 + OVER_MS, 400.0]
    told = {"edge_slowdown": 2.0, "edge_factors": [1.5, 1.0], "work_ms": 0.0}
    site = make_site(arrivals, deadlines_ms=deadlines_ms, **told)
    ((late, after), _) = run(setting, [site], Decision(4, NEVER, 0))
    assert (late[at.STATUS], late[at.EXIT]) == (at.BEST_EFFORT, 3)
    assert late[at.TOTAL] == pytest.approx(28.0)
    assert late[[at.EDGE_MS, at.EDGE_WAIT]] == pytest.approx([18, 10])
    assert after[at.EDGE_WAIT] == pytest.approx(1.5 * 20 - 20)


def test_what_the_edge_has_no_time_for_goes_to_the_cloud_whole(setting, make_site):
    """Of a burst that keeps the edge busy for a second all are answered in time, by either tier."""
    site = make_site(np.arange(100.0), deadlines_ms=150.0)
    rows, _ = run(setting, [site], Decision(4, NEVER, 0))
    whole = rows[:, at.PARTITION] == 0
    assert 0 < whole.sum() < 100
    assert (rows[whole, at.SENT] > 0).all()
    assert (rows[~whole, at.EXIT] > 0).all()
    assert (rows[:, at.TOTAL] <= 150).all()
    alone, _ = run(replace(setting, reroutes=False), [site], Decision(4, NEVER, 0))
    assert (alone[:, at.PARTITION] == 4).all()
    assert (alone[:, at.STATUS] == at.MISSED).mean() > 0.4


def test_a_silent_link_is_tried_by_one_request_at_a_time(setting, make_site, steady):
    """The others' later blocks run at the edge, which answers all; else each waits in vain."""
    site = make_site(40.0 * np.arange(50), deadlines_ms=150.0, trace=steady(100.0))
    rows, _ = run(setting, [site], Decision(2, NEVER, 0))
    sent = rows[:, at.SENT] > 0
    assert sent[0]
    assert 10 < sent.sum() < 20
    begins, ends = rows[sent, at.SENT], (rows[:, at.ARRIVED] + rows[:, at.TOTAL])[sent]
    late = begins > ends[0]  # by then the first has waited in vain
    assert (begins[late][1:] >= ends[late][:-1]).all()
    last_at_edge = rows[~sent & (rows[:, at.ARRIVED] > 200), at.EXIT]
    assert (last_at_edge == 4).all()
    told, _ = run(replace(setting, reroutes=False), [site], Decision(2, NEVER, 0))
    assert (told[:, at.SENT] > 0).all()


def test_where_a_reply_is_in_doubt_the_edge_goes_on(setting, make_site, steady):
    """Alone, a request that tries a silent link has the edge's last exit when it is given up."""
    site = make_site([0.0, 300.0, 600.0, 620.0], deadlines_ms=150.0, trace=steady(100.0))
    rows, _ = run(setting, [site], Decision(2, NEVER, 0))
    assert list(rows[:, at.EXIT]) == [2, 4, 4, 4]
    assert list(rows[:, at.SENT] > 0) == [True, True, True, False]
    assert (rows[:, at.TOTAL] <= 150 - ANSWER_MS + 1e-6).all()
    image = Decision(2, NEVER, len(setting.outcomes.frame_bytes))
    imaging = replace(setting, outcomes=setting.outcomes.with_images())
    first, _ = run(imaging, [site], image)
    assert list(first[:, at.EXIT]) == [2, 4, 4, 4]


def test_nobody_waits_for_the_later_blocks_of_another(setting, make_site, steady):
    """Beyond the partition an edge whose link is silent goes on only for a request alone."""
    arrivals = [0.0, 151.0, 156.0, 156.0, 156.0]
    site = make_site(arrivals, deadlines_ms=149.0, trace=steady(100.0), work_ms=0.0)
    rows, _ = run(setting, [site], Decision(2, NEVER, 0))
    assert list(rows[2:, at.EXIT]) == [2, 2, 4]


def test_a_slow_encoding_is_left_out_where_there_is_no_time(setting, make_site):
    """An edge that needs 15 ms to encode sends what has the time for it, and answers else."""
    site = make_site([0.0, 500.0], deadlines_ms=[100.0, 16.0 + OVER_MS], encode_slowdown=30.0)
    ((roomy, tight), _) = run(setting, [site], Decision(2, NEVER, 0))
    assert (roomy[at.STATUS], roomy[at.ENCODE_MS]) == (at.ANSWERED, 15.0)
    assert (tight[at.STATUS], tight[at.EXIT], tight[at.SENT]) == (at.BEST_EFFORT, 2, 0)


def check(setting, site, rows, ended):
    """What holds for any site under any plan."""
    arrived, total = rows[:, at.ARRIVED], rows[:, at.TOTAL]
    status, exit_ = rows[:, at.STATUS], rows[:, at.EXIT].astype(int)
    assert len(ended) == len(rows) == len(site.arrivals)
    assert set(status) <= {at.ANSWERED, at.BEST_EFFORT, at.MISSED, at.OVERLOADED}
    ends = ended[:, at.ARRIVED] + ended[:, at.TOTAL]
    assert (np.diff(ends) >= -1e-9).all()
    assert sorted(ended[:, at.ARRIVED]) == sorted(arrived)
    assert (total >= 0).all()
    answered = status <= at.BEST_EFFORT
    # Only what the router reads after its deadline is noticed later.
    late = site.work_ms * rows[:, at.EDGE_FACTOR]
    assert (total <= np.maximum(rows[:, at.DEADLINE] - ANSWER_MS, late) + 1e-6).all()
    assert ((exit_ > 0) == answered).all()
    assert (exit_[status == at.ANSWERED] > 0).all()
    crossed = answered & (rows[:, at.LINK_MS] > 0)
    stages = rows[:, [at.EDGE_WAIT, at.EDGE_MS, at.ENCODE_MS]].sum(1)
    there = rows[:, [at.LINK_MS, at.CLOUD_WAIT, at.DECODE_MS, at.CLOUD_MS]].sum(1)
    assert total[crossed] == pytest.approx((late + stages + there)[crossed])
    stayed = answered & (rows[:, at.SENT] == 0)
    assert total[stayed] == pytest.approx((late + stages)[stayed])
    sample, partition = rows[:, at.SAMPLE].astype(int), rows[:, at.PARTITION].astype(int)
    level, outcomes = rows[:, at.LEVEL].astype(int), setting.outcomes
    for row in np.flatnonzero(answered):
        if exit_[row] <= rows[row, at.EDGE_BLOCKS]:
            right, entropy = outcomes.correct, outcomes.entropy
            place = (sample[row], exit_[row] - 1)
        else:
            right, entropy = outcomes.resumed_correct, outcomes.resumed_entropy
            place = (level[row], partition[row], sample[row], exit_[row] - 1)
        assert rows[row, at.CORRECT] == right[place]
        assert rows[row, at.ENTROPY] == entropy[place]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    decision=DECISIONS,
    rate_rps=st.sampled_from([10.0, 80.0, 400.0]),
    most_open=st.sampled_from([3, 128]),
)
def test_whatever_comes_every_request_ends_once_and_in_order(
    with_machines, random_site, seed, decision, rate_rps, most_open
):
    """In the order of their ends, by their deadline, with the outcome of the exit that answers."""
    setting = with_machines(most_open=most_open)
    site = random_site(seed, rate_rps=rate_rps)
    rows, ended = run(setting, [site], decision)
    check(setting, site, rows, ended)
    begins = rows[:, at.ARRIVED] + rows[:, at.EDGE_WAIT]
    begins = begins + site.work_ms * rows[:, at.EDGE_FACTOR]
    works = (rows[:, at.EDGE_MS] > 0) & (rows[:, at.EDGE_BLOCKS] <= rows[:, at.PARTITION])
    ends = (begins + rows[:, at.EDGE_MS] + rows[:, at.ENCODE_MS])[works]
    assert (begins[works][1:] >= ends[:-1] - 1e-6).all()  # the edge does one thing at a time
    opens = np.searchsorted(np.sort(rows[:, at.ARRIVED] + rows[:, at.TOTAL]), rows[:, at.ARRIVED])
    refused = rows[:, at.STATUS] == at.OVERLOADED
    open_before = np.arange(len(rows)) - opens
    assert (open_before[refused] >= most_open).all()
    assert (open_before[~refused] < most_open).all()


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), decision=DECISIONS, step_ms=st.floats(20, 400))
def test_time_may_pass_in_steps(setting, random_site, seed, decision, step_ms):
    """Small steps come to what one does, each returns what ended in it, and a copy goes its way."""
    site = random_site(seed, rate_rps=100.0)
    whole, ended = run(setting, [site], decision)
    cluster = Cluster(setting, [site])
    cluster.set_plans(0, [decision] * 3)
    parts = []
    while cluster.now_ms < 4_000:
        before_ms = cluster.now_ms
        parts.append(cluster.advance(before_ms + step_ms))
        ends = parts[-1][:, at.ARRIVED] + parts[-1][:, at.TOTAL]
        assert ((ends >= before_ms - 1e-6) & (ends < cluster.now_ms + 1e-6)).all()
        twin = cluster.copy()
        twin.set_plans(0, [Decision(4, ALWAYS, 0)] * 3)
        twin.advance(np.inf)
    parts.append(cluster.advance(np.inf))
    assert (cluster.requests == whole).all()
    assert (np.concatenate(parts) == ended).all()


def test_a_request_keeps_the_plan_that_it_arrived_under(setting, make_site):
    """Of two that are under way when the plan changes, neither leaves by the new thresholds."""
    site = make_site([0.0, 1.0, 50.0], deadlines_ms=400.0)
    cluster = Cluster(setting, [site])
    cluster.advance(10.0)
    cluster.set_plans(0, [Decision(2, ALWAYS, 0)] * 3)
    cluster.advance(np.inf)
    blocks = cluster.requests[:, [at.EDGE_BLOCKS, at.BLOCK, at.EXIT]]
    assert blocks[:2, :2].tolist() == [[2, 4], [2, 4]]
    assert blocks[2, [0, 2]].tolist() == [1, 1]


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), decision=DECISIONS)
def test_sites_meet_in_the_cloud_alone(with_machines, random_site, seed, decision):
    """With a replica for every request, each site is as if it had the cloud to itself."""
    setting = with_machines(replicas=300, replica_jobs=4)
    sites = [
        random_site(seed + number, count=80, rate_rps=40.0, cloud_factors=1.0)
        for number in range(3)
    ]
    together, _ = run(setting, sites, decision)
    alone = np.concatenate([run(setting, [site], decision)[0] for site in sites])
    alone[:, at.SITE] = together[:, at.SITE]
    assert (together == alone).all()


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), partition=st.integers(0, 3), level=st.integers(0, 2))
def test_the_link_carries_one_frame_after_the_other(setting, random_site, seed, partition, level):
    """Frames arrive in the order in which they were sent, no sooner than the trace carries them."""
    site = random_site(seed, deadlines_ms=(5_000.0, 9_000.0), edge_slowdown=0.1)
    rows, _ = run(setting, [site], Decision(partition, NEVER, level))
    rows = rows[rows[:, at.REACHED] > 0]
    rows = rows[np.argsort(rows[:, at.SENT], kind="stable")]
    through_s = (rows[:, at.REACHED] - site.round_trip_ms / 2) / 1000 + site.trace_shift_s
    assert (np.diff(through_s) > 0).all()
    begin_s = (rows[0, at.SENT] + rows[0, at.HOP] / 2) / 1000 + site.trace_shift_s
    sent_bits = 8 * np.cumsum(rows[:, at.BYTES])
    for end_s, bits in zip(through_s, sent_bits, strict=True):
        carried = site.trace.mean_bps(begin_s, end_s) * (end_s - begin_s)
        assert bits <= carried * (1 + 1e-6) + 1e-3


def test_a_slower_link_is_sent_less(setting, make_site, steady):
    """As the link gets slower, frames are cut to coarser levels, and sooner where time is short."""
    levels = []
    for bps in (8e6, 2e4, 1e4):
        site = make_site(300.0 * np.arange(60), trace=steady(bps), deadlines_ms=153.0)
        rows, _ = run(setting, [site], Decision(2, NEVER, 0))
        levels.append(rows[30:, at.LEVEL].mean())
        sizes = setting.outcomes.frame_bytes[rows[:, at.LEVEL].astype(int), 2]
        assert (rows[:, at.BYTES] == sizes).all()
    assert levels[:2] == [0, 1]
    assert levels[2] > 1.5


def test_a_link_too_slow_is_noticed_and_the_edge_answers(setting, make_site, steady):
    """Frames that are given up lower the belief step by step, as the estimator itself does."""
    site = make_site(1_000.0 * np.arange(10), trace=steady(2e3), deadlines_ms=150.0)
    rows, _ = run(replace(setting, reroutes=False), [site])
    assert (rows[:, at.STATUS] == at.BEST_EFFORT).all()
    assert (rows[:, at.EXIT] == 2).all()
    assert rows[:, at.TOTAL] == pytest.approx(150 - ANSWER_MS)
    twin = LinkEstimator()
    for row in rows:
        waited_s = (row[at.TOTAL] - (row[at.SENT] - row[at.ARRIVED])) / 1000
        twin.observe_late(row[at.SENT] / 1000, row[at.BYTES], waited_s)
        found = twin.estimate((row[at.ARRIVED] + row[at.TOTAL]) / 1000)
        assert (row[at.LINK_BPS], row[at.ROUND_TRIP] / 1000, row[at.SPREAD]) == pytest.approx(found)
    assert rows[-1, at.LINK_BPS] < rows[0, at.LINK_BPS] / 10


def test_at_partition_0_the_edge_is_left_out(setting, make_site):
    """The image crosses, and without an answer there is none."""
    site = make_site(100.0 * np.arange(5), deadlines_ms=[200, 200, 12, 2.5, 1])
    rows, _ = run(replace(setting, reroutes=False), [site], Decision(0, NEVER, 0))
    assert rows[:, at.STATUS].tolist() == [1, 1, 3, 3, 3]
    assert not rows[:, [at.EDGE_MS, at.ENCODE_MS, at.EDGE_BLOCKS]].any()
    assert rows[:2, [at.EXIT, at.CLOUD_MS]].tolist() == [[4, 10], [4, 10]]


def test_a_router_takes_so_many_at_a_time(with_machines, make_site):
    """Those that wait for the edge count too; the next is refused at once."""
    site = make_site(np.arange(10) * 0.01, work_ms=0.0)
    rows, _ = run(with_machines(most_open=4), [site], Decision(4, NEVER, 0))
    assert rows[:, at.STATUS].tolist() == [at.ANSWERED] * 4 + [at.OVERLOADED] * 6
    assert rows[4:, at.TOTAL].tolist() == [0.0] * 6


@pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 6), (3, [1, 3, 2]), (8, [1, 5])])
def test_what_waits_at_a_block_runs_together(with_machines, make_site, most, sizes):
    """Six images that arrive almost at once: the first alone, then as many as a batch holds."""
    sites = [make_site([number * 0.01], work_ms=0.0, deadlines_ms=1e4) for number in range(6)]
    setting = with_machines(max_batch=most)
    rows, _ = run(setting, sites, Decision(3, NEVER, 0))
    block_ms = [setting.profile.batched_ms(4, size) for size in sizes for _ in range(size)]
    assert rows[:, at.CLOUD_MS] == pytest.approx(block_ms)


def test_replicas_share_the_work(with_machines, make_site):
    """Twice as many replicas, half as many jobs in each: less waiting."""
    sites = [make_site([number * 0.01], work_ms=0.0, deadlines_ms=1e4) for number in range(8)]
    waits = [
        run(with_machines(replicas=replicas, max_batch=1), sites)[0][:, at.CLOUD_WAIT].mean()
        for replicas in (1, 2, 8)
    ]
    assert waits[0] > 1.5 * waits[1] > 0
    assert waits[2] == pytest.approx(0)
