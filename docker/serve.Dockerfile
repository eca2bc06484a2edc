# syntax=docker/dockerfile:1
# The service, without Lightning. Build from the repository's root:
#   docker build -f docker/serve.Dockerfile -t dubio-serve .
# TORCH_INDEX names another package index for torch, such as one of CPU builds, which make a far smaller image.

FROM python:3.12-slim AS build
ARG TORCH_INDEX=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/dubio
ENV PATH=/opt/dubio/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
# Alone and first: the largest layer then outlives every change of the code. Another index seldom holds torch's own
# requirements in the tested versions, so they come with the next step.
RUN pip install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -c constraints.txt torch
COPY . .
RUN pip install -c constraints.txt '.[serve]'

FROM python:3.12-slim
COPY --from=build /opt/dubio /opt/dubio
# The same uid as in the training image, which writes the volume that this one reads.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin dubio \
    && install -d -o dubio -g dubio /app /app/runs
WORKDIR /app
USER 10001:10001
# Nothing is written outside /tmp, so the root file system may be read-only.
ENV PATH=/opt/dubio/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    DUBIO_HOST=0.0.0.0 DUBIO_PORT=8000
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"DUBIO_PORT\") or 8000}/v2/health/ready', timeout=2)"]
ENTRYPOINT ["dubio-serve"]
CMD ["runs/digits_mlp/model.ckpt"]
