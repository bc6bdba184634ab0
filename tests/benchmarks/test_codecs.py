import copy
import dataclasses

import numpy as np
import pytest
from rich.progress import Progress
from scipy.stats import entropy

from benchmarks import codecs
from xpi_ray.compression.ladder import LEVELS


@pytest.fixture(scope="module")
def results(bundle, splits):
    """Both, of the small bundle, by few quantisers."""
    own = dataclasses.replace(bundle, network=copy.deepcopy(bundle.network))
    with pytest.MonkeyPatch.context() as patch, Progress() as progress:
        patch.setattr(codecs, "BITS", (4, 12))
        patch.setattr(codecs, "PER_CHANNEL", (4,))
        return codecs.measure(own, splits.test, splits.train, 8, progress)


@pytest.fixture
def rows(results):
    """Of ``codecs``."""
    return results[0]


def test_the_bound_is_the_entropy_of_each_channel():
    """As scipy has it, summed over channels, in bytes for one sample."""
    symbols = np.random.default_rng(0).integers(0, 5, (20, 3, 4, 2)).astype(np.uint8)
    symbols[:, 1] //= 3
    bits = sum(
        channel.size / 20 * entropy(np.unique(channel, return_counts=True)[1], base=2)
        for channel in symbols.swapaxes(0, 1)
    )
    assert codecs.bound_bytes(symbols) == pytest.approx(bits / 8)


def test_every_quantiser_meets_every_coder(rows):
    """At each partition 3 quantisers by 6 coders, and each level."""
    assert len(rows) == 3 * (3 * 6 + LEVELS)
    pairs = {(row["quantiser"], row.get("coder")) for row in rows}
    coders = {"lz4", "lz4-shuffled", "lzw", "huffman", "categorical", "context"}
    for name in ("minmax4", "minmax12", "minmax4-channels"):
        assert {coder for quantiser, coder in pairs if quantiser == name} == coders


def test_accuracy_is_the_quantisers_and_not_the_coders(rows):
    """Coders lose nothing, so one quantiser has one accuracy at a partition, within 0..1."""
    for partition in (1, 2, 3):
        for name in ("minmax4", "minmax12"):
            found = {
                row["accuracy"]
                for row in rows
                if (row["partition"], row["quantiser"]) == (partition, name)
            }
            assert len(found) == 1
            assert 0 <= found.pop() <= 1


def test_a_whole_frame_is_worth_what_its_level_is(results, bundle):
    """Every level is cut in four ways; where all of a frame arrives, accuracy is the level's.

    Unless the edge's exit may answer for it, where the bundle's outcomes trust that.
    """
    rows, prefixes = results
    assert len(prefixes) == 3 * LEVELS * len(codecs.FRACTIONS)
    ladder = [row for row in rows if row.get("coder") == "ladder"]
    levels = {(row["partition"], row["level"]): row["accuracy"] for row in ladder}
    whole = {(r["partition"], r["level"]): r["accuracy"] for r in prefixes if r["fraction"] == 1}
    trusted = bundle.outcomes.edge_trusted()
    alone = {key for key in levels if not trusted[key[1], key[0]]}
    assert alone
    assert {key: levels[key] for key in alone} == {key: whole[key] for key in alone}
