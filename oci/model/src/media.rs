//! Media types: what is written is always OCI's; docker's schema 2 is read as what it is equivalent to.
//!
//! Specification: OCI image-spec `media-types.md`, § Compatibility Matrix.

/// An index of manifests.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image's manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image's configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// What the types of all layers begin with.
pub const LAYERS: &str = "application/vnd.oci.image.layer.";
/// A layer without compression.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer compressed with gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer compressed with zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// What has no configuration has this one: `{}`.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The log of an image's build: an artifact that refers to the image, and its one layer.
pub const BUILD_LOG: &str = "application/vnd.drydock.build-log.v1+jsonl";

/// The OCI media type that means the same; the given one, if there is none.
pub fn to_oci(media_type: &str) -> &str {
    match media_type {
        "application/vnd.docker.distribution.manifest.list.v2+json" => INDEX,
        "application/vnd.docker.distribution.manifest.v2+json" => MANIFEST,
        "application/vnd.docker.container.image.v1+json" => CONFIG,
        "application/vnd.docker.image.rootfs.diff.tar" => LAYER,
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => LAYER_ZSTD,
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        }
        other => other,
    }
}
