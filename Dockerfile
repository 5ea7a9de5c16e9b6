# syntax=docker/dockerfile:1
# The image of twinsync. deploy/image/README.md describes its contents, and how to build it without Docker.
# Base images are pinned by digest; dependabot updates them.

# ---- build: needs OpenSSL's headers (AMQP), a C compiler and cmake (aws-lc, for HTTP) ----
FROM rust:1.95-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends cmake g++ libssl-dev make pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Embeds the list of crates and versions in the binary, for image scanners (`cargo audit bin`, Trivy, Grype).
RUN cargo install --locked cargo-auditable@0.7.7

# Dependencies first, so that this layer is built again only after a change of a manifest or of the lock file.
COPY Cargo.toml Cargo.lock ./
COPY bench/Cargo.toml bench/
COPY chaos/Cargo.toml chaos/
COPY crates/devkit/Cargo.toml crates/devkit/
COPY crates/eventhubs-emulator/Cargo.toml crates/eventhubs-emulator/
COPY crates/iothub-emulator/Cargo.toml crates/iothub-emulator/
RUN mkdir -p src bench/benches bench/src chaos/src crates/devkit/src crates/eventhubs-emulator/src crates/iothub-emulator/src \
 && echo 'fn main() {}' \
    | tee src/main.rs bench/benches/domain.rs bench/src/main.rs chaos/src/main.rs crates/devkit/src/main.rs \
 && touch src/lib.rs bench/src/lib.rs crates/devkit/src/lib.rs crates/eventhubs-emulator/src/lib.rs crates/iothub-emulator/src/lib.rs \
 && cargo auditable build --release --locked --package twinsync --bin twinsync

COPY config config
COPY docs/errors docs/errors
COPY src src
# The revision in /version and twinsync_build_info.
ARG TWINSYNC_REVISION=unknown
# The copied files are older than the placeholders. Without `touch`, cargo would not rebuild them.
RUN find src -name '*.rs' -exec touch {} + \
 && TWINSYNC_REVISION="$TWINSYNC_REVISION" cargo auditable build --release --locked --package twinsync --bin twinsync

# ---- the binary alone: docker buildx build --target binary --output out . ----
FROM scratch AS binary
COPY --from=build /build/target/release/twinsync /

# ---- only the parts of Debian that the binary needs ----
FROM debian:bookworm-slim@sha256:7b140f374b289a7c2befc338f42ebe6441b7ea838a042bbd5acbfca6ec875818 AS system
# Upgrades the packages, because a pinned base image may be old.
RUN apt-get update \
 && apt-get upgrade --yes \
 && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/*
COPY deploy/image/assemble /usr/local/bin/assemble
RUN assemble /system && mkdir /state

# ---- fails the build if the binary lacks a library ----
FROM system AS whole
COPY --from=build /build/target/release/twinsync /system/usr/local/bin/twinsync
RUN chroot /system /usr/local/bin/twinsync --version

# ---- run ----
FROM scratch
COPY --from=system /system /
# Checkpoints and dead letters are stored here, unless they are blobs: mount a volume on it. Without VOLUME, because an anonymous volume is
# deleted with the container, and the warning STORAGE_EPHEMERAL could not distinguish it from a persistent volume.
COPY --from=system --chown=10001:10001 /state /var/lib/twinsync
COPY --from=whole /system/usr/local/bin/twinsync /usr/local/bin/twinsync

LABEL org.opencontainers.image.title="twinsync" \
      org.opencontainers.image.description="An exact, queryable copy of Azure IoT Hub device twins in Azure Cosmos DB" \
      org.opencontainers.image.licenses="MIT"
# A number, so that Kubernetes can verify that it is not root.
USER 10001:10001
WORKDIR /var/lib/twinsync
# The daemon listens on all addresses, because probes come from outside the container. Backtraces of errors are disabled, even if RUST_BACKTRACE
# is set: the Cosmos DB client creates an error for a missing header with each request, and its backtrace would cost more than the request.
ENV PATH=/usr/local/bin \
    TWINSYNC__HTTP__LISTEN=0.0.0.0:8080 \
    RUST_LIB_BACKTRACE=0
EXPOSE 8080
STOPSIGNAL SIGTERM
# For engines without probes of their own; Kubernetes uses /livez and /readyz.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["/usr/local/bin/twinsync", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/twinsync"]
CMD ["run"]
