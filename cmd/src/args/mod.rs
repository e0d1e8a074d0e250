//! What a phase is told by flags and variables, resolved once into what it works on: flag before variable before
//! default. Each phase has a module with its flags and its resolution; what several share is here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use drydock_io::access::User;
use drydock_io::read::look;
use drydock_phases::buildpacks::Store;
use drydock_phases::export::CacheLocation;
use drydock_phases::path::clean;
use drydock_phases::{Error, Kind, Log};
use drydock_spec::api::PlatformApi;
use drydock_tar::Owner;

use crate::build_log::Kept;
use crate::env::{self, Env};
use crate::log::Threshold;
use crate::phase::Phase;
use crate::privileges::Privileges;
use crate::value::{Value, ValueError};

pub mod analyze;
pub mod build;
pub mod command_line;
pub mod create;
pub mod detect;
pub mod export;
pub mod extend;
pub mod flag;
pub mod layout;
pub mod rebase;
pub mod restore;

use command_line::CommandLine;
use flag::{Flag, LAYERS_PLACEHOLDER, Offer};
use layout::Layout;

/// What a phase is to do, and as whom.
#[derive(Debug)]
pub struct Task<I> {
    /// What must be done while the process is still root.
    pub privileges: Privileges,
    /// What the phase works on. An error here is told after privileges are dealt with.
    pub inputs: Result<I, Error>,
}

/// The flags of a phase.
pub fn offers(phase: Phase) -> &'static [Offer] {
    match phase {
        Phase::Analyze => analyze::FLAGS,
        Phase::Detect => detect::FLAGS,
        Phase::Restore => restore::FLAGS,
        Phase::Extend => extend::FLAGS,
        Phase::Build => build::FLAGS,
        Phase::Export => export::FLAGS,
        Phase::Create => create::FLAGS,
        Phase::Rebase => rebase::FLAGS,
    }
}

/// Arguments that make no task.
fn unusable(cause: impl Into<anyhow::Error>) -> Error {
    Error::new(Kind::Arguments, cause).context("failed to resolve inputs")
}

/// Everything that was said to a phase.
#[derive(Debug)]
pub struct Options {
    /// What is called.
    pub phase: Phase,
    /// The Platform API that the platform speaks.
    pub platform_api: PlatformApi,
    /// The environment.
    pub env: Env,
    /// Flags and arguments.
    pub command_line: CommandLine,
    /// What relative paths are relative to. Absolute.
    pub working_dir: PathBuf,
    /// Who runs this process.
    pub current_user: User,
}

impl Options {
    /// The value of a flag or, if it is not given, of its variable.
    fn value(&self, flag: &Flag) -> Option<Value> {
        self.command_line.values(flag).last().or_else(|| self.env.value(flag.variable?))
    }

    /// Text, if there is a value.
    fn text(&self, flag: &Flag) -> Result<Option<String>, ValueError> {
        self.value(flag).map(|value| value.text()).transpose()
    }

    /// Text, or the default.
    fn text_or_default(&self, flag: &Flag) -> Result<String, ValueError> {
        Ok(self.text(flag)?.unwrap_or_else(|| flag.default.to_owned()))
    }

    /// Whether a switch is on.
    pub(crate) fn switch(&self, flag: &Flag) -> Result<bool, ValueError> {
        self.value(flag).map_or(Ok(false), |value| value.boolean())
    }

    /// An absolute path, if there is a value.
    fn optional_path(&self, flag: &Flag) -> Option<PathBuf> {
        self.value(flag).map(|value| absolute(&self.working_dir, Path::new(&value.text)))
    }

    /// An absolute path; for flags that have a value or a default.
    fn path(&self, flag: &Flag) -> PathBuf {
        self.optional_path(flag).unwrap_or_else(|| {
            debug_assert!(!flag.default.is_empty(), "-{} has no default", flag.name);
            match flag.default.strip_prefix(LAYERS_PLACEHOLDER) {
                Some(below) => self.path(&flag::LAYERS).join(below),
                None => PathBuf::from(flag.default),
            }
        })
    }

    /// From which level on messages are shown.
    pub(crate) fn threshold(&self) -> Result<Threshold, Error> {
        let Some(level) = self.value(&flag::LOG_LEVEL) else { return Ok(Threshold::default()) };
        level.parse_with("`debug`, `info`, `warn` or `error`", Threshold::from_word).map_err(|error| {
            Error::new(Kind::General, error).context("failed to parse log level: invalid level")
        })
    }

    /// Where the build's log is kept, if this phase is part of one and it is to be kept.
    pub(crate) fn build_log(&self) -> Option<Kept> {
        let name = flag::LOG_FILE.name;
        let value = self
            .value(&flag::LOG_FILE)
            .filter(|_| offers(self.phase).iter().any(|it| it.flag.name == name))?;
        Some(match value.text.to_str() {
            Some("auto") => Kept::BesideImage { layers_dir: self.path(&flag::LAYERS) },
            _ => Kept::InFile(absolute(&self.working_dir, Path::new(&value.text))),
        })
    }

    /// Too many or too few arguments.
    fn wrong_count(&self, message: String) -> Error {
        Error::new(Kind::Arguments, anyhow::Error::msg(message))
            .context("failed to parse arguments")
            .with_help(format!("usage: {}", self.phase.usage()))
    }

    /// What the app is built for.
    fn exec_env(&self) -> Result<String, ValueError> {
        self.env.value(env::EXEC_ENV).map_or(Ok("production".to_owned()), |value| value.text())
    }

    /// Where buildpacks and extensions lie.
    fn store(&self) -> Store {
        Store { buildpacks_dir: self.path(&flag::BUILDPACKS), extensions_dir: self.path(&flag::EXTENSIONS) }
    }

