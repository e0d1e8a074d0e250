//! How much of what others wrote is read: more is refused, with the file's name.
//!
//! Files are regular ones (`drydock_io::read`). Layouts have limits of their own (`drydock_layout`), and so
//! has the launcher.

/// Bytes in a file that is parsed: TOML of platforms, buildpacks and phases, the cache's metadata,
/// Dockerfiles of extensions, `/etc/os-release`. The largest in use, with bills of materials in them, have
/// some hundred kB. What their values may take in memory is bounded where they are parsed (`drydock_spec`).
pub const DOCUMENT: u64 = 4 << 20;

/// Bytes in all files of an environment folder together. Linux gives a process no more than 6 MiB of
/// arguments and variables, and 128 KiB in each.
pub const ENV_DIR: u64 = 8 << 20;

/// Bytes in a file that is only copied: of an SBOM, or of what an extension has in place of `bin/generate`.
/// SBOM files of large images have some hundred MB.
pub const COPIED: u64 = 1 << 30;

/// Bytes in the tar of a layer of SBOM files.
pub const SBOM_TAR: u64 = 1 << 30;

/// Bytes in the tar of a layer that lies in a file of `stored` bytes: a hundred times as many, or a GiB. Real layers
/// become three to ten times smaller when they are compressed, and what is large and nothing but zeros is no use as a
/// layer; made to be so, a tar can become a thousand times smaller and more.
pub fn layer_tar(stored: u64) -> u64 {
    stored.saturating_mul(100).max(1 << 30)
}
