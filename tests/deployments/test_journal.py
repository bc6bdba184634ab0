import json

import pytest
import typer
from typer.testing import CliRunner

from deployments.args import SchedulerArgs
from deployments.deciding import Decider, name_of
from deployments.journal import Journal, plan_entry, policy_path, replay, seed_of, start_of
from deployments.replay_command import replay as replay_command
from xpi_ray.bundle import Bundle
from xpi_ray.errors import DataError
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass

CLASSES = (SloClass(name="tight", deadline_ms=20), SloClass(name="relaxed", deadline_ms=300))


def run(*arguments):
    """Run `xpi replay`."""
    app = typer.Typer()
    app.command()(replay_command)
    return CliRunner().invoke(app, list(arguments))


def kinds(path):
    """What the entries of a file are."""
    return [json.loads(line)["kind"] for line in path.read_text().splitlines()]


@pytest.fixture
def folder(bundle, make_policy, tmp_path):
    """The small bundle with a policy."""
    bundle.with_policy(make_policy(bundle)).save(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def record(folder, tmp_path):
    """Writes the journal of some decisions, as the scheduler does; returns its path."""

    def write(tries=True, count=5, change=lambda number, decider, journal: None):
        args = SchedulerArgs(bundle=str(folder))
        loaded = Bundle.load(folder)
        decider = Decider(args, loaded)
        path = tmp_path / "journal.jsonl"
        journal = Journal(path, start_of(args, loaded))
        journal.keep(decider.file)
        for version in range(1, count + 1):
            change(version, decider, journal)
            seen = Observation(edge_slowdown=1 + version / 3, arrivals_rps=version * 0.7)
            seeds = {slo: seed_of(version, slo) if tries else None for slo in CLASSES}
            choices = {slo: decider.decide(seen, slo, seeds[slo]) for slo in CLASSES}
            journal.write(
                "decision",
                site="site-1",
                version=version,
                tries=tries,
                observation=seen.model_dump(),
                plans={slo.name: plan_entry(slo, choice) for slo, choice in choices.items()},
            )
        return path

    return write


@pytest.mark.parametrize("tries", [True, False])
def test_decisions_come_out_the_same(record, tries):
    """Also those that chance had a part in; there is one for each class of each entry."""
    assert list(replay(record(tries))) == [None] * 10


def test_each_decision_is_made_by_the_policy_of_its_time(record, bundle, make_policy):
    """Promotions and a failing policy in between are followed."""

    def change(version, decider, journal):
        if version == 3:
            decider.adopt(make_policy(bundle, 1))
            journal.keep(decider.file)
        if version == 4:
            decider.learned = None  # as where it fails: the rule decides
        if version == 5:
            decider.adopt(make_policy(bundle, 0))

    path = record(change=change)
    assert list(replay(path)) == [None] * 10
    entries = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    first, second = (name_of(make_policy(bundle, seed)) for seed in (0, 1))
    names = [entry["plans"]["tight"]["policy"] for entry in entries]
    assert names == [first, first, second, "least_latency", first]


def test_a_plan_that_differs_is_told(record, folder):
    """What was recorded and what comes out now, for the class alone that differs."""
    path = record()
    lines = path.read_text().splitlines()
    entry = json.loads(lines[3])
    entry["plans"]["tight"]["partition"] += 1
    lines[3] = json.dumps(entry)
    path.write_text("\n".join(lines) + "\n")
    (difference,) = [each for each in replay(path) if each is not None]
    assert (difference.version, difference.site, difference.slo_class) == (3, "site-1", "tight")
    assert difference.recorded["partition"] == difference.now["partition"] + 1
    result = run(str(path), "--bundle", str(folder))
    assert result.exit_code == 1
    assert json.loads(result.stdout)["now"] == difference.now
    assert "10 decisions, 1 different" in result.stderr


def test_the_command_says_when_all_is_the_same(record):
    """The exit code is 0 then."""
    result = run(str(record()))
    assert result.exit_code == 0, result.output
    assert "10 decisions, 0 different" in result.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ("[]", "line 2"),
        ('{"kind": "decision"}', "line 2"),
        ('{"kind": "start", "digest": "00", "rule": "best"}', "line 2"),
        ("null", "line 2"),
    ],
)
def test_what_is_no_entry_is_refused(record, line, message):
    """The line is named."""
    path = record()
    first, *_ = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n")
    with pytest.raises(DataError, match=message):
        list(replay(path))


