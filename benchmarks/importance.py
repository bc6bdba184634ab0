"""How close does the importance that training goes by come to Captum's?

    python -m benchmarks.importance [--bundle FOLDER] [--images 500]

Blocks of a bundle's network, each with a compact reference network fitted to its features. Writes
``benchmarks/results/importance.json``. The completeness gap is |Σ attributions - (F(x) - F(0))|
divided by |F(x) - F(0)|, with F the label's log-probability: exact integrated gradients have none
(Sundararajan et al., ICML'17, proposition 1). Channel shares are compared, image by image, with
those of Captum's integrated gradients (Gauss-Legendre, 200 steps), or of its saliency: their
correlation over the channels, and the sum of absolute differences, as a share of the total.
"""

import argparse
from collections.abc import Iterator

import torch
from captum import attr
from rich.progress import Progress
from torch import Tensor, nn

from benchmarks.result import Rows, write
from benchmarks.runs import fitted_reference, sample
from xpi_ray.bundle import Bundle
from xpi_ray.explain.importance import IntegratedGradients, Saliency, channel_shares
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.data import load
from xpi_ray.training.references import block_features

BLOCKS = (1, 4, 8)
STEPS = (1, 2, 5, 20, 50, 200)
ORACLE_STEPS = 200
REFERENCE_STEPS = 200
AT_ONCE = 1_000  # points on paths that go through a reference network together

Figures = dict[str, float | int | str]


def agreement(reference: nn.Module, features: Tensor, labels: Tensor) -> Iterator[Figures]:
    """Compare with Captum, at every number of steps; a row's figures at a time.

    Args:
        reference: Frozen, in eval mode; features to logits.
        features: (n, C, h, w).
        labels: int64 (n,).
    """
    captum = nn.Sequential(reference, nn.LogSoftmax(1))
    oracle = attr.IntegratedGradients(captum).attribute(
        features,
        target=labels,
        n_steps=ORACLE_STEPS,
        method="gausslegendre",
        internal_batch_size=AT_ONCE,
    )
    with torch.no_grad():
        scores = captum(torch.cat([features, torch.zeros_like(features[:1])]))
    difference = scores[:-1].gather(1, labels[:, None])[:, 0] - scores[-1, labels]
    for steps in STEPS:
        parts = zip(
            *(t.split(max(1, AT_ONCE // (steps + 1))) for t in (features, labels)), strict=True
        )
        values = torch.cat([IntegratedGradients(steps)(reference, *part).values for part in parts])
        gaps = ((values.sum((1, 2, 3)) - difference) / difference).abs()
        yield {
            "attribution": "integrated_gradients",
            "steps": steps,
            "completeness_gap_mean": round(float(gaps.mean()), 5),
            "completeness_gap_median": round(float(gaps.median()), 5),
            **likeness(channel_shares(values), channel_shares(oracle)),
        }
    values = Saliency()(reference, features, labels).values.detach()
    features = features.clone().requires_grad_()
    oracle = attr.Saliency(captum).attribute(features, target=labels, abs=False)
    yield {"attribution": "saliency", **likeness(channel_shares(values), channel_shares(oracle))}


def likeness(own: Tensor, oracle: Tensor) -> Figures:
    """Means over samples of the correlation and the relative L1 difference of shares (n, C)."""
    a, b = (shares - shares.mean(1, keepdim=True) for shares in (own, oracle))
    correlation = nn.functional.cosine_similarity(a, b, dim=1).mean()
    difference = ((own - oracle).abs().sum(1) / oracle.abs().sum(1)).mean()
    return {
        "correlation": round(float(correlation), 5),
        "relative_l1": round(float(difference), 5),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="folder of a bundle; the default one if left out")
    parser.add_argument("--images", type=int, default=500, help="of the test split")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    network = bundle.network.eval()
    assert isinstance(network, XpiNetwork)
    splits = load(bundle.manifest.name)
    test = sample(splits.test, arguments.images)
    rows: Rows = []
    with Progress() as progress:
        for block in progress.track(BLOCKS, description="blocks"):
            reference = fitted_reference(network, block, splits.train, REFERENCE_STEPS)
            features = block_features(network, test.images, block)
            rows += [{"block": block, **row} for row in agreement(reference, features, test.labels)]
    settings = {
        "bundle": bundle.digest.hex(),
        "images": arguments.images,
        "reference_steps": REFERENCE_STEPS,
        "oracle_steps": ORACLE_STEPS,
    }
    print(write("importance", settings, rows))


if __name__ == "__main__":
    main()
