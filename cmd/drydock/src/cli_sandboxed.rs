//! What can be asked of commands that run something in a sandbox.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use drydock_images::builder::selection::Selection;
use drydock_images::export::Target;
use drydock_sandbox::bundle::Mount;
use drydock_sandbox::limits::Limits;
use drydock_sandbox::network::Port;

use crate::cli::ForPlatform;
use crate::commands::sandboxed::Asked;
use crate::exit::Usage;

/// What all of them take.
#[derive(Debug, Args)]
pub(crate) struct Sandboxed {
    /// The OCI runtime: a name or a path [default: the first of crun, runc, youki that is installed]
    #[arg(long, value_name = "RUNTIME")]
    pub(crate) runtime: Option<String>,
    /// A file or folder of this machine that can be seen there; read-only unless it says `rw`
    #[arg(long, value_name = "HOST:PATH[:ro|rw]", value_parser = volume)]
    pub(crate) volume: Vec<Mount>,
    /// Whom it can talk to: whom this machine can talk to and the machine itself, or nobody [default: whom this machine can talk to, if
    /// pasta or slirp4netns is installed; else host, with a warning]
    #[arg(long, value_enum)]
    pub(crate) network: Option<Reach>,
    /// Memory at most: bytes, or with `k`, `m`, `g`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// Cores at most: `1.5`
    #[arg(long, value_name = "N", value_parser = cores)]
    cpus: Option<u64>,
    /// Processes and threads at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pids_limit: Option<u64>,
}

/// Networks that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reach {
    Host,
    None,
}

impl Sandboxed {
    pub(crate) fn limits(&self) -> Limits {
        Limits { memory: self.memory, cpus: self.cpus, pids: self.pids_limit }
    }
}

/// An image of which something is started.
#[derive(Debug, Args)]
pub(crate) struct Started {
    pub(crate) name: String,
    /// A variable; without a value, that of this command
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// A port that the app listens on, and which this machine is to have at 127.0.0.1 (another one, if two are given)
    #[arg(long, short, value_name = "[PORT:]PORT", value_parser = port, conflicts_with = "network")]
    pub(crate) publish: Vec<Port>,
    #[command(flatten)]
    pub(crate) sandboxed: Sandboxed,
    #[command(flatten)]
    pub(crate) platform: ForPlatform,
}

/// `drydock run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) image: Box<Started>,
    /// The process of an app image that is started [default: the image's own default]
    #[arg(long, value_name = "TYPE")]
    pub(crate) process: Option<String>,
    /// Arguments in place of those that the image has
    #[arg(last = true)]
    pub(crate) args: Vec<String>,
}

/// `drydock shell`.
#[derive(Debug, Args)]
pub(crate) struct Shell {
    #[command(flatten)]
    pub(crate) image: Box<Started>,
    /// A static busybox of this machine, for an image that has no shell
    #[arg(long, value_name = "FILE")]
    pub(crate) busybox: Option<PathBuf>,
}

