# The service as a small image: one binary, the certificates of public authorities, no root.
# Build: docker build --tag odograph .

FROM rust:1.95.0-slim-trixie AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin odograph && \
    install --strip target/release/odograph /usr/local/bin/odograph

FROM debian:trixie-20261005-slim
COPY --from=build /usr/local/bin/odograph /usr/local/bin/odograph
# For a database with a certificate from a public authority (sslrootcert=system).
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A new volume takes owner and mode from the directory that it is mounted on.
RUN install -d --owner=10001 --group=10001 --mode=750 /var/lib/odograph
ENV ODOGRAPH_DATA_DIR=/var/lib/odograph \
    ODOGRAPH_LOG_FORMAT=json
# A number, so that orchestrators can see that it is not root.
USER 10001:10001
WORKDIR /var/lib/odograph
VOLUME /var/lib/odograph
EXPOSE 5027
STOPSIGNAL SIGTERM
# Whether the process can make progress. A database outage is no reason to restart the process that keeps the trackers' data.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["odograph", "health", "--live"]
ENTRYPOINT ["odograph"]
CMD ["serve"]
