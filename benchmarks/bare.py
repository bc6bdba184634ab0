"""What an engineer would write by hand: the whole network behind bare Ray Serve.

HTTP ─► Bare                       one replica runs the network
HTTP ─► BareIngress ─► BareLeaf    the same behind one handle hop
"""

import numpy as np
import torch
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse

from xpi_ray.bundle import Bundle


class Bare:
    """Ingress and network in one."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        bundle = Bundle.load()
        self._network = bundle.network.prepare()
        self._labels = bundle.manifest.labels

    def classify(self, pixels: np.ndarray) -> dict[str, object]:
        """Run every block and answer by the last exit."""
        with torch.inference_mode():
            logits = self._network(torch.from_numpy(pixels))[-1][0]
        return {"label": self._labels[int(logits.argmax())], "logits": logits.tolist()}

    async def __call__(self, request: Request) -> JSONResponse:
        """Answer one request that holds one binary tensor."""
        return JSONResponse(self.classify(await read_pixels(request)))


class BareLeaf(Bare):
    """The network alone."""

    async def run(self, pixels: np.ndarray) -> dict[str, object]:
        """Answer one image."""
        return self.classify(pixels)


class BareIngress:
    """HTTP alone."""

    def __init__(self, leaf: DeploymentHandle) -> None:
        self._leaf = leaf.options(_by_reference=False)

    async def __call__(self, request: Request) -> JSONResponse:
        """Pass the image on."""
        return JSONResponse(await self._leaf.run.remote(await read_pixels(request)))


async def read_pixels(request: Request) -> np.ndarray:
    """The one binary tensor of the request, (1, 3, 32, 32)."""
    body = await request.body()
    start = int(request.headers["inference-header-content-length"])
    return np.frombuffer(body, np.uint8, offset=start).reshape(1, 3, 32, 32).copy()


def bare() -> serve.Application:
    """The application of one deployment."""
    options = {"num_cpus": 0.1}
    return serve.deployment(Bare, ray_actor_options=options, max_ongoing_requests=64).bind()


def bare_hop() -> serve.Application:
    """The application of two."""
    options = {"num_cpus": 0.1}
    leaf = serve.deployment(BareLeaf, ray_actor_options=options, max_ongoing_requests=64).bind()
    ingress = serve.deployment(BareIngress, ray_actor_options=options, max_ongoing_requests=64)
    return ingress.bind(leaf)