/// `drydock build`.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// What the app image is called
    pub(crate) name: String,
    /// The app's source: a folder, a tar (compressed or not), or a zip, jar or war file
    #[arg(long, short, value_name = "DIR|ARCHIVE", default_value = ".")]
    pub(crate) path: PathBuf,
    /// The image that has the buildpacks [default: project.toml says it, or `default-builder` in
    /// `$XDG_CONFIG_HOME/drydock/config.toml` or `/etc/drydock/config.toml`]
    #[arg(long, short = 'B', value_name = "NAME")]
    pub(crate) builder: Option<String>,
    /// What the app says of its own build: a Project Descriptor 0.1 or 0.2 [default: project.toml in the source's folder]
    #[arg(long, short = 'd', value_name = "FILE")]
    pub(crate) descriptor: Option<PathBuf>,
    /// The image that the app image is based on [default: the builder says it]
    #[arg(long, value_name = "NAME")]
    pub(crate) run_image: Option<String>,
    /// A buildpack instead of the builder's order, given once for each, in their order: `[from=builder:]ID[@VERSION]` for one of
    /// the builder's, `from=builder` for its whole order, a folder, a `.cnb` or `.tgz` file or its URL, a package in the layout
    /// repository, or `oci:DIR[:TAG]`
    #[arg(long, short, value_name = "BUILDPACK", value_delimiter = ',', value_parser = asked)]
    pub(crate) buildpack: Vec<Asked>,
    /// A buildpack before each group of the order; as with --buildpack
    #[arg(long, value_name = "BUILDPACK", value_parser = asked)]
    pub(crate) pre_buildpack: Vec<Asked>,
    /// A buildpack after each group of the order; as with --buildpack
    #[arg(long, value_name = "BUILDPACK", value_parser = asked)]
    pub(crate) post_buildpack: Vec<Asked>,
    /// An image extension besides those of the order; as with --buildpack
    #[arg(long, value_name = "EXTENSION", value_delimiter = ',', value_parser = asked)]
    pub(crate) extension: Vec<Asked>,
    /// A variable for the buildpacks; without a value, that of this command
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// A file of such variables, one a line, as `docker run` reads it: `#` begins a comment at the beginning of a line only, what
    /// follows the `=` is the value with all its spaces, and no name has a space; `--env` wins over it
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// A further name of the app image
    #[arg(long, short, value_name = "NAME", value_delimiter = ',')]
    pub(crate) tag: Vec<String>,
    /// The image whose layers may be reused [default: the one that is to be replaced]
    #[arg(long, value_name = "NAME")]
    pub(crate) previous_image: Option<String>,
    /// The process that the image starts by default
    #[arg(long, short = 'D', value_name = "TYPE")]
    pub(crate) default_process: Option<String>,
    /// The folder that keeps layers for the next build [default: one for each image, with all that is cached]
    #[arg(long, value_name = "DIR", value_parser = cache)]
    pub(crate) cache: Option<PathBuf>,
    /// Begin without what earlier builds have left
    #[arg(long)]
    pub(crate) clear_cache: bool,
    /// Write all SBOM files below this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) sbom_output_dir: Option<PathBuf>,
    /// Write `report.toml` into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) report_output_dir: Option<PathBuf>,
    /// When the image is said to have been made, in seconds since 1970, or `now` [default: in 1980]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) creation_time: Option<u64>,
    /// Where buildpacks see the app
    #[arg(long, value_name = "PATH", default_value = "/workspace", value_parser = inner_path)]
    pub(crate) workspace: String,
    /// Who the buildpacks run as [default: the builder says it]
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u32).range(1..i64::from(u32::MAX)))]
    pub(crate) uid: Option<u32>,
    /// The group that the buildpacks run as [default: the builder says it]
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u32).range(..i64::from(u32::MAX)))]
    pub(crate) gid: Option<u32>,
    /// Let the builder's programs see the layout repository and the cache: all phases run in one sandbox. So it is with
    /// `trusted-builders` in `$XDG_CONFIG_HOME/drydock/config.toml` or `/etc/drydock/config.toml`
    #[arg(long)]
    pub(crate) trust_builder: bool,
    /// The folder of the phases, or `builder` for those in a builder that is trusted [default: `lifecycle` beside this program, or
    /// that program's own folder]
    #[arg(long, value_name = "DIR|builder", value_parser = lifecycle)]
    pub(crate) lifecycle: Option<Lifecycle>,
    /// Stop the build after this time: `90s`, `15m`, `1h`
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Write the image to elsewhere too, as `drydock export` does: `oci-archive:FILE`, `docker-archive:FILE`, `docker://NAME`, …
    #[arg(long, short, value_name = "TARGET")]
    pub(crate) output: Vec<Target>,
    #[command(flatten)]
    pub(crate) platform: ForPlatform,
    #[command(flatten)]
    pub(crate) sandboxed: Sandboxed,
    /// The descriptor, and those of its keys that mean nothing.
    #[arg(skip)]
    pub(crate) unknown_keys: Option<(PathBuf, Vec<String>)>,
    /// Variables of the descriptor.
    #[arg(skip)]
    pub(crate) described_env: Vec<String>,
    /// The files of the source that the descriptor chooses.
    #[arg(skip)]
    pub(crate) selection: Selection,
}

