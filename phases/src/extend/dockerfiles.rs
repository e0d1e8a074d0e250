//! What extensions wrote, and what it comes to: of all Dockerfiles, before the first is carried out.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use drydock_extend::in_place::{Context, identify};
use drydock_extend::language::{IgnoreRules, parse};
use drydock_extend::plan::{Build, Plan, Wanted};
use drydock_layout::Image;
use drydock_model::config::ImageConfig;
use drydock_spec::extend::ExtendConfig;
use drydock_spec::group::GroupElement;
use drydock_spec::label::REBASABLE;
use rustix::rand::{GetRandomFlags, getrandom};

use super::{ExtendKind, Inputs, able, described, user_of};
use crate::buildpacks::dir_name;
use crate::file::{is_dir, read_text_if_exists, read_toml_if_exists};
use crate::{Error, Log};

/// A Dockerfile, and what is to be done.
#[derive(Debug)]
pub(super) struct Planned {
    /// The ID of the extension that wrote it.
    pub(super) extension: String,
    pub(super) path: PathBuf,
    pub(super) context: ContextDir,
    pub(super) plan: Plan,
}

/// A folder that files are copied from.
#[derive(Debug)]
pub(super) struct ContextDir {
    path: PathBuf,
    ignore: IgnoreRules,
}

impl ContextDir {
    pub(super) fn open(&self) -> anyhow::Result<Context> {
        Context::open(&self.path, self.ignore.clone()).context("failed to open the context")
    }
}

/// Where an extension's files are.
struct Files {
    dockerfile: PathBuf,
    config: PathBuf,
    context: PathBuf,
}

impl Files {
    fn of(inputs: &Inputs, extension: &str) -> anyhow::Result<Self> {
        let (kind, name) = (inputs.kind.name(), dir_name(extension)?);
        if !inputs.platform_api.has_stable_extensions() {
            let dir = inputs.generated_dir.join(kind).join(name);
            let (dockerfile, config) = (dir.join("Dockerfile"), dir.join("extend-config.toml"));
            return Ok(Self { dockerfile, config, context: inputs.app_dir.clone() });
        }
        let dir = inputs.generated_dir.join(name);
        let own = [format!("context.{kind}"), "context".to_owned()].map(|name| dir.join(name));
        let mut context = None;
        for dir in own {
            if context.is_none() && is_dir(&dir)? {
                context = Some(dir);
            }
        }
        Ok(Self {
            dockerfile: dir.join(format!("{kind}.Dockerfile")),
            config: dir.join("extend-config.toml"),
            context: context.unwrap_or_else(|| inputs.app_dir.clone()),
        })
    }
}

/// Plans the Dockerfiles of all extensions that have one, each on what the one before makes of the image.
pub(super) fn plan(
    inputs: &Inputs,
    extensions: &[GroupElement],
    base: &Image,
    log: &dyn Log,
) -> Result<Vec<Planned>, Error> {
    log.debug(&format!("Extending {}", described(inputs.kind, base)));
    let mut planned: Vec<Planned> = Vec::new();
    let mut is_rebasable = true;
    for GroupElement { id, .. } in extensions {
        let files = Files::of(inputs, id)?;
        let Some(text) = read_text_if_exists(&files.dockerfile).map_err(anyhow::Error::from)? else {
            continue;
        };
        log.debug(&format!("Found {} Dockerfile for extension '{id}'", inputs.kind.name()));
        let mut before = planned.last().map_or(&base.config, |last| &last.plan.config).clone();
        // What the image says of itself says nothing of what is added to it.
        before.config.labels.remove(REBASABLE);
        let before = &before;
        let mut one = plan_one(inputs, id, &files, &text, before, base)?;
        let (user, was) = (user_of(&one.plan.config).0, user_of(before).0);
        if is_root(user) && user != was {
            log.warn(&format!(
                "Extension from {} changed the user ID from {was} to {user}; this must not be the final user ID \
                 (a following extension must reset the user).",
                files.dockerfile.display()
            ));
        }
        let labels = &mut one.plan.config.config.labels;
        is_rebasable &= labels.get(REBASABLE).is_some_and(|text| is_true(text));
        labels.insert(REBASABLE.to_owned(), is_rebasable.to_string());
        planned.push(one);
    }
    let config = planned.last().map_or(&base.config, |last| &last.plan.config);
    let (user, was) = (user_of(config).0, user_of(&base.config).0);
    check_user(inputs.kind, user, was)?;
    if user != was {
        log.warn(&format!(
            "The original user ID was {was} but the final extension left the user ID set to {user}."
        ));
    }
    Ok(planned)
}

