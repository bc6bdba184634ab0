"""A bundle: a folder with all that serving needs, which every node reads and checks.

    training ─► Bundle.save ─► manifest.json, SHA256SUMS, and weights, codecs, outcomes,
                              centres, elastic, policy.safetensors
    serving  ◄─ Bundle.load ◄─ every file's hash checked; nothing is unpickled

``SHA256SUMS`` has the form of the tool of that name (``sha256sum -c SHA256SUMS``). Its own hash
is the bundle's digest, so two nodes with the same digest hold the same bundle to the last bit.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, JsonValue, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from xpi_ray.compression.builder import CodecName, codec_from_arrays
from xpi_ray.compression.carry_codec import CarryCodec
from xpi_ray.compression.centres import FEWEST, MOST
from xpi_ray.config import Frozen
from xpi_ray.elastic.facts import ElasticFacts
from xpi_ray.errors import BundleError, CodecError, PlanError
from xpi_ray.networks.builder import build
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.policies import learned
from xpi_ray.policies.catalogue import Candidate, candidates
from xpi_ray.policies.plan import Plan
from xpi_ray.profiles.outcomes import Outcomes
from xpi_ray.profiles.population import population
from xpi_ray.profiles.table import Profile

FORMAT = "xpi-bundle"
FORMAT_VERSION = 3
LADDER_VERSION = 2  # of bundles whose codec is the ladder, which older software reads
DIGEST_BYTES = 8  # of the 32; what a frame carries
MAX_FILE_BYTES = 1 << 30

MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
CODECS, OUTCOMES = "codecs.safetensors", "outcomes.safetensors"
CENTRES = "centres.safetensors"  # only where the training learnt some
ELASTIC = "elastic.safetensors"  # only where exits were measured for requests without a deadline
POLICY = "policy.safetensors"  # only where one was trained for the bundle
NEEDED = (MANIFEST, WEIGHTS, CODECS, OUTCOMES)
OPTIONAL = (CENTRES, ELASTIC, POLICY)
SUMS = "SHA256SUMS"

PACKAGED = Path(__file__).parent / "bundles"
DEFAULT = "cifar10"


class NetworkEntry(Frozen):
    """What to build before the weights are loaded."""

    kind: str
    spec: JsonValue


class Preprocessing(Frozen):
    """How an image file becomes the network's input."""

    size: tuple[int, int]
    """Height and width."""
    resize: Literal["lanczos"] = "lanczos"
    """Filter by which the shorter side is brought to size."""
    crop: Literal["centre"] = "centre"
    """What is cut from the longer side."""


class Calibration(Frozen):
    """Thresholds and what they give on the validation split."""

    tolerance: float = Field(ge=0)
    """Accuracy, as a share, that they may lose against the last exit."""
    thresholds: tuple[float, ...]
    accuracy: float
    mean_macs: float
    """Mean multiply-accumulates an image."""


