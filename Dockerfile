# Builds in one stage, runs in another, as a user without rights. No logic: see ci/.
#
#   docker build --build-arg PULSE_COMMIT="$(git rev-parse --short=12 HEAD)" -t pulse-node .
#   docker run --read-only -v pulse-data:/data -p 127.0.0.1:8080:8080 pulse-node --simulate

FROM debian:trixie-slim AS build
# An empty folder, for the volume below.
WORKDIR /out/data
WORKDIR /src
COPY ci/setup.sh ci/env.sh ci/
COPY rust-toolchain.toml .
RUN ci/setup.sh
COPY . .
ARG PULSE_COMMIT=unknown
ENV PULSE_COMMIT=$PULSE_COMMIT
RUN ci/build.sh /out

# The same Debian, for its glibc. Everything written goes to /data: the root may be read-only.
FROM debian:trixie-slim
COPY --from=build /out/pulse-node /usr/local/bin/pulse-node
# A volume that is made for this path takes over the folder's owner.
COPY --from=build --chown=10001:10001 /out/data /data
USER 10001:10001
VOLUME /data
ENV PULSE_NODE__DATA_DIR=/data/node
ENV PULSE_HTTP__ADDR=0.0.0.0:8080
EXPOSE 8080
STOPSIGNAL SIGTERM
# That the process answers, not that it is synced: a first sync takes long and is no fault.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["pulse-node", "health"]
ENTRYPOINT ["pulse-node"]
