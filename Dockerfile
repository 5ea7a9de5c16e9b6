# syntax=docker/dockerfile:1

# ---- build: needs OpenSSL's headers (AMQP), a C compiler and cmake (aws-lc, for HTTP) ----
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends cmake g++ libssl-dev make pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Writes the list of packages and versions into the binary, where scanners of images find it (`cargo audit bin`, Trivy, Grype).
RUN cargo install --locked cargo-auditable@0.7.7

# Dependencies first: this layer is built again only when a manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
COPY bench/Cargo.toml bench/
COPY chaos/Cargo.toml chaos/
COPY devkit/Cargo.toml devkit/
RUN mkdir -p src bench/benches bench/src chaos/src devkit/src \
 && echo 'fn main() {}' \
    | tee src/main.rs bench/benches/domain.rs bench/src/main.rs chaos/src/main.rs devkit/src/main.rs \
 && touch src/lib.rs bench/src/lib.rs devkit/src/lib.rs \
 && cargo auditable build --release --locked --package twinsync --bin twinsync

COPY config config
COPY docs/errors docs/errors
COPY src src
# Shown by /version and in twinsync_build_info.
ARG TWINSYNC_REVISION=unknown
# The copied files are older than the placeholders that cargo has seen: touch them, or it would keep those.
RUN find src -name '*.rs' -exec touch {} + \
 && TWINSYNC_REVISION="$TWINSYNC_REVISION" cargo auditable build --release --locked --package twinsync --bin twinsync

# ---- the binary alone: docker buildx build --target binary --output out . ----
FROM scratch AS binary
COPY --from=build /build/target/release/twinsync /

# ---- run ----
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 10001 twinsync \
 && useradd --system --uid 10001 --gid twinsync --no-create-home --shell /usr/sbin/nologin twinsync \
 && install --directory --owner=twinsync --group=twinsync /var/lib/twinsync
COPY --from=build /build/target/release/twinsync /usr/local/bin/twinsync

# By number, so that Kubernetes can see that it is not root. Mount a volume on /var/lib/twinsync: checkpoints and dead
# letters live there, unless they are on blobs. No VOLUME: an anonymous one goes with the container just the same, and the
# warning at start (STORAGE_EPHEMERAL) could not tell it from one that lasts.
USER 10001:10001
WORKDIR /var/lib/twinsync
# Probes come from outside the container. And no backtraces of errors, wherever RUST_BACKTRACE is set: the Cosmos DB client makes an
# error with each request, for a header that is not there, and a backtrace of it would cost more than the request's own work.
ENV TWINSYNC__HTTP__LISTEN=0.0.0.0:8080 \
    RUST_LIB_BACKTRACE=0
EXPOSE 8080
STOPSIGNAL SIGTERM
# For engines without probes of their own; Kubernetes uses /livez and /readyz.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["/usr/local/bin/twinsync", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/twinsync"]
CMD ["run"]
