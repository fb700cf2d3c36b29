# jobwire's server on SQLite, its database in the volume /data.
#
# The base is pinned by its exact tag, which fixes Python and Debian's release. For a build that must repeat bit for bit,
# append the tag's digest: PYTHON=3.11.14-slim-bookworm@sha256:...
ARG PYTHON=3.11.14-slim-bookworm

# Build: the wheel and its dependencies in one virtual environment. Nothing else of this stage reaches the image.
# The packages are those of deploy/image/, by their hashes (`make lock` renews them), and none is built here: what a build
# needs has no hash. Our own is, by a builder that is locked as well, in an environment of its own.
FROM python:${PYTHON} AS build
WORKDIR /src
COPY deploy/image ./
RUN python -m venv /opt/jobwire \
    && /opt/jobwire/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary=:all: --require-hashes -r requirements.txt \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary=:all: --require-hashes -r build.txt
COPY pyproject.toml README.md LICENSE ./
COPY generated/python generated/python
COPY client/python client/python
COPY server server
RUN /opt/build/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/jobwire/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-index dist/*.whl \
    && /opt/jobwire/bin/pip uninstall --yes pip setuptools

FROM python:${PYTHON}
# The id is fixed, so that a volume written by one image can be read by the next; high, to meet no account of the host.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin jobwire \
    && install --directory --owner jobwire --group jobwire --mode 0750 /data
COPY --from=build /opt/jobwire /opt/jobwire
# Nothing is written outside /data: the image runs with a read-only root file system.
ENV PATH=/opt/jobwire/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 7272 8272
# grpc.health.v1 through the command; NOT_SERVING while it drains, so a balancer looks elsewhere in time.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["jobwire", "health", "127.0.0.1:7272"]
# --insecure: a container's port is reached only through what its operator publishes; give TLS and tokens beyond that.
CMD ["jobwire", "serve", "--listen", "0.0.0.0:7272", "--insecure", "--store", "sqlite:////data/jobwire.db"]
