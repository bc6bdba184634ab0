"""How long until every router replica has acknowledged a new plan?

    python -m benchmarks.plan_push [--routers 3] [--seconds 20]

Writes ``benchmarks/results/plan_push.json``.
"""

import argparse
import time

import numpy as np
from ray import serve

from benchmarks.result import write
from deployments.args import SCHEDULER_APP, CloudArgs, SchedulerArgs, SiteArgs
from deployments.local_cluster import LocalCluster

PORT = 8124
PERIOD_S = 0.05
WARM_UP_PUSHES = 20


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--routers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with LocalCluster(port=PORT) as cluster:
        site = SiteArgs(router_replicas=options.routers)
        cluster.deploy(site, CloudArgs(), SchedulerArgs(period_s=PERIOD_S))
        time.sleep(options.seconds)
        scheduler = serve.get_deployment_handle("Scheduler", SCHEDULER_APP)
        pushes_ms = scheduler.recent_pushes_ms.remote().result()[WARM_UP_PUSHES:]
    p50, p95 = np.percentile(pushes_ms, [50, 95])
    row = {
        "routers": options.routers,
        "p50_ms": round(float(p50), 3),
        "p95_ms": round(float(p95), 3),
        "pushes": len(pushes_ms),
    }
    print(write("plan_push", {"period_s": PERIOD_S, "seconds": options.seconds}, [row]))


if __name__ == "__main__":
    main()
