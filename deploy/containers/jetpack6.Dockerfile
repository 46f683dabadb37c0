# jmt-edge live on JetPack 6 (6.1 or newer), Orin, with TensorRT and CUDA graphs. On the board, from a checkout:
#   docker build -f deploy/containers/jetpack6.Dockerfile -t jmt-edge:jetpack6 .
# Not built or run on a board yet.
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0
COPY . /src
# the base's OpenCV (4.8) has GStreamer; pip's would shadow it, and Ubuntu's python3-opencv (4.5.4) is older than what is tested
RUN apt-get update && \
    apt-get install -y --no-install-recommends python3-venv python3-libnvinfer libportaudio2 && \
    rm -rf /var/lib/apt/lists/* && \
    python3 -m venv --system-site-packages /opt/jmt-edge && \
    /opt/jmt-edge/bin/pip install --no-cache-dir --constraint /src/deploy/constraints/jetpack6.txt \
        '/src[gpu,build,page,record,mqtt,sign]' && \
    /opt/jmt-edge/bin/pip uninstall --yes opencv-python-headless && \
    /opt/jmt-edge/bin/python -c "import cv2; print(cv2.__version__)" && \
    rm -rf /src && \
    useradd --system --uid 10001 --groups audio,video,dialout --home-dir /var/lib/jmt-edge --create-home jmt-edge
ENV PATH=/opt/jmt-edge/bin:$PATH PYTHONDONTWRITEBYTECODE=1 JMT_EDGE_BUNDLES=/var/lib/jmt-edge/bundles
USER 10001
WORKDIR /var/lib/jmt-edge
VOLUME /var/lib/jmt-edge
EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=3s --start-period=900s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8765/healthz', timeout=2)"]
ENTRYPOINT ["jmt-edge"]
CMD ["live", "--page", "127.0.0.1:8765", "--output", "none"]