class Manifest(Frozen):
    """All of a bundle that is not a tensor."""

    format: Literal["xpi-bundle"] = "xpi-bundle"
    codec: CodecName = "ladder"
    """What codes carries for the link; other ones than the ladder are other systems'."""
    format_version: int = Field(default_factory=lambda known: _version_for(known.get("codec")))
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """The model's name in requests."""
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")
    description: str
    network: NetworkEntry
    labels: tuple[str, ...] = Field(min_length=2)
    preprocessing: Preprocessing
    macs: tuple[int, ...]
    """Multiply-accumulates of blocks 1..i for one image."""
    profiles: dict[str, Profile] = Field(min_length=1)
    """``default``, and where they were measured ``cloud``, ``edge:<site>``, or ``edge`` for any."""
    calibrations: tuple[Calibration, ...] = Field(min_length=1)
    """The strictest first."""
    static_plan: Plan
    """Safe without a scheduler."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "Manifest":
        blocks = len(self.macs)
        for name, profile in self.profiles.items():
            if len(profile.block_ms) != blocks:
                raise ValueError(f"profile {name!r} must have {blocks} block times")
        for calibration in self.calibrations:
            if len(calibration.thresholds) != blocks:
                raise ValueError(f"every calibration must have {blocks} thresholds")
        if "default" not in self.profiles:
            raise ValueError("there must be a profile named 'default'")
        return self

    def to_json(self) -> bytes:
        """The file; without its codec if that is the ladder, as older software reads it."""
        silent = {"codec"} if self.codec == "ladder" else None
        return self.model_dump_json(indent=1, exclude=silent).encode() + b"\n"

    def profile_of(self, *names: str) -> Profile:
        """The first profile of these names that there is, or else the default one."""
        return next(self.profiles[name] for name in (*names, "default") if name in self.profiles)


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory."""

    manifest: Manifest
    network: ProgressiveNetwork
    ladder: CarryCodec
    """Codes carries for the link."""
    outcomes: Outcomes
    centres: Mapping[str, Tensor] = field(default_factory=dict)
    """Learned values for carries, ascending, each (m,), by the name ``block<i>_centres<m>``."""
    policy: bytes | None = None
    """The scheduler's, as ``policies.learned`` writes it; whoever goes by it looks into it."""
    elastic: ElasticFacts | None = None
    """What plans of exits go by where nobody knows when a request will be stopped."""
    digest: bytes = b""
    """Its identity, once it was loaded; ``DIGEST_BYTES`` long."""

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Bundle":
        """Load a bundle and check every file.

        Args:
            path: Its folder, or the name of a packaged bundle; None is the default bundle.

        Raises:
            BundleError: The bundle is missing, damaged, newer, or not one at all.
        """
        folder = find(path)
        files, digest = _read_checked(folder)
        manifest = _parse_manifest(files[MANIFEST], folder)
        try:
            network = build(manifest.network.kind, manifest.network.spec)
            network.load_state_dict(load_tensors(files[WEIGHTS]))
            shapes = {p: network.carry_shape(p) for p in range(1, network.num_blocks)}
            ladder = codec_from_arrays(manifest.codec, load_arrays(files[CODECS]), shapes)
            outcomes = Outcomes.from_arrays(load_arrays(files[OUTCOMES]))
            _check_plan(manifest.static_plan, network.num_blocks, ladder)
            centres = load_tensors(files[CENTRES]) if CENTRES in files else {}
            _check_centres(centres, network.num_blocks)
            elastic = _read_elastic(files, network)
        except (SafetensorError, CodecError, PlanError, KeyError, ValueError, RuntimeError) as err:
            raise BundleError(f"{folder} does not hold together: {err}") from err
        if len(manifest.labels) != network.num_classes or len(manifest.macs) != network.num_blocks:
            raise BundleError(
                f"{folder} does not hold together: {len(manifest.labels)} labels and "
                f"{len(manifest.macs)} block costs for a network of {network.num_classes} classes "
                f"and {network.num_blocks} blocks"
            )
        policy = files.get(POLICY)
        return cls(manifest, network, ladder, outcomes, centres, policy, elastic, digest)

    @property
    def num_levels(self) -> int:
        """What a plan's level may be: one of the ladder's, or beyond them the image itself.

        Other systems' codecs know no such plan.
        """
        return self.ladder.levels + (self.manifest.codec == "ladder")

    def candidates(self) -> list[Candidate]:
        """Every plan of the bundle, in the order that policy files count them in."""
        return candidates(self.population, self.thresholds())

    @cached_property
    def population(self) -> Outcomes:
        """Of the images that plans are judged by, and policies trained with."""
        return population(self.levelled(), self.thresholds())

    def levelled(self, outcomes: Outcomes | None = None) -> Outcomes:
        """Outcomes of this network, its own or others, with all levels that a plan may have."""
        found = self.outcomes if outcomes is None else outcomes
        return found.with_images() if self.num_levels > self.ladder.levels else found

    def thresholds(self) -> list[tuple[float, ...]]:
        """Its sets, the strictest first."""
        return [calibration.thresholds for calibration in self.manifest.calibrations]

    def with_policy(self, policy: bytes) -> "Bundle":
        """The bundle with another policy for the scheduler; saved, it has another digest."""
        return replace(self, policy=policy, digest=b"")

    def save(self, folder: Path) -> None:
        """Write the bundle; a folder that holds another one is overwritten file by file.

        Weights that 16 bits hold exactly take no more; loaded, they are float32 again.
        """
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: _narrowed(t).contiguous() for name, t in self.network.state_dict().items()}
        files = {
            MANIFEST: self.manifest.to_json(),
            WEIGHTS: save_tensors(weights),
            CODECS: save_arrays(self.ladder.to_arrays()),
            OUTCOMES: save_arrays(self.outcomes.to_arrays()),
        }
        if self.centres:
            files[CENTRES] = save_tensors(dict(self.centres))
        if self.policy is not None:
            files[POLICY] = self.policy
        if self.elastic is not None:
            files[ELASTIC] = save_arrays(self.elastic.to_arrays())
        for name in OPTIONAL:
            (folder / name).unlink(missing_ok=True)  # of the other one
        sums = "".join(f"{_sha256(data)}  {name}\n" for name, data in sorted(files.items()))
        for name, data in {**files, SUMS: sums.encode()}.items():
            (folder / name).write_bytes(data)


