# The communication service, from a checkout of this repository:
#
#     docker build --tag kaa-gateway .
#
# Configured as KPC is: a service-config.yml where APP_CONFIG_PATH says, NATS servers in NATS_URLS. Writes nothing: runs with
# a read-only root file system (several workers keep their sockets in /tmp: give it a tmpfs then).

# A stable Debian changes its packages for security alone, and takes the old ones away.
# hadolint global ignore=DL3008
ARG DEBIAN=trixie

# The wheel, and those of its dependencies, whose versions and hashes are in deploy/locks: the only stage with a compiler.
FROM debian:${DEBIAN}-slim AS wheel
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY deploy/locks deploy/locks
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --quiet --no-cache-dir --require-hashes --requirement deploy/locks/build.txt \
    && /opt/build/bin/pip wheel --quiet --no-cache-dir --require-hashes --requirement deploy/locks/run.txt --wheel-dir /wheels
COPY pyproject.toml setup.py native.py README.md LICENSE ./
COPY gateway gateway
COPY ext ext
RUN /opt/build/bin/pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# The environment, from these wheels alone; pip goes when it has done its work.
FROM debian:${DEBIAN}-slim AS environment
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /wheels /wheels
RUN python3 -m venv /opt/kaa-gateway \
    && /opt/kaa-gateway/bin/pip install --quiet --no-cache-dir --no-index --find-links /wheels 'kaa-gateway[bridge,rest,tracing]' \
    && /opt/kaa-gateway/bin/pip uninstall --quiet --yes pip

FROM debian:${DEBIAN}-slim
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kaa-gateway" \
      org.opencontainers.image.description="Device gateway for the Kaa IoT platform: MQTT, MQTT-SN, CoAP, HTTP and UDP in, 4/ESP over NATS out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 kaa \
    && useradd --uid 10001 --gid kaa --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin kaa
COPY --from=environment /opt/kaa-gateway /opt/kaa-gateway
COPY deploy/healthcheck.py /opt/kaa-gateway/healthcheck.py
ENV PATH=/opt/kaa-gateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    APP_CONFIG_PATH=/srv/kpc/service-config.yml \
    NATS_URLS=nats://nats:4222
USER 10001:10001
# MQTT, MQTT over TLS, HTTP, management; CoAP, KP over UDP, the same encrypted, MQTT-SN
EXPOSE 1883/tcp 8883/tcp 8080/tcp 8008/tcp 5683/udp 5686/udp 5687/udp 1884/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "/opt/kaa-gateway/healthcheck.py"]
ENTRYPOINT ["kaa-gateway"]
CMD ["run"]
