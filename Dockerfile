# Chaperone as a container: one binary, no shell, no root.
#
#   docker build -t chaperone .
#   docker run --read-only -v chaperone-data:/data -p 127.0.0.1:8080:8080 -p 127.0.0.1:9090:9090 chaperone
#
# /data is the only place it writes to. A named volume is writable as it is; a directory of the host
# must belong to user 65532. The admin token is in /data/admin-token, unless
# CHAPERONE_CONTROL__SUPER_ADMIN_TOKEN sets one.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# The dependencies alone, beside an empty program: this layer holds until a manifest changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src tests \
 && touch src/lib.rs tests/main.rs \
 && echo 'fn main() {}' > src/main.rs \
 && cargo build --release --locked

# The program itself. Cargo judges by time stamps, and those of the copied files may be older than
# those of the empty program.
COPY config config
COPY migrations migrations
COPY src src
RUN touch src/lib.rs src/main.rs \
 && cargo build --release --locked \
 && mkdir /data

# The C library, the system's root certificates, and nothing to log in with.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/chaperone /usr/local/bin/chaperone
COPY config /etc/chaperone
COPY --from=build --chown=65532:65532 /data /data

# Inside a container, 127.0.0.1 would be out of reach for a published port and for a probe. A sidecar
# that shares its pod's network sets both back to 127.0.0.1. SQLite keeps its temporary files in /data
# too, because nothing else is writable.
ENV CHAPERONE_CONFIG=/etc/chaperone/chaperone.toml \
    CHAPERONE_CATALOG__CONFIG_DIR=/etc/chaperone \
    CHAPERONE_STORAGE__DATA_DIR=/data \
    CHAPERONE_DATA__LISTEN=0.0.0.0:8080 \
    CHAPERONE_CONTROL__LISTEN=0.0.0.0:9090 \
    SQLITE_TMPDIR=/data

# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/chaperone", "health"]
ENTRYPOINT ["/usr/local/bin/chaperone"]
CMD ["serve"]
