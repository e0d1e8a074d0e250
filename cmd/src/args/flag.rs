//! Every flag, once: its name, its variable, its default. Which phase has which one is said beside each phase.

use drydock_spec::api::PlatformApi;

use crate::env;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Nothing, or `=true` or `=false`.
    Switch,
    /// A value, called this in usage texts. Given twice, the last one counts.
    One(&'static str),
    /// A value, called this in usage texts. It may be given several times.
    Many(&'static str),
}

/// A flag, and what stands in for it when it is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// The name without dashes.
    pub name: &'static str,
    /// What it takes.
    pub form: Form,
    /// The variable that counts if the flag is not given.
    pub variable: Option<&'static str>,
    /// What counts if neither is given; below [`LAYERS_PLACEHOLDER`] where it depends on `-layers`. Empty: nothing.
    pub default: &'static str,
    /// What it is for.
    pub about: &'static str,
}

/// Stands for the layers directory at the beginning of a default.
pub const LAYERS_PLACEHOLDER: &str = "<layers>/";

/// A flag and the Platform APIs that have it.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// The flag.
    pub flag: Flag,
    first: PlatformApi,
    last: PlatformApi,
}

impl Offer {
    /// Whether a platform that speaks `api` knows the flag.
    pub fn is_in(&self, api: PlatformApi) -> bool {
        (self.first..=self.last).contains(&api)
    }
}

/// A flag that every Platform API has.
pub(crate) const fn always(flag: Flag) -> Offer {
    Offer { flag, first: PlatformApi::OLDEST, last: PlatformApi::NEWEST }
}

/// A flag that came with Platform API 0.`minor`.
pub(crate) const fn since(minor: u32, flag: Flag) -> Offer {
    Offer { flag, first: PlatformApi::minor(minor), last: PlatformApi::NEWEST }
}

/// A flag that Platform API 0.`minor` was the last to have.
pub(crate) const fn until(minor: u32, flag: Flag) -> Offer {
    Offer { flag, first: PlatformApi::OLDEST, last: PlatformApi::minor(minor) }
}

const fn switch(name: &'static str, variable: &'static str, about: &'static str) -> Flag {
    Flag { name, form: Form::Switch, variable: Some(variable), default: "", about }
}

const fn one(
    name: &'static str,
    value: &'static str,
    variable: &'static str,
    default: &'static str,
    about: &'static str,
) -> Flag {
    Flag { name, form: Form::One(value), variable: Some(variable), default, about }
}

const fn path(
    name: &'static str,
    variable: &'static str,
    default: &'static str,
    about: &'static str,
) -> Flag {
    one(name, "path", variable, default, about)
}

const fn image(name: &'static str, variable: &'static str, about: &'static str) -> Flag {
    one(name, "image", variable, "", about)
}

pub(crate) const ANALYZED: Flag =
    path("analyzed", env::ANALYZED_PATH, "<layers>/analyzed.toml", "what the analyzer found");
pub(crate) const APP: Flag = path("app", env::APP_DIR, "/workspace", "the app's folder");
pub(crate) const BUILD_CONFIG: Flag =
    path("build-config", env::BUILD_CONFIG_DIR, "/cnb/build-config", "what the operator gives to buildpacks");
pub(crate) const BUILD_IMAGE: Flag =
    image("build-image", env::BUILD_IMAGE, "the image that the build runs on");
pub(crate) const BUILDPACKS: Flag =
    path("buildpacks", env::BUILDPACKS_DIR, "/cnb/buildpacks", "where buildpacks lie");
pub(crate) const CACHE_DIR: Flag = path("cache-dir", env::CACHE_DIR, "", "the folder of the cache");
pub(crate) const CACHE_IMAGE: Flag = image("cache-image", env::CACHE_IMAGE, "the image that is the cache");
pub(crate) const DAEMON: Flag = switch("daemon", env::USE_DAEMON, "images are in a daemon (unsupported)");
pub(crate) const DEPRECATED_IMAGE: Flag = Flag {
    name: "image",
    form: Form::One("image"),
    variable: None,
    default: "",
    about: "the run image (deprecated: use -run-image)",
};
pub(crate) const EXTENDED: Flag =
    path("extended", env::EXTENDED_DIR, "<layers>/extended", "where the extender writes layers");
pub(crate) const EXTENSIONS: Flag =
    path("extensions", env::EXTENSIONS_DIR, "/cnb/extensions", "where image extensions lie");
pub(crate) const FORCE: Flag = switch("force", env::FORCE_REBASE, "rebase even if it may be unsafe");
pub(crate) const GENERATED: Flag =
    path("generated", env::GENERATED_DIR, "<layers>/generated", "where image extensions write Dockerfiles");
pub(crate) const GID: Flag = one(
    "gid",
    "id",
    env::GROUP_ID,
    "",
    "the group that owns and builds (by default the group that runs this)",
);
pub(crate) const GROUP: Flag =
    path("group", env::GROUP_PATH, "<layers>/group.toml", "the buildpacks that take part");
pub(crate) const HELP: Flag =
    Flag { name: "help", form: Form::Switch, variable: None, default: "", about: "show this text (also -h)" };