/// Whose phases run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    /// Those that the builder has.
    Builder,
    /// Those in a folder of this machine.
    Dir(PathBuf),
}

impl Build {
    /// The builder's name.
    pub(crate) fn builder(&self) -> Result<&str, Usage> {
        let missing = || {
            Usage("no builder is named: name one with --builder, in project.toml, or as default-builder in config.toml".to_owned())
        };
        self.builder.as_deref().ok_or_else(missing)
    }
}

fn asked(text: &str) -> Result<Asked, String> {
    if text.is_empty() {
        return Err("expected the name of one, not nothing".to_owned());
    }
    Ok(Asked::Named(text.to_owned()))
}

/// A folder for layers, or what pack calls one: `type=build;format=bind;source=DIR`.
fn cache(text: &str) -> Result<PathBuf, String> {
    if !text.contains(';') && !text.starts_with("type=") {
        return Ok(text.into());
    }
    let mut source = None;
    for part in text.split(';') {
        match part.split_once('=') {
            Some(("type", "build") | ("format", "bind")) => {}
            Some(("source", dir)) if !dir.is_empty() => source = Some(dir.into()),
            _ => {
                return Err(format!(
                    "`{part}` is not known: name a folder, or `type=build;format=bind;source=DIR`"
                ));
            }
        }
    }
    source.ok_or_else(|| "a folder is missing: `type=build;format=bind;source=DIR`".to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "this is what clap takes")]
fn lifecycle(text: &str) -> Result<Lifecycle, Infallible> {
    Ok(if text == "builder" { Lifecycle::Builder } else { Lifecycle::Dir(text.into()) })
}

fn volume(text: &str) -> Result<Mount, String> {
    let expected = "expected `HOST:PATH`, as in `/home/me/m2:/cache/m2:rw`";
    let (from, rest) = text.split_once(':').ok_or(expected)?;
    let (to, mode) = rest.split_once(':').unwrap_or((rest, "ro"));
    let writable = match mode {
        "ro" => false,
        "rw" => true,
        "z" | "Z" => {
            return Err(format!(
                "`{mode}` is about SELinux labels, which are left as they are: the modes are `ro` and `rw`"
            ));
        }
        _ => return Err(format!("the modes are `ro` and `rw`, not `{mode}`; {expected}")),
    };
    let to = inner_path(to)?;
    let from = std::fs::canonicalize(from).map_err(|error| format!("cannot find `{from}`: {error}"))?;
    Ok(Mount { from, to, writable })
}

