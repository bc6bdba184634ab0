from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

import deployments
from deployments.args import (
    CLOUD_APP,
    SCHEDULER_APP,
    CloudArgs,
    SchedulerArgs,
    SiteArgs,
    site_app_name,
)
from deployments.flags import flags
from deployments.placement import CLOUD, as_option, edge_of

FOLDER = Path(deployments.__file__).parent
CLUSTER = FOLDER.parent / "cluster.yaml"
MODELS = {"site": SiteArgs, "cloud": CloudArgs, "scheduler": SchedulerArgs}
YAMLS = pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)


@YAMLS
def test_serve_takes_each_file(path):
    """Ray Serve's own schema accepts the file, and it listens on this machine alone."""
    schema = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    assert schema.http_options.host == "127.0.0.1"
    assert len(schema.applications) == 3


@YAMLS
def test_the_arguments_are_known(path):
    """Each application's arguments are those of its builder, and its name is the one looked for."""
    for app in yaml.safe_load(path.read_text())["applications"]:
        module, _, builder = app["import_path"].partition(":")
        assert module == "deployments.app"
        args = MODELS[builder].model_validate(app["args"])
        names = {"cloud": CLOUD_APP, "scheduler": SCHEDULER_APP}
        assert app["name"] == names.get(builder) or app["name"] == site_app_name(args.site)
        assert (app["route_prefix"] is None) == (builder != "site")


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.__name__)
def test_no_argument_is_needed_and_no_unknown_one_taken(model):
    """Everything has a default; a misspelt key is an error, not silence."""
    assert model() == model.model_validate({})
    with pytest.raises(ValidationError, match="replica_count"):
        model.model_validate({"replica_count": 2})


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (SiteArgs, {"edge_slowdown": 0.5}),
        (SiteArgs, {"site": "Site 1"}),
        (SiteArgs, {"site": "cloud"}),
        (SiteArgs, {"site": "scheduler"}),
        (SiteArgs, {"default_deadline_ms": 0}),
        (SiteArgs, {"slo_classes": []}),
        (SiteArgs, {"partition": -1}),
        (SiteArgs, {"answers": "first"}),
        (CloudArgs, {"max_batch": 0}),
        (SchedulerArgs, {"policy": "best"}),
        (SchedulerArgs, {"lifetime_s": 0}),
    ],
)
def test_impossible_arguments_are_refused(model, values):
    """The error names the argument."""
    with pytest.raises(ValidationError, match=next(iter(values))):
        model.model_validate(values)


def test_the_launcher_takes_the_cluster_file():
    """Ray's own validator accepts cluster.yaml, with one head and one edge machine."""
    config = prepare_config(yaml.safe_load(CLUSTER.read_text()))
    validate_config(config)
    assert config["provider"]["type"] == "local"
    assert len(config["provider"]["worker_ips"]) == 1


@pytest.mark.parametrize(
    ("commands", "labels"),
    [("head_start_ray_commands", CLOUD), ("worker_start_ray_commands", edge_of("site-1"))],
)
def test_the_launcher_starts_nodes_as_the_local_cluster_does(commands, labels):
    """Each node has its labels; what its environment sets has the local cluster's values."""
    start = yaml.safe_load(CLUSTER.read_text())[commands][-1]
    assert f"--labels={as_option(labels)}" in start.split()
    settings = dict(word.split("=") for word in start.split() if word.startswith("RAY_"))
    expected = flags("haproxy")
    assert settings.items() <= expected.items()
    if commands.startswith("head"):
        assert settings == expected