pub(crate) const INSECURE_REGISTRY: Flag = Flag {
    name: "insecure-registry",
    form: Form::Many("registry"),
    variable: Some(env::INSECURE_REGISTRIES),
    default: "",
    about: "without effect: no registry is used",
};
pub(crate) const KANIKO_CACHE_TTL: Flag = one(
    "kaniko-cache-ttl",
    "duration",
    env::KANIKO_CACHE_TTL,
    "336h",
    "how long the extender's cached layers are good",
);
pub(crate) const KIND: Flag = one("kind", "build|run", env::EXTEND_KIND, "build", "which image to extend");
pub(crate) const LAUNCH_CACHE: Flag =
    path("launch-cache", env::LAUNCH_CACHE_DIR, "", "without effect: only daemons need it");
pub(crate) const LAUNCHER: Flag = Flag {
    name: "launcher",
    form: Form::One("path"),
    variable: None,
    default: "/cnb/lifecycle/launcher",
    about: "the executable that starts processes in the app image",
};
pub(crate) const LAUNCHER_SBOM: Flag = Flag {
    name: "launcher-sbom",
    form: Form::One("path"),
    variable: None,
    default: "/cnb/lifecycle",
    about: "the folder with the SBOM files of lifecycle and launcher",
};
pub(crate) const LAYER_COMPRESSION: Flag = one(
    "layer-compression",
    "method[:level]",
    env::LAYER_COMPRESSION,
    "gzip",
    "how layers are compressed: gzip, zstd or none",
);
pub(crate) const LAYERS: Flag = path("layers", env::LAYERS_DIR, "/layers", "the layers directory");
pub(crate) const LAYOUT: Flag =
    switch("layout", env::USE_OCI_LAYOUT, "images are OCI layouts on disk (also CNB_USE_LAYOUT)");
pub(crate) const LAYOUT_DIR: Flag = path(
    "layout-dir",
    env::OCI_LAYOUT_PATH,
    "/layout-repo",
    "the folder of all layouts (also CNB_LAYOUT_DIR)",
);
pub(crate) const LOG_FILE: Flag = one(
    "log-file",
    "path|auto",
    env::BUILD_LOG,
    "",
    "the file that the build's log is added to, as lines of JSON; auto: it is kept beside the image, for `drydock log`",
);
pub(crate) const LOG_LEVEL: Flag =
    one("log-level", "level", env::LOG_LEVEL, "info", "debug, info, warn or error");
pub(crate) const NO_COLOR: Flag = switch("no-color", env::NO_COLOR, "no colour (also NO_COLOR)");
pub(crate) const ORDER: Flag = path(
    "order",
    env::ORDER_PATH,
    "",
    "the order of buildpacks to detect; by default <layers>/order.toml if it is there, else /cnb/order.toml",
);
pub(crate) const PARALLEL: Flag =
    switch("parallel", env::PARALLEL_EXPORT, "write image and cache at the same time");
pub(crate) const PLAN: Flag = path("plan", env::PLAN_PATH, "<layers>/plan.toml", "the build plan");
pub(crate) const PLATFORM: Flag =
    path("platform", env::PLATFORM_DIR, "/platform", "what the platform gives to buildpacks");
pub(crate) const PREVIOUS_IMAGE: Flag = image(
    "previous-image",
    env::PREVIOUS_IMAGE,
    "the image whose layers may be reused; by default the one that is to be replaced",
);
pub(crate) const PROCESS_TYPE: Flag =
    one("process-type", "type", env::PROCESS_TYPE, "", "the process that the image starts by default");
pub(crate) const PROJECT_METADATA: Flag = path(
    "project-metadata",
    env::PROJECT_METADATA_PATH,
    "<layers>/project-metadata.toml",
    "where the app's source comes from",
);
pub(crate) const REPORT: Flag =
    path("report", env::REPORT_PATH, "<layers>/report.toml", "where to write what was exported");
pub(crate) const RUN: Flag = path("run", env::RUN_PATH, "/cnb/run.toml", "the run images to choose from");
pub(crate) const RUN_IMAGE: Flag =
    image("run-image", env::RUN_IMAGE, "the image that the app image is based on");
pub(crate) const SKIP_LAYERS: Flag = switch(
    "skip-layers",
    env::SKIP_LAYERS,
    "leave the previous image's layers alone (also CNB_SKIP_RESTORE)",
);
pub(crate) const SKIP_RESTORE: Flag = switch(
    "skip-restore",
    env::SKIP_RESTORE,
    "leave the previous image's layers alone (also CNB_SKIP_LAYERS)",
);
pub(crate) const STACK: Flag = path("stack", env::STACK_PATH, "/cnb/stack.toml", "the run image to choose");
pub(crate) const SYSTEM: Flag =
    path("system", env::SYSTEM_PATH, "/cnb/system.toml", "the buildpacks that take part in every build");
pub(crate) const TAG: Flag = Flag {
    name: "tag",
    form: Form::Many("image"),
    variable: None,
    default: "",
    about: "a further name of the app image",
};
pub(crate) const UID: Flag =
    one("uid", "id", env::USER_ID, "", "the user that owns and builds (by default the user that runs this)");
pub(crate) const VERSION: Flag =
    Flag { name: "version", form: Form::Switch, variable: None, default: "", about: "show the version" };

/// What every phase has.
pub const COMMON: [Offer; 4] = [always(HELP), always(LOG_LEVEL), always(NO_COLOR), always(VERSION)];
