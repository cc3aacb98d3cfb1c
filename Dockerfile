# One recipe, an image a runtime: `docker build --build-arg EXTRAS=memory,postgres -t mlserver-llm-memory .`
# The extras are those of pyproject.toml; the memory image carries no torch.
FROM python:3.11-slim AS build
ARG EXTRAS=all
# An index with CPU builds of torch, where wanted.
ARG TORCH_INDEX=
WORKDIR /src
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY runtimes runtimes
RUN case ",$EXTRAS," in *,all,*|*,transformers,*) \
      /opt/venv/bin/pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch ;; esac \
 && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]" \
 && /opt/venv/bin/pip uninstall -y pip

FROM python:3.11-slim
COPY --from=build /opt/venv /opt/venv
RUN useradd --uid 1000 --create-home --home-dir /opt/mlserver mlserver
USER 1000
WORKDIR /opt/mlserver
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    MLSERVER_MODELS_DIR=/mnt/models \
    MLSERVER_PARALLEL_WORKERS=0 \
    MLSERVER_DEBUG=false \
    MLSERVER_GRPC_MAX_MESSAGE_LENGTH=1048576000
HEALTHCHECK CMD python -c "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('MLSERVER_HTTP_PORT', '8080') + '/v2/health/live')"
CMD ["sh", "-c", "exec mlserver start \"$MLSERVER_MODELS_DIR\""]
