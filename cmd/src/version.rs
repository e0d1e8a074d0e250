//! Which version of the lifecycle this is.

/// The version, with the commit that it was built from if `DRYDOCK_COMMIT` named one.
pub(crate) fn version() -> String {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    match option_env!("DRYDOCK_COMMIT") {
        Some(commit) if !commit.is_empty() && !VERSION.contains(commit) => format!("{VERSION}+{commit}"),
        _ => VERSION.to_owned(),
    }
}
