# Two targets: `runtime`, the default, serves and holds nothing else; `dev` serves and can run the tests.
#
# Python 3.13 and not newer: every pinned package has a wheel for it, so no stage needs a compiler. Debian and not
# Alpine: those wheels are built for glibc. The tag carries no digest, so that a rebuild takes Debian's security fixes;
# for a build that can be repeated to the byte pass --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS base
ENV LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1


FROM base AS uv
WORKDIR /build
COPY deploy/uv.txt ./deploy/
RUN python3 -m venv /opt/uv \
 && /opt/uv/bin/pip install --no-cache-dir --require-hashes --requirement deploy/uv.txt
ENV PATH=/opt/uv/bin:$PATH \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never


# The build backend, too, comes in with a hash from the lock or not at all.
FROM uv AS wheel
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY src ./src
RUN uv build --wheel --build-constraint requirements.lock --require-hashes --out-dir /dist


# What the package needs, and only with a hash from the lock; then the package. Its own layer changes most often.
FROM uv AS packages
COPY pyproject.toml requirements.lock ./
RUN uv venv /opt/assay \
 && uv pip install --python /opt/assay --require-hashes --constraint requirements.lock --requirement pyproject.toml
COPY --from=wheel /dist /dist
RUN uv pip install --python /opt/assay --no-deps /dist/*.whl


# Everything in the lock, the package as it is shipped, and the source archive, from which the tests are taken.
FROM uv AS dev-packages
COPY requirements.lock ./
RUN uv venv /opt/assay \
 && uv pip sync --python /opt/assay --require-hashes requirements.lock
COPY . .
RUN uv build --sdist --build-constraint requirements.lock --require-hashes --out-dir /dist
COPY --from=wheel /dist /dist
RUN uv pip install --python /opt/assay --no-deps /dist/*.whl \
 && rm -r src


# How a container runs, whatever it holds. The id is fixed, so that the owner of a volume stays the same.
FROM base AS server
RUN groupadd --gid 10001 assay \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin assay \
 && install --directory --owner 10001 --group 10001 --mode 0700 /data
ENV PATH=/opt/assay/bin:$PATH \
    DATA_DIR=/data
COPY deploy/healthcheck.py /opt/
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python3", "-I", "/opt/healthcheck.py", "/health"]
CMD ["assay", "serve", "--host", "0.0.0.0"]


FROM server AS dev
# With strace the tests see that the disk has confirmed before a caller hears of it.
# Its version is that of the base image's release; a pinned one would be gone with the next fix.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends strace \
 && rm -rf /var/lib/apt/lists/*
COPY --from=dev-packages /opt/assay /opt/assay
COPY --from=dev-packages /dist /dist
COPY --from=dev-packages /build /app
COPY deploy/pytest /opt/dev/bin/
ENV PATH=/opt/dev/bin:$PATH
WORKDIR /app
USER 10001:10001


FROM server AS runtime
COPY --from=packages /opt/assay /opt/assay
WORKDIR /data
USER 10001:10001
