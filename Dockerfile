# Builds the image of any runtime: `make image RUNTIME=memory`, or
# `docker build --build-arg EXTRAS=postgres,mysql -t mlserver-llm-memory:0.1.0 .`
# To pin the base image, build with `--build-arg PYTHON_IMAGE=python:3.11-slim-trixie@sha256:…`.
ARG PYTHON_IMAGE=python:3.11-slim-trixie

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Extras of pyproject.toml to install, separated by commas.
ARG EXTRAS=all,postgres,mysql
# Reject unknown extras, since pip only warns about them.
RUN python -c "import sys, tomllib; \
known = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; \
unknown = set(sys.argv[1].split(',')) - set(known); \
sys.exit(f'EXTRAS: {unknown} not among {sorted(known)}' if unknown else 0)" "$EXTRAS"
# Optional index with CPU builds of torch. The default build includes CUDA.
ARG TORCH_INDEX=
COPY runtimes runtimes
# Install wheels only, so that no package's build script runs. The environment itself contains no pip.
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --only-binary :all: -c constraints.txt \
      ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} ".[$EXTRAS]"

FROM ${PYTHON_IMAGE}
# Remove the installers of the base image.
RUN python -m pip uninstall --yes --root-user-action=ignore pip setuptools wheel \
 && rm -rf /usr/local/lib/python3.*/ensurepip \
 && useradd --uid 1000 --user-group --no-log-init --create-home --home-dir /var/lib/mlserver-llm mlserver
COPY --from=build /opt/venv /opt/venv
# With a read-only root file system, mount a volume at /tmp, and one at MLSERVER_LLM_DATA if the memory uses files.
# Nodes of Google Cloud mount the GPU driver at LD_LIBRARY_PATH. Elsewhere the folder is empty.
ENV PATH=/opt/venv/bin:$PATH \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    HOME=/var/lib/mlserver-llm \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    TRANSFORMERS_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1 \
    MLSERVER_LLM_DATA=/var/lib/mlserver-llm \
    MLSERVER_MODELS_DIR=/mnt/models \
    MLSERVER_METRICS_DIR=/tmp/mlserver/metrics \
    MLSERVER_ENVIRONMENTS_DIR=/tmp/mlserver/environments \
    MLSERVER_PARALLEL_WORKERS=0 \
    MLSERVER_DEBUG=false \
    MLSERVER_LLM_GC_THRESHOLD=10000 \
    MLSERVER_GRPC_MAX_MESSAGE_LENGTH=1048576000
WORKDIR /opt/mlserver
USER 1000:1000
EXPOSE 8080 8081 8082
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["python", "-c", "import http.client, os, sys; \
server = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('MLSERVER_HTTP_PORT', '8080')), timeout=4); \
server.request('GET', '/v2/health/ready'); sys.exit(server.getresponse().status != 200)"]
# `exec` makes the server process 1, so that it receives the signals.
CMD ["sh", "-c", "exec mlserver start \"$MLSERVER_MODELS_DIR\""]
ARG RUNTIME=all
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="mlserver-llm-${RUNTIME}" \
      org.opencontainers.image.description="MLServer inference runtimes for LLM applications" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
