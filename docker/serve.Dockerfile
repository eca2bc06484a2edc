# syntax=docker/dockerfile:1
# The service, without Lightning. Build from the repository's root:
#   docker build -f docker/serve.Dockerfile -t dubio-serve .
# TORCH_INDEX names another package index for torch, such as one of CPU builds, which make a far smaller image.
# BASE names another base image. A tag can be moved, so name the digest of one that you have looked at:
#   --build-arg BASE=python:3.12-slim@sha256:...

ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG TORCH_INDEX=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/build && python -m venv /opt/dubio
WORKDIR /src
COPY constraints.txt ./
COPY requirements/ requirements/
# As wheels with these hashes, the build backend too, which stays behind in this stage.
RUN /opt/build/bin/pip install --only-binary :all: --no-deps --require-hashes -r requirements/build.txt \
    && /opt/dubio/bin/pip install --only-binary :all: --no-deps --require-hashes -r requirements/serve.txt
# torch has no hash, because its builds differ. What it needs is there already, so it brings CUDA's libraries at most.
# All of this outlives every change of the code.
RUN /opt/dubio/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -c constraints.txt torch
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/dubio/bin/pip install --no-deps --no-index /wheels/*.whl \
    && /opt/dubio/bin/pip check

FROM ${BASE}
ARG BASE
LABEL org.opencontainers.image.base.name=$BASE
COPY --from=build /opt/dubio /opt/dubio
# The same uid as in the training image, which writes the volume that this one reads.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin dubio \
    && install -d -o dubio -g dubio /app /app/runs /app/state
WORKDIR /app
USER 10001:10001
# Nothing is written outside /tmp, and /app/state if DUBIO_STATE_FOLDER names it, so the root file system may be read-only.
ENV PATH=/opt/dubio/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    DUBIO_HOST=0.0.0.0 DUBIO_PORT=8000
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"DUBIO_PORT\") or 8000}/v2/health/ready', timeout=2)"]
ENTRYPOINT ["dubio-serve"]
CMD ["runs/digits_mlp/model.ckpt"]
