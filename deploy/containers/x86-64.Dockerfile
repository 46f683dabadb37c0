# jmt-edge live on x86-64: the CPU run-time with the page, recordings and MQTT. From a checkout:
#   docker build -f deploy/containers/x86-64.Dockerfile -t jmt-edge:x86-64 .
FROM python:3.12-slim-bookworm AS build
COPY . /src
RUN python -m venv /opt/jmt-edge && \
    /opt/jmt-edge/bin/pip install --no-cache-dir '/src[page,record,mqtt,sign]'

FROM python:3.12-slim-bookworm
RUN apt-get update && \
    apt-get install -y --no-install-recommends libportaudio2 && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --system --uid 10001 --groups audio,video,dialout --home-dir /var/lib/jmt-edge --create-home jmt-edge
COPY --from=build /opt/jmt-edge /opt/jmt-edge
ENV PATH=/opt/jmt-edge/bin:$PATH PYTHONDONTWRITEBYTECODE=1 JMT_EDGE_BUNDLES=/var/lib/jmt-edge/bundles
USER 10001
WORKDIR /var/lib/jmt-edge
VOLUME /var/lib/jmt-edge
EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8765/healthz', timeout=2)"]
ENTRYPOINT ["jmt-edge"]
CMD ["live", "--page", "127.0.0.1:8765", "--output", "none"]
