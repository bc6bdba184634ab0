import pytest
from pydantic import ValidationError

from deployments import app
from deployments.args import CloudArgs, SchedulerArgs, SiteArgs
from deployments.placement import CLOUD, edge_of
from xpi_ray.errors import PlacementError


@pytest.fixture(autouse=True)
def nodes(monkeypatch):
    """The nodes of a cluster of one site, one of them the cloud's; to be taken away."""
    nodes = [{"Alive": True, "Labels": labels} for labels in (CLOUD, edge_of("site-1"))]
    monkeypatch.setattr("deployments.placement.ray.nodes", lambda: nodes)
    return nodes


def bound(application):
    """The deployment of an application's ingress."""
    return application._bound_deployment


def test_a_site_is_a_router_in_front_of_an_edge():
    """Both run on the site's nodes, the router calls the edge, and both know the arguments."""
    args = SiteArgs(router_replicas=2, edge_replicas=3, max_queued_requests=5)
    router = bound(app.site(args))
    assert router.name == "Router"
    given, edge = router.init_args
    edge = bound(edge)
    assert (edge.name, given, edge.init_args) == ("EdgeExecutor", args, (args,))
    assert (router.num_replicas, edge.num_replicas) == (2, 3)
    assert router.max_queued_requests == edge.max_queued_requests == 5
    for deployment in (router, edge):
        assert deployment.ray_actor_options["label_selector"] == edge_of("site-1")


@pytest.mark.parametrize(
    ("build", "args", "name"),
    [
        (app.cloud, CloudArgs(replicas=4), "CloudExecutor"),
        (app.scheduler, SchedulerArgs(policy="static"), "Scheduler"),
    ],
)
def test_cloud_and_scheduler_run_in_the_cloud(build, args, name):
    """Each is one deployment on the cloud's nodes, with its arguments."""
    deployment = bound(build(args))
    assert (deployment.name, deployment.init_args) == (name, (args,))
    assert deployment.ray_actor_options["label_selector"] == CLOUD
    assert deployment.num_replicas == getattr(args, "replicas", 1)


@pytest.mark.parametrize("build", [app.site, app.cloud, app.scheduler])
def test_arguments_may_come_from_yaml(build):
    """A plain dictionary is checked and completed; an unknown key is an error."""
    (args, *_) = bound(build({"bundle": "pets"})).init_args
    assert args.bundle == "pets"
    with pytest.raises(ValidationError, match="bundel"):
        build({"bundel": "pets"})


@pytest.mark.parametrize("build", [app.site, app.cloud, app.scheduler])
def test_no_application_waits_for_a_node_that_is_not_there(build, nodes):
    """A missing label is an error at once."""
    nodes.clear()
    with pytest.raises(PlacementError, match="no living node"):
        build({})


def test_a_full_router_says_when_to_come_back():
    """Back-pressure is the API's 429, with a time to wait."""
    config = bound(app.site(SiteArgs())).backpressure_config
    assert (config.status_code, config.retry_after_s) == (429, 1)
