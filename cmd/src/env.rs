//! The variables that platforms set, and the only look at the process environment.
//!
//! Specification: `platform.md` § Environment, and of each phase § Inputs.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::value::{Value, non_empty};

macro_rules! variables {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*
    };
}

variables! {
    /// Where the analyzer's findings are written and read.
    ANALYZED_PATH = "CNB_ANALYZED_PATH";
    /// The app's folder.
    APP_DIR = "CNB_APP_DIR";
    /// What the operator of a platform gives to buildpacks.
    BUILD_CONFIG_DIR = "CNB_BUILD_CONFIG_DIR";
    /// The image that the build runs on.
    BUILD_IMAGE = "CNB_BUILD_IMAGE";
    /// Where the build's log is kept.
    BUILD_LOG = "CNB_BUILD_LOG";
    /// Where buildpacks lie.
    BUILDPACKS_DIR = "CNB_BUILDPACKS_DIR";
    /// The folder of the cache.
    CACHE_DIR = "CNB_CACHE_DIR";
    /// The image that is the cache.
    CACHE_IMAGE = "CNB_CACHE_IMAGE";
    /// What the app is built for.
    EXEC_ENV = "CNB_EXEC_ENV";
    /// What to do when something experimental is asked for.
    EXPERIMENTAL_MODE = "CNB_EXPERIMENTAL_MODE";
    /// Whether the extender extends the build image or the run image.
    EXTEND_KIND = "CNB_EXTEND_KIND";
    /// The file to which the extender writes an extended build image's variables, in place of running the buildpacks.
    EXTENDED_ENV = "CNB_EXTENDED_ENV";
    /// Where the extender writes layers.
    EXTENDED_DIR = "CNB_EXTENDED_DIR";
    /// Where image extensions lie.
    EXTENSIONS_DIR = "CNB_EXTENSIONS_DIR";
    /// Whether to rebase what is not known to be safe.
    FORCE_REBASE = "CNB_FORCE_REBASE";
    /// Where image extensions write Dockerfiles.
    GENERATED_DIR = "CNB_GENERATED_DIR";
    /// The group of the user that owns and builds.
    GROUP_ID = "CNB_GROUP_ID";
    /// Where the group of buildpacks that passed detection is written and read.
    GROUP_PATH = "CNB_GROUP_PATH";
    /// Registries without TLS, separated by commas.
    INSECURE_REGISTRIES = "CNB_INSECURE_REGISTRIES";
    /// How long the extender's cached layers are good.
    KANIKO_CACHE_TTL = "CNB_KANIKO_CACHE_TTL";
    /// The cache of layers for a daemon.
    LAUNCH_CACHE_DIR = "CNB_LAUNCH_CACHE_DIR";
    /// How layers are compressed.
    LAYER_COMPRESSION = "CNB_LAYER_COMPRESSION";
    /// Whether unchanged layers are known by how their files look.
    LAYER_INDEX = "CNB_LAYER_INDEX";
    /// The layers directory.
    LAYERS_DIR = "CNB_LAYERS_DIR";
    /// The specification's name of [`OCI_LAYOUT_PATH`].
    LAYOUT_DIR = "CNB_LAYOUT_DIR";
    /// How blobs come from one layout into another: auto, reflink, hardlink or copy.
    LAYOUT_LINK = "CNB_LAYOUT_LINK";
    /// Whether images must be on the disk before old ones are removed.
    LAYOUT_SYNC = "CNB_LAYOUT_SYNC";
    /// From which level on messages are shown.
    LOG_LEVEL = "CNB_LOG_LEVEL";
    /// Whether messages are without colour.
    NO_COLOR = "CNB_NO_COLOR";
    /// The same for all programs of a machine, whatever its value.
    NO_COLOR_ANYWHERE = "NO_COLOR";
    /// The folder that holds every image's layout.
    OCI_LAYOUT_PATH = "CNB_OCI_LAYOUT_PATH";
    /// The order of buildpacks to detect.
    ORDER_PATH = "CNB_ORDER_PATH";
    /// Whether image and cache are written at the same time.
    PARALLEL_EXPORT = "CNB_PARALLEL_EXPORT";
    /// Where the build plan is written and read.
    PLAN_PATH = "CNB_PLAN_PATH";
    /// The version of the contract that the platform speaks.
    PLATFORM_API = "CNB_PLATFORM_API";
    /// What the platform gives to buildpacks.
    PLATFORM_DIR = "CNB_PLATFORM_DIR";
    /// The image whose layers may be reused.
    PREVIOUS_IMAGE = "CNB_PREVIOUS_IMAGE";
    /// The process that the app image starts by default.
    PROCESS_TYPE = "CNB_PROCESS_TYPE";
    /// Where the app's source comes from.
    PROJECT_METADATA_PATH = "CNB_PROJECT_METADATA_PATH";
    /// Where it is written what was exported.
    REPORT_PATH = "CNB_REPORT_PATH";
    /// The image that the app image is based on.
    RUN_IMAGE = "CNB_RUN_IMAGE";
    /// The run images to choose from.
    RUN_PATH = "CNB_RUN_PATH";
    /// Whether the previous image's layers are left alone.
    SKIP_LAYERS = "CNB_SKIP_LAYERS";
    /// The same, by the name that the creator uses.
    SKIP_RESTORE = "CNB_SKIP_RESTORE";
    /// The creation time of images, in seconds since 1970.
    SOURCE_DATE_EPOCH = "SOURCE_DATE_EPOCH";
    /// The run image to choose, before Platform API 0.12.
    STACK_PATH = "CNB_STACK_PATH";
    /// The buildpacks that take part in every build.
    SYSTEM_PATH = "CNB_SYSTEM_PATH";
    /// Where temporary files go.
    TEMP_DIR = "TMPDIR";
    /// Whether images are in a daemon.
    USE_DAEMON = "CNB_USE_DAEMON";
    /// The specification's name of [`USE_OCI_LAYOUT`].
    USE_LAYOUT = "CNB_USE_LAYOUT";
    /// Whether images are layouts on disk.
    USE_OCI_LAYOUT = "CNB_USE_OCI_LAYOUT";
    /// The user that owns and builds.
    USER_ID = "CNB_USER_ID";
}

/// The environment as it was when the process began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<OsString, OsString>);

impl Env {
    /// The environment of this process. `main` looks at it once.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// What a variable holds; none if it is unset or empty.
    pub fn value(&self, name: &str) -> Option<Value> {
        non_empty(name, self.0.get(OsStr::new(name))?)
    }

    /// Every variable, by name: what a buildpack's environment is made from.
    pub fn variables(&self) -> Vec<(OsString, OsString)> {
        self.0.clone().into_iter().collect()
    }

    /// The same environment with a variable set.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let env = Env::from_iter([("CNB_UID", ""), ("CNB_GROUP_ID", "7")]);
        assert_eq!(env.value("CNB_UID"), None);
        assert_eq!(env.value("CNB_USER_ID"), None);
        assert_eq!(env.value(GROUP_ID).unwrap().id(), Ok(7));
        assert_eq!(env.with(GROUP_ID, "8").value(GROUP_ID).unwrap().id(), Ok(8));
    }
}