def test_a_journal_is_of_one_bundle(record, bundle_folder, tmp_path):
    """Another bundle is refused, as is a journal without its beginning, or none at all."""
    path = record()
    with pytest.raises(DataError, match="digest"):
        list(replay(path, str(bundle_folder)))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match="start"):
        list(replay(path))
    with pytest.raises(DataError, match="cannot be read"):
        list(replay(tmp_path / "none.jsonl"))


def test_a_policy_must_lie_beside_it_as_it_was(record, folder):
    """A missing or another file is an error, not another decision."""
    path = record()
    name = name_of(Bundle.load(folder).policy)
    # The decider begins with a rule, so the policy comes from its file alone.
    policy_path(path, name).write_bytes(b"none")
    with pytest.raises(DataError, match="cannot be used"):
        list(replay(path))
    policy_path(path, name).unlink()
    with pytest.raises(DataError, match="cannot be used"):
        list(replay(path))


def test_another_policy_of_that_name_is_found_out(record, folder, bundle, make_policy):
    """The name is the hash of what was in force."""
    path = record()
    name = name_of(Bundle.load(folder).policy)
    policy_path(path, name).write_bytes(make_policy(bundle, 5))
    with pytest.raises(DataError, match="any more"):
        list(replay(path))


def test_a_long_journal_goes_on_in_a_new_file(tmp_path):
    """There are two files at most; each begins with what decisions depend on."""
    path = tmp_path / "deep" / "journal.jsonl"
    journal = Journal(path, {"rule": "static"}, max_file_bytes=2_000)
    for number in range(200):
        journal.write("decision", number=number)
        assert path.stat().st_size < 2_200
    before = path.with_name("journal.jsonl.1")
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, before.name]
    assert kinds(path)[0] == kinds(before)[0] == "start"
    assert json.loads(path.read_text().splitlines()[-1])["number"] == 199
    assert journal.tail[-1]["number"] == 199


def test_policies_that_no_file_names_any_more_are_removed(tmp_path):
    """The one in force stays however long the journal gets."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, {}, max_file_bytes=500)
    for file in (b"old", b"new"):
        journal.keep(file)
    old, new = (policy_path(path, name_of(file)) for file in (b"old", b"new"))
    files = []
    for number in range(40):
        journal.write("decision", number=number)
        files.append((old.exists(), new.exists()))
    assert files[0] == (True, True)
    assert files[-1] == (False, True)


def test_a_disk_that_fails_stops_nothing(tmp_path, caplog):
    """The trouble is logged, and the tail goes on."""
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file" / "journal.jsonl", {})
    journal.keep(b"policy")
    journal.write("decision", number=1)
    assert [entry["kind"] for entry in journal.tail] == ["start", "decision"]
    assert "cannot be written" in caplog.text


def test_without_a_path_there_is_a_tail_alone(tmp_path, monkeypatch):
    """Nothing is written anywhere."""
    monkeypatch.chdir(tmp_path)
    journal = Journal(None, {"rule": "static"})
    journal.keep(b"policy")
    journal.write("decision", number=1)
    assert [entry["kind"] for entry in journal.tail] == ["start", "decision"]
    assert not list(tmp_path.iterdir())


def test_a_peers_decisions_are_made_again(folder, tmp_path):
    """Of two sites, by a policy that remembers each one's past."""
    args = SchedulerArgs(bundle=str(folder), policy="edgent_dynamic", edge_slowdown=3)
    loaded = Bundle.load(folder)
    decider = Decider(args, loaded)
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, start_of(args, loaded))
    for version in range(1, 13):
        site = f"site-{version % 2}"
        seen = Observation(link_bps=10.0 ** (3 + version / 2))
        choices = {slo: decider.decide(seen, slo, None, site) for slo in CLASSES}
        journal.write(
            "decision",
            site=site,
            version=version,
            tries=False,
            observation=seen.model_dump(),
            plans={slo.name: plan_entry(slo, choice) for slo, choice in choices.items()},
        )
    assert list(replay(path)) == [None] * 24