    /// Where temporary files go.
    fn temp_dir(&self) -> PathBuf {
        let dir = self.env.value(env::TEMP_DIR).map_or("/tmp".into(), |value| value.text);
        absolute(&self.working_dir, Path::new(&dir))
    }

    /// The order to detect: the one given; else the one in the layers directory if there is one; else the builder's.
    fn order_path(&self) -> PathBuf {
        self.optional_path(&flag::ORDER).unwrap_or_else(|| {
            let in_layers = self.path(&flag::LAYERS).join("order.toml");
            // What cannot be looked at may well be there, and reading it tells why.
            let is_missing = look(&in_layers).is_ok_and(|found| found.is_none());
            if is_missing { PathBuf::from("/cnb/order.toml") } else { in_layers }
        })
    }

    /// Whether the previous image's layers are left alone. One switch under two names.
    fn skips_layers(&self, flag: &Flag) -> Result<bool, ValueError> {
        if let Some(given) = self.command_line.values(flag).last() {
            return given.boolean();
        }
        let is_set = |name| self.env.value(name).map_or(Ok(false), |value| value.boolean());
        Ok(is_set(env::SKIP_LAYERS)? | is_set(env::SKIP_RESTORE)?)
    }

    /// The user to work as: by default the one that runs this process.
    fn user(&self) -> Result<User, ValueError> {
        let id = |flag, current| self.value(flag).map_or(Ok(current), |value| value.id());
        Ok(User { uid: id(&flag::UID, self.current_user.uid)?, gid: id(&flag::GID, self.current_user.gid)? })
    }

    /// The cache: an image before a folder. Warns if there is none.
    fn cache(&self, layout: &Layout, log: &dyn Log) -> Result<Option<CacheLocation>, Error> {
        let image = self.text(&flag::CACHE_IMAGE)?.map(|name| layout.resolve_output(&name)).transpose()?;
        let cache = match image {
            Some(image) => Some(CacheLocation::Image(image)),
            None => self.optional_path(&flag::CACHE_DIR).map(CacheLocation::Dir),
        };
        if cache.is_none() {
            log.warn("No cached data will be used, no cache specified.");
        }
        Ok(cache)
    }

    /// The folder that has the layer index. Every cache has one, unless that was switched off.
    fn layer_index(&self, cache: Option<&CacheLocation>) -> Result<Option<PathBuf>, ValueError> {
        let is_on = self.env.value(env::LAYER_INDEX).map_or(Ok(true), |value| value.boolean())?;
        Ok(cache.filter(|_| is_on).map(CacheLocation::index_dir))
    }

    /// Whose layers are in images.
    fn owner(&self) -> Result<Owner, ValueError> {
        let User { uid, gid } = self.user()?;
        Ok(Owner { uid, gid })
    }

    /// Warns of what is only there for daemons and registries.
    fn warn_of_no_effect(&self, log: &dyn Log) {
        if self.value(&flag::LAUNCH_CACHE).is_some() {
            log.warn("Ignoring -launch-cache, only intended for use with -daemon");
        }
        if self.value(&flag::INSECURE_REGISTRY).is_some() {
            log.warn("Ignoring -insecure-registry, images are layouts on disk and no registry is used");
        }
    }

    /// Warns when `-parallel` has nothing to run beside the export.
    fn warn_of_parallel_without_cache(&self, log: &dyn Log) -> Result<(), ValueError> {
        let has_cache = self.value(&flag::CACHE_IMAGE).or_else(|| self.value(&flag::CACHE_DIR)).is_some();
        if self.switch(&flag::PARALLEL)? && !has_cache {
            log.warn("Parallel export has been enabled, but it has not taken effect because no cache has been specified.");
        }
        Ok(())
    }

    /// Those of these folders that there is a value or a default for.
    fn volumes(&self, flags: &[&Flag]) -> Vec<PathBuf> {
        let is_set = |flag: &&&Flag| !flag.default.is_empty() || self.value(flag).is_some();
        flags.iter().filter(is_set).map(|flag| self.path(flag)).collect()
    }

    /// Image names among the arguments.
    fn image_names(&self) -> Result<Vec<String>, ValueError> {
        let name = |text: OsString| Value { name: "the image argument".into(), text }.text();
        self.command_line.operands().into_iter().map(name).collect()
    }

    /// The one image name that analyzer and creator take, and those given with `-tag`.
    fn image_and_tags(&self) -> Result<(String, Vec<String>), Error> {
        let names = self.image_names()?;
        let [name] = &names[..] else {
            return Err(self.wrong_count(format!("received {} arguments, but expected 1", names.len())));
        };
        if name.is_empty() {
            return Err(unusable(anyhow::anyhow!("image argument is required")));
        }
        let tags = self.command_line.values(&flag::TAG).map(|tag| tag.text()).collect::<Result<_, _>>()?;
        Ok((name.clone(), tags))
    }

    /// The image names that exporter and rebaser take.
    fn images(&self) -> Result<Vec<String>, Error> {
        let mut names = self.image_names()?;
        match names.first() {
            None => return Err(self.wrong_count("at least one image argument is required".to_owned())),
            Some(name) if name.is_empty() => {
                return Err(unusable(anyhow::anyhow!("image argument is required")));
            }
            Some(_) => names.retain(|name| !name.is_empty()),
        }
        Ok(names)
    }

    /// For phases that take no arguments.
    fn no_operands(&self, message: &str) -> Result<(), Error> {
        if self.command_line.operands().is_empty() {
            Ok(())
        } else {
            Err(self.wrong_count(message.to_owned()))
        }
    }
}

/// The path as seen from `working_dir`. Names are not looked up on disk.
fn absolute(working_dir: &Path, path: &Path) -> PathBuf {
    clean(&working_dir.join(path))
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
