import pytest

from deployments.placement import CLOUD, as_option, edge_of, missing_labels, require
from xpi_ray.errors import PlacementError

EDGE = edge_of("site-1")


def node(labels, alive=True):
    """A node as Ray lists it."""
    return {"NodeID": "0a", "Alive": alive, "Labels": {"ray.io/node-id": "0a", **labels}}


def test_labels_are_written_as_ray_takes_them():
    """`--labels` wants pairs, joined by commas."""
    assert as_option(EDGE) == "xpi-tier=edge,xpi-site=site-1"
    assert as_option(CLOUD) == "xpi-tier=cloud"


def test_one_living_node_is_enough():
    """A node may carry more labels than are asked for."""
    nodes = [node(CLOUD), node({**EDGE, "rack": "7"})]
    assert missing_labels(EDGE, nodes) == ""
    assert missing_labels(CLOUD, nodes) == ""


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [node(CLOUD)],
        [node(EDGE, alive=False)],
        [node({"xpi-tier": "edge"}), node({"xpi-site": "site-1"})],
        [node(edge_of("site-2"))],
    ],
    ids=["none", "cloud", "dead", "split", "other site"],
)
def test_a_missing_label_is_named_with_its_remedy(nodes):
    """The message has the labels wanted and the command that starts such a node."""
    message = missing_labels(EDGE, nodes)
    assert "no living node is labelled xpi-tier=edge,xpi-site=site-1" in message
    assert "ray start --address=HEAD:6379 --labels=xpi-tier=edge,xpi-site=site-1" in message


def test_the_labels_there_are_are_listed():
    """Our own labels of each living node are told, and neither Ray's nor those of the dead."""
    nodes = [node(CLOUD), node({"rack": "7"}), node(edge_of("lost"), alive=False)]
    message = missing_labels(EDGE, nodes)
    assert "(labels of the 2 living nodes: xpi-tier=cloud; none)" in message
    assert "lost" not in message
    assert "of the 0 living nodes: none)" in missing_labels(EDGE, [])


def test_a_deployment_is_refused_before_it_hangs(monkeypatch):
    """Ray would wait for ever for a node that is not there; the preflight raises."""
    monkeypatch.setattr("deployments.placement.ray.nodes", lambda: [node(CLOUD)])
    require(CLOUD)
    with pytest.raises(PlacementError, match="xpi-site=site-1"):
        require(EDGE)
