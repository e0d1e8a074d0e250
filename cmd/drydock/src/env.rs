//! The only look at the process's environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drydock_registry::Environment;

/// The layout repository.
const OCI_LAYOUT_PATH: &str = "CNB_OCI_LAYOUT_PATH";
/// What is kept to be quicker the next time: for all programs of a user.
const CACHE_HOME: [(&str, &str); 2] = [("XDG_CACHE_HOME", "drydock"), ("HOME", ".cache/drydock")];
/// Whether answers are without colour: here, and in all programs of a machine.
const NO_COLOR: [&str; 2] = ["CNB_NO_COLOR", "NO_COLOR"];

/// A variable; an empty one counts as unset.
#[expect(clippy::disallowed_methods, reason = "this is the one place for it")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// All variables, for whoever reaches registries.
#[expect(clippy::disallowed_methods, reason = "this is the one place for it")]
pub(crate) fn all() -> Environment {
    std::env::vars_os().collect()
}

/// The layout repository where no flag names it.
pub(crate) fn layout_dir() -> PathBuf {
    let usual = Path::new("/layout-repo");
    let here = || if usual.is_dir() { usual.to_owned() } else { "layout-repo".into() };
    variable(OCI_LAYOUT_PATH).map_or_else(here, PathBuf::from)
}

/// The folder of what can be made again; none if nothing says where the user's files are.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    let absolute = |(name, below): (&str, &str)| {
        variable(name).map(PathBuf::from).filter(|dir| dir.is_absolute()).map(|dir| dir.join(below))
    };
    CACHE_HOME.into_iter().find_map(absolute)
}

/// The files in which builds are settled: the user's, then the machine's.
pub(crate) fn config_files() -> Vec<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let own = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    own.into_iter().chain([PathBuf::from("/etc")]).map(|dir| dir.join("drydock/config.toml")).collect()
}

/// Where programs are looked for.
pub(crate) fn search_path() -> Option<OsString> {
    variable("PATH")
}

/// What says that this process is in a room.
pub(crate) fn room() -> Option<OsString> {
    variable(drydock_sandbox::room::MARK)
}

/// The folder in which the process outside has put what the one in the room builds from.
pub(crate) const FETCHED: &str = "DRYDOCK_FETCHED";

/// That folder.
pub(crate) fn fetched() -> Option<PathBuf> {
    variable(FETCHED).map(PathBuf::from)
}

/// How long the process outside took, in milliseconds.
pub(crate) const SPENT: &str = "DRYDOCK_SPENT";

/// The time that the process outside took before this one was started.
pub(crate) fn spent() -> Duration {
    let number = variable(SPENT).and_then(|text| text.to_str()?.parse().ok());
    Duration::from_millis(number.unwrap_or_default())
}

/// When everything is said to have been made.
pub(crate) fn source_date_epoch() -> Option<OsString> {
    variable("SOURCE_DATE_EPOCH")
}

/// A variable of the user that is to be handed on by its name; an empty one is empty.
#[expect(clippy::disallowed_methods, reason = "this is the one place for it")]
pub(crate) fn handed_on(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The folder of this executable, if the system tells.
pub(crate) fn own_dir() -> Option<PathBuf> {
    let executable = std::env::current_exe().and_then(std::fs::canonicalize).ok()?;
    executable.parent().map(Path::to_owned)
}

/// Where a lifecycle may be that came with this executable: unpacked beside it, packed beside it, or where
/// `cargo run -p drydock-package` puts it.
pub(crate) fn lifecycles() -> Vec<PathBuf> {
    let packed = concat!("lifecycle-", env!("CARGO_PKG_VERSION"), ".tgz");
    let Some(dir) = own_dir() else { return Vec::new() };
    let unpacked = dir.join("lifecycle.toml").is_file().then(|| dir.clone());
    let above = dir.parent().map(|above| above.join(packed));
    unpacked.into_iter().chain([dir.join(packed)]).chain(above).collect()
}

/// Whether colour is refused.
pub(crate) fn no_color() -> bool {
    NO_COLOR.iter().any(|name| variable(name).is_some_and(|value| value != "false"))
}
