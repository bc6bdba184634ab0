"""Stand-ins that tests of several packages use; nothing else imports this.

Tracing ─ OTLP over HTTP ─► TraceReceiver.spans
"""

import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue


class TraceReceiver:
    """A collector on a free port of 127.0.0.1; it listens inside the ``with`` block.

    Point OTEL_EXPORTER_OTLP_ENDPOINT at ``endpoint``.
    """

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        """In order of arrival: name, trace_id, span_id, parent_id (hexadecimal; the root's parent
        is empty), start_ns, end_ns, attributes, service."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def endpoint(self) -> str:
        """The base URL, without ``/v1/traces``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def wait(self, count: int, timeout_s: float = 10.0) -> list[dict[str, Any]]:
        """Return the spans once ``count`` have come; they come from other threads or processes.

        Raises:
            TimeoutError: Fewer came in time.
        """
        give_up_s = time.monotonic() + timeout_s
        while len(self.spans) < count:
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"expected {count} spans, {len(self.spans)} came")
            time.sleep(0.01)
        return list(self.spans)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _spans(request: ExportTraceServiceRequest) -> list[dict[str, Any]]:
    return [
        {
            "name": span.name,
            "trace_id": span.trace_id.hex(),
            "span_id": span.span_id.hex(),
            "parent_id": span.parent_span_id.hex(),
            "start_ns": span.start_time_unix_nano,
            "end_ns": span.end_time_unix_nano,
            "attributes": _values(span.attributes),
            "service": _values(resource_spans.resource.attributes)["service.name"],
        }
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def _values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {
        attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value") or "", None)
        for attribute in attributes
    }
