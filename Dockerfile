# Runport's server without torch: it serves exports that were made elsewhere
# (`registry export`, in an image or environment with the `export` extra).
#
#   docker build -t runport .
#   docker run --rm -p 127.0.0.1:8000:8000 \
#     -e WANDB_API_KEY -v runport-cache:/var/cache/runport \
#     -v ./keys:/run/keys:ro \
#     runport serve bert=run-bert:production --host 0.0.0.0 --api-key-file /run/keys/predict
#
# Hardened: `--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges`.

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/runport
COPY pyproject.toml README.md LICENSE ./
COPY registry registry
COPY serving serving
RUN /opt/runport/bin/pip install --no-cache-dir .

FROM python:3.11-slim
RUN groupadd --gid 10001 runport \
    && useradd --uid 10001 --gid runport --create-home --home-dir /var/lib/runport \
        --shell /usr/sbin/nologin runport \
    && install -d -o runport -g runport -m 0700 /var/cache/runport
COPY --from=build /opt/runport /opt/runport
ENV PATH=/opt/runport/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    RUNPORT_CACHE_DIR=/var/cache/runport \
    RUNPORT_DATA_DIR=/var/lib/runport \
    WANDB_DIR=/tmp \
    WANDB_CACHE_DIR=/tmp/wandb-cache \
    WANDB_CONFIG_DIR=/tmp/wandb-config
USER 10001:10001
WORKDIR /var/lib/runport
VOLUME ["/var/cache/runport", "/var/lib/runport"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["registry"]
CMD ["--help"]
