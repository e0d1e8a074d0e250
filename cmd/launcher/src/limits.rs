//! How much the launcher reads of what buildpacks and users left. They are the phases' limits: what these let
//! into an image, the launcher reads.

/// Bytes in `metadata.toml`, and in what an `exec.d` program says. Parsing takes up to 130 times as much
/// memory.
pub(crate) const DOCUMENT: usize = 4 << 20;

/// Bytes in all files of an environment folder together: more than Linux gives to a process.
pub(crate) const ENV_DIR: usize = 8 << 20;
