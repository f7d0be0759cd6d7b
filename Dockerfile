# The endpoint's image. `docker run IMAGE serve` serves the model that is mounted, or unpacked by SageMaker, at /opt/ml/model.
#
#   BASE_IMAGE        any Debian 12 with apt
#   TORCH_VERSION     another one must suit the rest of constraints.txt
#   TORCH_INDEX_URL   an index of torch's builds, such as that of its CPU builds; empty: the CUDA build of pip's own index

ARG BASE_IMAGE=debian:bookworm-slim

# What pip builds and downloads stays in stages of its own, so that neither ends up in the image.
FROM ${BASE_IMAGE} AS builder
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# The packages, torch first: it is by far the largest and changes least.
FROM builder AS packages
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX_URL=""
COPY constraints.txt /build/
RUN sed -i "s/^torch==.*/torch==${TORCH_VERSION}/" /build/constraints.txt \
    && pip install -c /build/constraints.txt setuptools wheel \
    && pip install -c /build/constraints.txt ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} torch
# Only the list of requirements counts here, so an edit of the container's code leaves this layer as it is.
COPY pyproject.toml LICENSE /build/
RUN cd /build \
    && mkdir -p container/multigpu_inference && touch container/entrypoint.py container/multigpu_inference/__init__.py \
    && pip install -c constraints.txt --no-build-isolation '.[serve,app]' \
    && pip uninstall -y multigpu-inference wheel \
    && rm -rf /build \
    # Compiled here once, so that a start does not do it, nor an ordinary user try to. Unchecked: these sources never change.
    # The exit status does not matter: packages carry files that only a newer Python can read.
    && { python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/venv/lib || true; }

# The container's own code, on its own, to be laid over the packages.
FROM packages AS program
COPY pyproject.toml LICENSE /build/
COPY container /build/container
RUN cd /build \
    && pip install --no-deps --no-build-isolation --prefix /opt/program . \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/program/lib
# What the image is made of, for whoever looks for vulnerabilities in it: /opt/venv/sbom.cdx.json.
COPY scripts/sbom.py /build/
RUN PYTHONPATH=$(echo /opt/program/lib/python3*/site-packages) python /build/sbom.py /opt/program/sbom.cdx.json

FROM ${BASE_IMAGE} AS runtime
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates openjdk-17-jre-headless python3 \
    && rm -rf /var/lib/apt/lists/*
# Whom all but the first process run as: `multigpu_inference.unprivileged`.
RUN useradd --user-group --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin multigpu
COPY --from=packages /opt/venv /opt/venv
COPY --from=program /opt/program /opt/venv

ENV PATH=/opt/venv/bin:$PATH \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# SageMaker then says in SAGEMAKER_BIND_TO_PORT which port to take.
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true

EXPOSE 8080
# SageMaker, like `docker run IMAGE serve`, gives `serve` as the argument. -P: the working directory is no place to import from.
ENTRYPOINT ["/opt/venv/bin/python", "-P", "-m", "entrypoint"]
