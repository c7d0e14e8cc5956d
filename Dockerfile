# An image with only the gateway: no sandbox, no build tools, no root. It needs no shell.
#
# Pin the base image by digest, so that two builds of one commit give the same image:
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:<digest> .
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m venv /opt/build && /opt/build/bin/python -m pip install --require-hashes -r requirements/build.txt \
    && python -m venv /opt/gateway \
    && /opt/gateway/bin/python -m pip install --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md ./
COPY gen gen
COPY clients/__init__.py clients/
COPY clients/alipayhk clients/alipayhk
COPY sandbox sandbox
COPY service service
# For `--version` and the metrics: docker build --build-arg COMMIT=$(git rev-parse --short=12 HEAD) .
ARG COMMIT
RUN echo "${COMMIT:-}" > service/COMMIT \
    && /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/gateway/bin/python -m pip install --no-index --no-deps /wheels/*.whl \
    && rm -r /opt/gateway/lib/python3.*/site-packages/sandbox \
    && /opt/gateway/bin/python -m pip uninstall --yes pip \
    && mkdir -p /var/lib/alipayhk-gateway

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/gateway /opt/gateway
# The directory of the ledger. Mount a volume here, or set LEDGER_URL to a path on one.
COPY --from=build --chown=65532:65532 /var/lib/alipayhk-gateway /var/lib/alipayhk-gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/alipayhk-gateway
USER 65532:65532
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/opt/gateway/bin/alipayhk-gateway", "health"]
ENTRYPOINT ["/opt/gateway/bin/alipayhk-gateway"]
CMD ["serve"]
