import pytest
import yaml

from benchmarks import systems
from deployments.args import CloudArgs, SchedulerArgs, SiteArgs
from xpi_ray.bundle import Bundle

EDGE = systems.Edge(slowdown=40.0, round_trip_ms=12.0, replicas=1)
KINDS = {"site": SiteArgs, "cloud": CloudArgs, "scheduler": SchedulerArgs}
ALL = [systems.peer(name, "cifar10") for name in systems.PEERS]
ALL += [systems.without(part, "tiny_imagenet") for part in systems.ABLATIONS]


def arguments(system, edge=EDGE):
    """Of every application, as they are read from the YAML."""
    config = yaml.safe_load(system.config(edge))
    found = {}
    for application in config["applications"]:
        kind = application["import_path"].rpartition(":")[2]
        found[kind] = KINDS[kind].model_validate(application["args"])
    return found


@pytest.mark.parametrize("system", ALL, ids=lambda system: f"{system.dataset}-{system.name}")
def test_what_is_deployed_is_what_was_meant(system, monkeypatch):
    """The applications' own arguments, with one bundle for all of a system."""
    monkeypatch.setattr(systems, "find", lambda name: systems.Path("packaged") / name)
    found = arguments(system)
    assert found["site"] == system.site_args(EDGE)
    assert found.get("scheduler") == system.scheduler_args(EDGE)
    assert len({args.bundle for args in found.values()}) == 1
    assert found["site"].edge_replicas == 1
    if "scheduler" in found:
        assert found["scheduler"].edge_slowdown == 40.0


def test_fixed_partitions_have_no_scheduler():
    """It would decide anew; without it the site's own partition holds, at either end."""
    ends = [systems.without(f"partition_{end}", "cifar10") for end in ("edge", "cloud")]
    assert [each.scheduler_args(EDGE) for each in ends] == [None, None]
    assert [each.site_args(EDGE).partition for each in ends] == [systems.BLOCKS, 0]


def test_without_nothing_it_is_xpi():
    """So its runs are those of the comparison."""
    assert systems.without("nothing", "cifar10") == systems.peer("xpi", "cifar10")


def test_xpi_is_there_as_packaged():
    """With as many blocks as the partitions of ablations take it to have."""
    for dataset in systems.DATASETS:
        system = systems.peer("xpi", dataset)
        assert system.is_there
        assert system.load().network.num_blocks == systems.BLOCKS
        assert system.load().digest == Bundle.load(dataset).digest


def test_a_bundle_that_was_not_made_is_not_there(tmp_path, monkeypatch):
    """EdgeML's policy is needed too."""
    monkeypatch.setattr(systems, "BUNDLES", tmp_path)
    edgeml = systems.peer("edgeml", "cifar10")
    assert not edgeml.is_there
    edgeml.folder.mkdir(parents=True)
    (edgeml.folder / "SHA256SUMS").write_text("")
    assert not edgeml.is_there
    policy = tmp_path / "cifar10" / systems.EDGEML_POLICY
    policy.parent.mkdir()
    policy.write_bytes(b"")
    assert edgeml.is_there
