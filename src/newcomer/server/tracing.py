"""OpenTelemetry traces of requests, where the environment names a collector."""

import logging
import os
from typing import TYPE_CHECKING

from fastapi import FastAPI

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger("newcomer.server")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
NOT_TRACED = "healthz,readyz,metrics"


def trace_requests(app: FastAPI, provider: "TracerProvider | None" = None) -> None:
    """A span of every request to the application, with its route, status and duration, by OpenTelemetry's own instrumentation.

    Spans go to `provider`; by default over OTLP (HTTP) to the collector that one of `ENDPOINTS` names, under the other OTEL_*
    variables of the specification. Without such a variable, or with OTEL_SDK_DISABLED=true, nothing is traced; without the extra
    `otel` neither, and the log says so.
    """
    wanted = (
        any(os.environ.get(name) for name in ENDPOINTS) and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
    )
    if provider is None and not wanted:
        return
    try:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    except ModuleNotFoundError:
        log.warning("requests are not traced: opentelemetry is not installed; run: pip install 'newcomer[otel]'")
        return
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider or _to_collector(), excluded_urls=NOT_TRACED)


def _to_collector() -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource.create()  # from OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    unnamed = str(named.attributes["service.name"]).startswith("unknown_service")
    provider = TracerProvider(resource=named.merge(Resource({"service.name": "newcomer"})) if unnamed else named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))  # flushed when the process ends
    return provider
