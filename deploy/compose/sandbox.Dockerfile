# The gateway's image, which contains no sandbox, with the sandbox.
# hadolint ignore=DL3006
FROM gateway
COPY sandbox /opt/sandbox/sandbox
ENV PYTHONPATH=/opt/sandbox