def find(path: str | Path | None) -> Path:
    """The folder of a bundle given by path, by the name of a packaged one, or by default.

    Raises:
        BundleError: There is no such folder.
    """
    folder = Path(path if path is not None else DEFAULT)
    packaged = PACKAGED / folder
    for candidate in (folder, packaged):
        if (candidate / SUMS).is_file() or (candidate / MANIFEST).is_file():
            return candidate
    known = ", ".join(sorted(p.name for p in PACKAGED.glob("*") if p.is_dir())) or "none"
    raise BundleError(
        f"{folder} is not a bundle: there is no {MANIFEST} in it (packaged bundles: {known}; "
        "`xpi train` makes one)"
    )


def _read_checked(folder: Path) -> tuple[dict[str, bytes], bytes]:
    """Every file's content, hashes checked, and the bundle's digest."""
    sums = _read(folder / SUMS, MAX_FILE_BYTES)
    expected: dict[str, str] = {}
    for line in sums.decode(errors="replace").removesuffix("\n").split("\n"):
        digest, _, name = line.partition("  ")
        expected[name] = digest
    for name in NEEDED:
        if name not in expected:
            raise BundleError(f"{folder / SUMS} does not list {name}; get the bundle anew")
    for name in expected.keys() - {*NEEDED, *OPTIONAL}:
        raise BundleError(f"{folder / SUMS} lists {name!r}, no file of a bundle; get it anew")
    files = {}
    for name in expected:
        limit = learned.MAX_FILE_BYTES if name == POLICY else MAX_FILE_BYTES
        files[name] = _read(folder / name, limit)
        found = _sha256(files[name])
        if found != expected[name]:
            raise BundleError(
                f"{folder / name} is damaged: expected sha256 {expected[name]}, found {found}; "
                "get the bundle anew"
            )
    return files, hashlib.sha256(sums).digest()[:DIGEST_BYTES]


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        if path.stat().st_size > limit_bytes:
            raise BundleError(f"{path} is larger than {limit_bytes} bytes")
        return path.read_bytes()
    except OSError as err:
        raise BundleError(f"{path} cannot be read ({err}); get the bundle anew") from err


def _parse_manifest(data: bytes, folder: Path) -> Manifest:
    """Read the manifest; its format is looked at first, as a newer one may not parse at all."""
    try:
        raw = json.loads(data)
    except ValueError as err:
        raise BundleError(f"{folder / MANIFEST} is not JSON: {err}") from err
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise BundleError(f"{folder} is not a bundle of this project: no format {FORMAT!r} in it")
    version = raw.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise BundleError(
            f"{folder} has bundle format {version}, this software reads up to {FORMAT_VERSION}; "
            "upgrade xpi-ray"
        )
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as err:
        raise BundleError(f"{folder / MANIFEST} is not a manifest: {err}") from err


def _read_elastic(files: Mapping[str, bytes], network: ProgressiveNetwork) -> ElasticFacts | None:
    """What is known for requests without a deadline, if anything."""
    if ELASTIC not in files:
        return None
    arrays = load_arrays(files[ELASTIC])
    return ElasticFacts.from_arrays(arrays, network.exits, network.num_blocks)


def _check_plan(plan: Plan, num_blocks: int, ladder: CarryCodec) -> None:
    """Refuse a static plan that the network or the codec cannot go by; PlanError says why."""
    plan.check(num_blocks, ladder.levels)
    if 0 < plan.partition < num_blocks and not ladder.levels_at(plan.partition):
        raise PlanError(f"the codec sends no carry after block {plan.partition}")


def _version_for(codec: str | None) -> int:
    """The oldest format that knows a codec."""
    return LADDER_VERSION if codec == "ladder" else FORMAT_VERSION


def _check_centres(centres: Mapping[str, Tensor], num_blocks: int) -> None:
    """Refuse what no carry could be quantised with.

    Raises:
        ValueError: A set of centres belongs to no carry, or is not ascending finite float32.
    """
    for name, values in centres.items():
        found = re.fullmatch(r"block([1-9]\d{0,3})_centres([1-9]\d?)", name)
        if found is None or int(found[1]) >= num_blocks:
            raise ValueError(
                f"centres {name!r} belong to no carry; expected block1_centres2 to "
                f"block{num_blocks - 1}_centres{MOST}"
            )
        count = int(found[2])
        whole = values.dtype == torch.float32 and values.shape == (count,)
        if not (FEWEST <= count <= MOST and whole and bool(values.isfinite().all())):
            raise ValueError(
                f"{name} must be {FEWEST} to {MOST} finite float32 values, as many as its name "
                f"says; got {tuple(values.shape)} of {values.dtype}"
            )
        if bool((values.diff() < 0).any()):
            raise ValueError(f"{name} must ascend; got {values.tolist()}")


def _narrowed(tensor: Tensor) -> Tensor:
    """The tensor as float16 where that loses nothing, else as it is."""
    if tensor.dtype == torch.float32 and torch.equal(tensor.half().float(), tensor):
        return tensor.half()
    return tensor


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