fn plan_one(
    inputs: &Inputs,
    extension: &str,
    files: &Files,
    text: &str,
    before: &ImageConfig,
    base: &Image,
) -> Result<Planned, Error> {
    let path = files.dockerfile.clone();
    let config: ExtendConfig = read_toml_if_exists(&files.config)?.unwrap_or_default();
    let own = match inputs.kind {
        ExtendKind::Build => config.build,
        ExtendKind::Run => config.run,
    };
    let (user, group) = user_of(before);
    let standard = [("build_id", build_id()?), ("user_id", user.to_owned()), ("group_id", group.to_owned())];
    let mut args: Vec<(String, String)> =
        standard.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    args.extend(own.args.into_iter().map(|arg| (arg.name, arg.value)));
    args.push(("base_image".to_owned(), format!("base@{}", base.digest())));
    let planned = || -> anyhow::Result<Planned> {
        let dockerfile = parse(text)?;
        able::check_stages(&dockerfile)?;
        let wanted = Wanted { target: None, args: &args, platform: &before.platform() };
        // Whatever it is called, it is the image that this process runs in.
        let mut build = Build::of(&dockerfile, &wanted, &mut |_, _| Ok(before.clone()))?;
        let stage = build.stages.pop().context("a Dockerfile has a stage")?;
        able::check(&stage)?;
        let plan = stage.plan;
        let context = ContextDir { ignore: ignore_rules(files)?, path: files.context.clone() };
        Ok(Planned { extension: extension.to_owned(), path: path.clone(), context, plan })
    };
    Ok(planned().with_context(|| path.display().to_string())?)
}

/// `<Dockerfile>.dockerignore` if there is one, else that of the context.
fn ignore_rules(files: &Files) -> anyhow::Result<IgnoreRules> {
    let mut own = files.dockerfile.clone().into_os_string();
    own.push(".dockerignore");
    for path in [Path::new(&own), &files.context.join(".dockerignore")] {
        if let Some(text) = read_text_if_exists(path)? {
            let rules = IgnoreRules::parse(&text).map_err(anyhow::Error::msg);
            return rules.with_context(|| path.display().to_string());
        }
    }
    Ok(IgnoreRules::default())
}

/// Whether this is root, by its number or by a name that it has in this file system.
pub(super) fn is_root(user: &str) -> bool {
    user == "root"
        || !user.is_empty() && identify(Path::new("/"), user).is_ok_and(|found| found.owner.uid == 0)
}

/// That the user that is left in the end is not root. An image that says nobody is root's, too: none may come to that.
pub(super) fn check_user(kind: ExtendKind, user: &str, was: &str) -> Result<(), Error> {
    let is_lost = user.is_empty() && !was.is_empty();
    if kind != ExtendKind::Run || !is_root(user) && !is_lost {
        return Ok(());
    }
    let user = if is_lost { "empty" } else { user };
    let error = anyhow!("extending run image: the final user ID is {user} (root)");
    Err(Error::from(error)
        .with_help("let the last extension set the user back, as with `ARG user_id` and `USER ${user_id}`"))
}

/// As Go reads a truth value.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "TRUE" | "true" | "True")
}

/// A random UUID (RFC 9562, version 4): other in each build.
fn build_id() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty()).context("failed to get random bytes")?;
    anyhow::ensure!(filled == bytes.len(), "failed to get random bytes: there are only {filled}");
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xf << 76) | 0x4 << 76;
    let number = number & !(0x3 << 62) | 0x2 << 62;
    let hex = format!("{number:032x}");
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_ids_are_uuids() {
        let ids = [build_id().unwrap(), build_id().unwrap()];
        assert_ne!(ids[0], ids[1]);
        for id in ids {
            let parts: Vec<&str> = id.split('-').collect();
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
            assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']), "{id}");
            assert!(id.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()), "{id}");
        }
    }
}
