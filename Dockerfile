# The image of strongroom: one binary, no shell, no root. It runs with a read-only root file system; writable
# folders are mounted: the archive (if it is local), the write-ahead logs of webhooks, staging of S3 archives.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package strongroom \
    && cp target/release/strongroom /strongroom

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /strongroom /usr/local/bin/strongroom
USER 65532:65532
ENV TMPDIR=/staging
VOLUME ["/staging", "/var/lib/strongroom"]
EXPOSE 8443 9464
HEALTHCHECK NONE
ENTRYPOINT ["/usr/local/bin/strongroom"]
CMD ["run", "--config", "/etc/strongroom/strongroom.toml"]
