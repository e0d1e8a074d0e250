//! The extender's flags and arguments.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::anyhow;
use drydock_io::access::User;
use drydock_phases::extend::{ExtendKind, Inputs};
use drydock_phases::{Error, Kind, build};

use super::flag::{self, Offer, always, since};
use super::layout::Layout;
use super::{Options, Task, unusable};
use crate::env;
use crate::privileges::Privileges;

/// The extender's flags. Specification: `platform.md` § Extender.
pub const FLAGS: &[Offer] = &[
    always(flag::ANALYZED),
    always(flag::APP),
    always(flag::BUILDPACKS),
    since(12, flag::EXTENDED),
    always(flag::GENERATED),
    always(flag::GID),
    always(flag::GROUP),
    always(flag::KANIKO_CACHE_TTL),
    since(12, flag::KIND),
    always(flag::LAYERS),
    always(flag::LOG_FILE),
    always(flag::PLAN),
    always(flag::PLATFORM),
    always(flag::UID),
];

/// The folder in which platforms put images for extenders, which goes by the name of the reference's tool.
const KANIKO_DIR: &str = "/kaniko";

/// What the extender is told. All paths are absolute.
#[derive(Debug)]
pub struct ExtendArgs {
    /// For the extender itself.
    pub extend: Inputs,
    /// For the buildpacks that run in an extended build image.
    pub build: build::Inputs,
    /// The file for the variables of an extended build image, whose buildpacks somebody else runs then.
    pub env_file: Option<PathBuf>,
    /// Who the buildpacks run as.
    pub user: User,
}

/// What the extender is to do.
pub fn resolve(options: &Options) -> Result<Task<ExtendArgs>, Error> {
    options.no_operands("received unexpected arguments")?;
    let kind = match options.text_or_default(&flag::KIND)?.as_str() {
        "build" => ExtendKind::Build,
        "run" => ExtendKind::Run,
        other => return Err(unusable(anyhow!("-kind is `{other}`: it must be `build` or `run`"))),
    };
    let user = options.user()?;
    let build = super::build::inputs(options)?;
    let two_weeks = Duration::from_hours(14 * 24);
    let args = ExtendArgs {
        extend: Inputs {
            platform_api: options.platform_api,
            kind,
            analyzed_path: build.analyzed_path.clone(),
            group_path: build.group_path.clone(),
            app_dir: build.app_dir.clone(),
            layers_dir: build.layers_dir.clone(),
            platform_dir: build.platform_dir.clone(),
            generated_dir: options.path(&flag::GENERATED),
            extended_dir: options.path(&flag::EXTENDED),
            kaniko_dir: PathBuf::from(KANIKO_DIR),
            cache_ttl: options.value(&flag::KANIKO_CACHE_TTL).map_or(Ok(two_weeks), |ttl| ttl.duration())?,
            layout_dir: Layout::of(options)?.dir().clone(),
            source_date_epoch: options.env.value(env::SOURCE_DATE_EPOCH).map(|v| v.text()).transpose()?,
            layer_compression: super::export::compression(options)?,
            threads: available_parallelism().unwrap_or(NonZeroUsize::MIN),
        },
        build,
        env_file: options.env.value(env::EXTENDED_ENV).map(|v| v.text()).transpose()?.map(PathBuf::from),
        user,
    };
    Ok(Task { privileges: Privileges::Keep, inputs: Ok(args) })
}

impl ExtendArgs {
    /// That buildpacks would run as root.
    pub(crate) fn check_user(&self) -> Result<(), Error> {
        if self.extend.kind == ExtendKind::Build && self.user.uid == 0 {
            let error = anyhow!("failed to build: refusing to run as root");
            return Err(Error::new(Kind::General, error).with_help(
                "name the user that buildpacks run as: -uid and -gid, or CNB_USER_ID and CNB_GROUP_ID",
            ));
        }
        Ok(())
    }

    /// What the buildpacks are told that run in an extended image with these variables, as this user.
    pub(crate) fn into_build(self, env: &[String], home: &str, name: &str) -> build::Inputs {
        let own = [("HOME", home), ("USER", name)];
        let given = env.iter().filter_map(|pair| pair.split_once('=')).chain(own);
        let mut build = self.build;
        for (name, value) in given {
            build.env.retain(|(old, _)| old != name);
            build.env.push((name.into(), value.into()));
        }
        build
    }
}
