import logging

import numpy as np
import pytest
import torch

from deployments.args import CloudArgs, SiteArgs
from deployments.cloud import CloudExecutor
from deployments.edge import EdgeExecutor
from deployments.placement import CLOUD, edge_of
from deployments.profiling import here, labelled, measure_bundle, profile_names
from xpi_ray.bundle import Bundle
from xpi_ray.errors import PlacementError
from xpi_ray.inference.edge import image_frame
from xpi_ray.profiles.table import Profile

SLOW = Profile(
    machine="an abacus", threads=1, block_ms=(1e6,) * 4, encode_ms=1, decode_ms=1, slowdown=1
)


def node(labels, node_id="0a", alive=True):
    """A node as Ray lists it."""
    return {"NodeID": node_id, "Alive": alive, "NodeManagerAddress": "h", "Labels": labels}


@pytest.fixture
def foreign(bundle, tmp_path):
    """Saves the small bundle with profiles of another machine under given names; its folder."""
    threads = torch.get_num_threads()

    def save(*names):
        profiles = {**bundle.manifest.profiles, **dict.fromkeys(names, SLOW)}
        manifest = bundle.manifest.model_copy(update={"profiles": profiles})
        Bundle(manifest, bundle.network, bundle.ladder, bundle.outcomes).save(tmp_path)
        return str(tmp_path)

    yield save
    torch.set_num_threads(threads)


def test_a_node_has_the_name_of_its_tier_and_site():
    """The cloud is one, each site is its own, and any edge may stand for a site."""
    assert profile_names(CLOUD) == ("cloud",)
    assert profile_names(edge_of("site-7")) == ("edge:site-7", "edge")


def test_living_nodes_of_a_tier_are_measured():
    """Dead nodes, those without a tier, and edges without a site are not."""
    nodes = [
        node(edge_of("b"), "1"),
        node(CLOUD, "2"),
        node({**edge_of("a"), "rack": "7"}, "3"),
        node(CLOUD, "4", alive=False),
        node({}, "5"),
        node({"xpi-tier": "edge"}, "6"),
        node({"xpi-tier": "fog"}, "7"),
    ]
    found = [(each.name, each.node_id) for each in labelled(nodes)]
    assert found == [("cloud", "2"), ("edge:a", "3"), ("edge:b", "1")]


def test_a_cluster_without_labels_is_refused():
    """The message has the labels that a node needs."""
    with pytest.raises(PlacementError, match="xpi-tier=cloud"):
        labelled([node({})])


def test_a_bundle_is_left_as_it_is(bundle):
    """Measuring folds a copy of the network; a second one measures the same blocks."""
    before = {name: weights.clone() for name, weights in bundle.network.state_dict().items()}
    for _ in range(2):
        assert len(measure_bundle(bundle, repeats=1, threads=1).block_ms) == 4
    after = bundle.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], weights) for name, weights in before.items())


def test_a_profile_of_another_machine_is_told_and_not_believed(caplog):
    """A total far off is warned of, with both times; one that is near is taken as it is."""
    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        assert here(SLOW, 3.9e6) is SLOW
        assert not caplog.records
        assert sum(here(SLOW, 2.0).block_ms) == pytest.approx(2.0)
    (record,) = caplog.records
    assert "2.0 ms here" in record.getMessage()
    assert "an abacus" in record.getMessage()


@pytest.mark.parametrize("name", ["default", "edge", "edge:site-1"])
async def test_an_edge_with_a_foreign_profile_still_runs(foreign, caplog, name):
    """Blocks that should take minutes are run within a second, as they take no time here."""
    edge = EdgeExecutor(SiteArgs(bundle=foreign(name)))
    assert any("an abacus" in record.getMessage() for record in caplog.records)
    plan = Bundle.load(foreign(name)).manifest.static_plan
    plan = plan.model_copy(update={"partition": 4, "thresholds": (0.0,) * 4})
    reply = await edge.run(np.zeros((3, 10, 6), np.uint8), plan, 10_000, "")
    assert len(reply.exits) == 4


@pytest.mark.parametrize("name", ["default", "cloud"])
async def test_a_cloud_with_a_foreign_profile_still_runs(foreign, caplog, name):
    """Likewise in the cloud."""
    folder = foreign(name)
    cloud = CloudExecutor(CloudArgs(bundle=folder))
    assert any("an abacus" in record.getMessage() for record in caplog.records)
    frame = image_frame(np.zeros((3, 10, 6), np.uint8), Bundle.load(folder).digest)
    reply = await cloud.resume(frame, (0.0,) * 4, 10_000, "")
    assert len(reply.exits) == 4


async def test_profiles_of_others_are_not_looked_at(foreign, caplog):
    """An edge goes neither by the cloud's profile nor by another site's, the cloud by no edge's."""
    folder = foreign("cloud", "edge:site-2")
    EdgeExecutor(SiteArgs(bundle=folder))
    folder = foreign("edge", "edge:site-1")
    CloudExecutor(CloudArgs(bundle=folder))
    assert not any("an abacus" in record.getMessage() for record in caplog.records)
