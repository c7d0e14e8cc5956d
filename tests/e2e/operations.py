"""Calls of health and reflection, and a reader of metrics."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from tests.e2e.gateway import Gateway, get

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
REFLECTIONS: Final = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    """Return the current health status of a service."""
    response = await health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service=service), timeout=5
    )
    return int(response.status)


@asynccontextmanager
async def watching(channel: grpc.aio.Channel, service: str = "") -> AsyncIterator[AsyncIterator[int]]:
    """Watch the health of a service; yield an iterator over its statuses."""
    stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))

    async def statuses() -> AsyncIterator[int]:
        async for response in stream:
            yield int(response.status)

    try:
        yield statuses()
    finally:
        stream.cancel()


async def reflect(channel: grpc.aio.Channel, reflection: str, **asked: Any) -> Any:
    """Send one request to the reflection service; return its response."""
    method = channel.unary_stream(
        f"/{reflection}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    stream = method(reflection_pb2.ServerReflectionRequest(**asked), timeout=5)
    responses = [response async for response in stream]
    (response,) = responses
    return response


Samples = dict[str, float]


async def metrics(gateway: Gateway) -> Samples:
    """Return every sample by its name and labels, as the page writes them."""
    status, text = await get(gateway.admin, "/metrics")
    assert status == 200
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def names(samples: Samples) -> set[str]:
    """Return the names of metrics."""
    return {re.split("[{ ]", name)[0] for name in samples}