/// A path in a sandbox.
fn inner_path(text: &str) -> Result<String, String> {
    let path = Path::new(text);
    let is_plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if !path.is_absolute() || !is_plain || path.parent().is_none() {
        return Err(format!("expected an absolute path without `..`, not `{text}`"));
    }
    if ["/proc", "/sys"].iter().any(|dir| path.starts_with(dir)) || path == Path::new("/dev") {
        return Err(format!("`{text}` is the kernel's: nothing else can be there"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn port(text: &str) -> Result<Port, String> {
    let number = |text: &str| text.parse().ok().filter(|port| *port > 0);
    let (outside, inside) = text.split_once(':').unwrap_or((text, text));
    let ports = number(outside).zip(number(inside)).map(|(outside, inside)| Port { outside, inside });
    ports.ok_or_else(|| "expected a port or two, as in `8080` or `8080:80`".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err("expected a number with `k`, `m` or `g`, as in `512m`".to_owned()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "expected a size, as in `512m`".to_owned())
}

/// Thousandths of a core.
fn cores(text: &str) -> Result<u64, String> {
    let expected = || "expected a number of cores, as in `1.5`".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole: u64 = whole.parse().map_err(|_| expected())?;
    if fraction.is_empty() || fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected());
    }
    let fraction: u64 = format!("{fraction:0<3}").parse().map_err(|_| expected())?;
    whole.checked_mul(1000).map(|whole| whole + fraction).filter(|cores| *cores > 0).ok_or_else(expected)
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("expected a time, as in `90s`, `15m` or `1h`".to_owned()),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let seconds = seconds.filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| "expected a time, as in `90s`".to_owned())
}

/// The last second of the year 9999: no later time can be written down in a configuration.
const LAST_SECOND: u64 = 253_402_300_799;

/// Seconds since 1970.
pub(crate) fn time(text: &str) -> Result<u64, String> {
    if text == "now" {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        return now.map(|now| now.as_secs()).map_err(|error| error.to_string());
    }
    let seconds = text.parse().map_err(|_| "expected `now` or seconds since 1970".to_owned())?;
    if seconds > LAST_SECOND {
        return Err(format!("expected a time before the year 10000: at most {LAST_SECOND}"));
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    impl Build {
        /// What a command line asks for, without `drydock build`.
        pub(crate) fn of(args: &[&str]) -> Self {
            match Cli::try_parse_from([&["drydock", "build"], args].concat()).unwrap().command {
                Command::Build(build) => *build,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn sizes_times_and_cores_are_read() {
        for (text, want) in
            [("512m", Some(512 << 20)), ("1G", Some(1 << 30)), ("7", Some(7)), ("0", None), ("1t", None)]
        {
            assert_eq!(size(text).ok(), want, "{text}");
        }
        for (text, want) in [
            ("1", Some(1000)),
            ("1.5", Some(1500)),
            ("0.25", Some(250)),
            ("0", None),
            ("x", None),
            ("1.2345", None),
        ] {
            assert_eq!(cores(text).ok(), want, "{text}");
        }
        for (text, want) in
            [("90s", Some(90)), ("2m", Some(120)), ("1h", Some(3600)), ("0", None), ("1d", None)]
        {
            assert_eq!(duration(text).ok(), want.map(Duration::from_secs), "{text}");
        }
        assert_eq!((time("5"), time("x").is_err()), (Ok(5), true));
        assert_eq!((time("253402300799"), time("253402300800").is_err()), (Ok(LAST_SECOND), true));
    }

    #[test]
    fn folders_are_named_as_pack_does_too() {
        for (text, want) in [
            ("/c", Some("/c")),
            ("a=b", Some("a=b")),
            ("type=build;format=bind;source=/c", Some("/c")),
            ("type=build;format=volume;name=c", None),
            ("type=launch;format=bind;source=/c", None),
            ("type=build;format=bind", None),
            ("type=build;format=bind;source=", None),
        ] {
            assert_eq!(cache(text).ok().as_deref(), want.map(Path::new), "{text}");
        }
        assert_eq!(Build::of(&["app", "-t", "a,b", "-t", "c"]).tag, ["a", "b", "c"]);
        assert!(Cli::try_parse_from(["drydock", "build", "app", "-b", ""]).is_err());
    }

    #[test]
    fn ports_are_read() {
        let ports = |outside, inside| Some(Port { outside, inside });
        for (text, want) in [
            ("8080", ports(8080, 8080)),
            ("8080:80", ports(8080, 80)),
            ("0", None),
            ("65536", None),
            ("80:", None),
            ("1:2:3", None),
        ] {
            assert_eq!(port(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn volumes_are_read_only_unless_they_say_otherwise() {
        let mount = |to: &str, writable| Some(Mount { from: "/".into(), to: to.to_owned(), writable });
        for (text, want) in [
            ("/:/m", mount("/m", false)),
            ("/:/m/:ro", mount("/m", false)),
            ("/:/m:rw", mount("/m", true)),
            ("/", None),
            ("/:m", None),
            ("/:/m/../n", None),
            ("/no/such/folder:/m", None),
            ("/:/m:z", None),
            ("/:/m:Z", None),
            ("/:/m:ro:y", None),
            ("/:/m:ro,rw", None),
            ("/:/m:", None),
            ("/:/proc", None),
            ("/:/sys/x", None),
            ("/:/dev/", None),
            ("/:/dev/x", mount("/dev/x", false)),
        ] {
            assert_eq!(volume(text).ok(), want, "{text}");
        }
    }
}
