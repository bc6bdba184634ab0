"""Every error as one body that both kinds of client read.

    exception ─► {"error": …, "title": …, "status": …, "detail": …} ─► HTTP

``error`` is the Open Inference Protocol's member, the rest is a problem document of RFC 9457.
"""

import json
from http import HTTPStatus

from xpi_ray.api.handlers import HttpReply
from xpi_ray.errors import XpiError

INTERNAL = "the server failed to answer; its log says why"


def problem(error: Exception, path: str) -> HttpReply:
    """Turn an exception into a reply.

    Args:
        error: One of ours gives its own status and message; any other a 500 that tells nothing.
        path: The request's path, which the body names.
    """
    status, message = HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL
    if isinstance(error, XpiError) and error.args:
        # Not str(error): an error out of a Ray task would print its whole traceback.
        status, message = HTTPStatus(error.status), str(error.args[0])
    headers = {"Content-Type": "application/problem+json"}
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    body = {
        "error": message,
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": message,
        "instance": path,
    }
    return HttpReply(status.value, headers, json.dumps(body).encode())
