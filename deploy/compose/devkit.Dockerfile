# syntax=docker/dockerfile:1
# The local Azure of compose.yaml. The context is the root of the repository.

# ---- build: needs OpenSSL's headers (AMQP), a C compiler and cmake (aws-lc, for HTTP) ----
FROM rust:1.95-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends cmake g++ libssl-dev make pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# All members of the workspace, because cargo reads the manifest of each. It compiles only the dependencies of devkit.
COPY . .
RUN cargo build --release --locked --package devkit --bin devkit

# ---- run ----
FROM debian:bookworm-slim@sha256:7b140f374b289a7c2befc338f42ebe6441b7ea838a042bbd5acbfca6ec875818
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 10002 devkit \
 && useradd --system --uid 10002 --gid devkit --no-create-home --shell /usr/sbin/nologin devkit
COPY --from=build /build/target/release/devkit /usr/local/bin/devkit
USER 10002:10002
# With backtraces, each request to Cosmos DB takes several times as much CPU time (crates/devkit/README.md).
ENV RUST_LIB_BACKTRACE=0
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/devkit"]
CMD ["up"]
