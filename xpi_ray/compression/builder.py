"""A bundle's codec by the name that its manifest gives it.

training carries ─► fit_codec ─► CarryCodec ─► to_arrays ─► bundle ─► codec_from_arrays ─► the same
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.carry_codec import CarryCodec
from xpi_ray.compression.coders import Shape
from xpi_ray.compression.deepcod import DeepCod, DeepCodCodec
from xpi_ray.compression.ladder import Ladder
from xpi_ray.compression.one_level import FLOAT32, SHUFFLED_LZ4, OneLevel
from xpi_ray.compression.symbol_model import Arrays, named
from xpi_ray.compression.transform import Transform
from xpi_ray.errors import CodecError

CodecName = Literal["ladder", "float32", "shuffled_lz4", "deepcod"]


def fit_codec(
    name: CodecName,
    carries: Mapping[int, NDArray[np.float32]],
    transforms: Mapping[int, Transform] | None = None,
    deepcods: Mapping[int, DeepCod] | None = None,
) -> CarryCodec:
    """Make a codec for a new bundle.

    Args:
        name: What it is to be.
        carries: Training carries (n, C, h, w) by partition, 1..N-1; only the ladder learns from
            them, to the others they say the shapes.
        transforms: Trained, by partition: gives the ladder its smallest levels.
        deepcods: Trained, by partition, usually a single one: ``deepcod`` needs it.

    Raises:
        CodecError: ``deepcod`` was given none, or one of a partition without a carry.
    """
    if name == "ladder":
        return Ladder.fit(carries, transforms)
    shapes: dict[int, Shape] = {partition: each.shape[1:] for partition, each in carries.items()}
    if name != "deepcod":
        return _the_same(name, shapes)
    trained = deepcods or {}
    if not trained or not trained.keys() <= shapes.keys():
        raise CodecError(
            f"expected trained networks of DeepCOD after some of blocks {sorted(shapes)}, got them "
            f"after {sorted(trained)}"
        )
    return OneLevel({partition: DeepCodCodec(each) for partition, each in trained.items()}, shapes)


def codec_from_arrays(name: CodecName, arrays: Arrays, shapes: Mapping[int, Shape]) -> CarryCodec:
    """Make a bundle's codec again.

    Args:
        name: As the manifest has it.
        arrays: What ``to_arrays`` gave.
        shapes: (C, h, w) of the carry after each block but the last.

    Raises:
        CodecError: The arrays do not fit each other, these carries or the name.
        KeyError: One is missing.
        RuntimeError: Those of a learned codec are of another form.
    """
    if name == "ladder":
        return Ladder.from_arrays(arrays, shapes)
    if name != "deepcod":
        if arrays:
            raise CodecError(f"expected no arrays of codec {name!r}, got {sorted(arrays)[:3]}")
        return _the_same(name, shapes)
    codecs = {
        partition: DeepCodCodec.from_arrays(own, shape)
        for partition, shape in shapes.items()
        if (own := named(arrays, f"block{partition}"))
    }
    if not codecs:
        raise CodecError(f"expected arrays of codec {name!r}, got {sorted(arrays)[:3]}")
    return OneLevel(codecs, shapes)


def _the_same(name: Literal["float32", "shuffled_lz4"], shapes: Mapping[int, Shape]) -> OneLevel:
    """What knows nothing of a network, at every partition."""
    codec = FLOAT32 if name == "float32" else SHUFFLED_LZ4
    return OneLevel(dict.fromkeys(shapes, codec), shapes)
