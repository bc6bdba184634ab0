"""What does each part of Xpi bring?

    python -m benchmarks.ablation [--datasets …] [--traces …] [--seeds …] [--loads …]

On the testbed as figure4 is, with the same requests and links: Xpi, and Xpi without one of its
parts (``ABLATIONS`` in benchmarks/systems.py). ``benchmarks.ablated`` makes the bundles that differ
in nothing but what they lack. The packaged networks are trained without XAI's losses; one that has
them is trained by ``xpi train --training xai_distilled_quantized``, packed with the same policy.

Writes ``benchmarks/results/ablation.json``.
"""

import argparse

from benchmarks.campaign import Campaign, add_options, there
from benchmarks.figure4 import LOADS, askings
from benchmarks.result import Row, write
from benchmarks.systems import ABLATIONS, without


def main() -> None:
    """Run what is not there, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.add_argument("--loads", nargs="+", type=float, default=[LOADS[1]])
    parser.add_argument("--without", nargs="+", default=list(ABLATIONS), choices=list(ABLATIONS))
    options = parser.parse_args()
    rows: list[Row] = []
    took_s = 0.0
    with Campaign(options.folder, duration_s=options.duration) as campaign:
        for dataset in options.datasets:
            parts = {without(part, dataset).name: part for part in options.without}
            systems = there(without(part, dataset) for part in options.without)
            for system, _, run in campaign.all(systems, askings(options)):
                rows.append({"without": parts[system.name], **run.row()})
                took_s += run.facts["took_s"]
        settings = {**campaign.settings(options.datasets), "took_s": round(took_s)}
    print(write("ablation", settings, rows))


if __name__ == "__main__":
    main()
