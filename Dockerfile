# fluxsr serve in a container: not root, nothing written outside /tmp.
#
#   docker build -t fluxsr .                                                              CPU
#   docker build -t fluxsr:gpu --build-arg TORCH_INDEX=https://pypi.org/simple .          NVIDIA GPU
#
# torch of PyTorch's own index is the one without CUDA, a tenth of the other's size; the other is PyPI's.
FROM python:3.12-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/fluxsr/bin:$PATH
# hadolint ignore=DL3013
RUN python -m venv /opt/fluxsr \
    && pip install --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple "torch>=2.6"
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
COPY examples/building_lr.jpg examples/church_lr.jpg examples/
# hadolint ignore=DL3013
RUN pip install ".[serve,flux,heic,jxl]"

FROM python:3.12-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin fluxsr \
    && install -d -o fluxsr /models
COPY --from=build /opt/fluxsr /opt/fluxsr
# models by Hub id go to /models: mount a volume there
ENV PATH=/opt/fluxsr/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp HF_HOME=/models
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["fluxsr"]
CMD ["serve", "--host", "0.0.0.0"]
