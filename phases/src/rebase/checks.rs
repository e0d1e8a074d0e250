//! Whether an app image may be put on another run image.
//!
//! An app that was built for a target needs that target; an older one needs its stack with the same mixins.
//! Specification: `platform.md` § Rebaser, § Stacks (deprecated).

use std::collections::BTreeSet;

use anyhow::{Context as _, anyhow};
use drydock_model::config::ImageConfig;
use drydock_model::platform::Platform;
use drydock_spec::analyzed::{Distro, Target};
use drydock_spec::api::PlatformApi;
use drydock_spec::label;

use crate::{Error, Log, run_image};

/// Refuses what is not safe. `force` makes warnings of what is said of targets; a stack that does not fit is always
/// refused.
pub(super) fn check(app: &ImageConfig, base: &ImageConfig, force: bool, log: &dyn Log) -> Result<(), Error> {
    let had_targets = match app.config.env("CNB_PLATFORM_API") {
        None | Some("") => false,
        Some(text) => PlatformApi::had_targets(text).map_err(|error| {
            let error = anyhow!(error).context("failed to get app image platform API");
            Error::from(error).with_help(
                "the app image's variable CNB_PLATFORM_API is not as a build sets it: build it again",
            )
        })?,
    };
    if !had_targets {
        check_stack(app, base)?;
        return check_mixins(app, base);
    }
    let objections = [not_rebasable(app), other_target(app, base)];
    for objection in objections.into_iter().flatten() {
        if !force {
            let error = Error::from(anyhow!("{objection}; please provide -force to override"));
            return Err(error.with_help("it is safe to build the app again on the new run image instead"));
        }
        log.warn(&objection);
    }
    Ok(())
}

fn check_stack(app: &ImageConfig, base: &ImageConfig) -> Result<(), Error> {
    let stack = |config: &ImageConfig| config.label(label::STACK_ID).unwrap_or_default().to_owned();
    let (old, new) = (stack(app), stack(base));
    let (message, help) = if old.is_empty() {
        let help = format!("the app image has no label `{}`: build the app again", label::STACK_ID);
        ("stack not defined on app image".to_owned(), help)
    } else if new.is_empty() {
        let help = format!("give with -run-image an image whose label `{}` is `{old}`", label::STACK_ID);
        ("stack not defined on new base image".to_owned(), help)
    } else if new == old {
        return Ok(());
    } else {
        let help = format!("give with -run-image an image of stack `{old}`");
        (format!("incompatible stack: '{new}' is not compatible with '{old}'"), help)
    };
    Err(Error::from(anyhow!(message)).with_help(help))
}

fn check_mixins(app: &ImageConfig, base: &ImageConfig) -> Result<(), Error> {
    let (needed, offered) =
        (mixins(app).context("get app image mixins")?, mixins(base).context("get run image mixins")?);
    let missing: Vec<&str> = needed.difference(&offered).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let error = Error::from(anyhow!("missing required mixin(s): {}", missing.join(", ")));
    Err(error.with_help("give with -run-image an image that has them"))
}

/// The mixins of a label, without the stage (`run:`, `build:`) that some begin with.
fn mixins(config: &ImageConfig) -> anyhow::Result<BTreeSet<String>> {
    let text = config.label(label::STACK_MIXINS).filter(|text| !text.is_empty()).unwrap_or("[]");
    let list: Option<Vec<String>> =
        drydock_spec::json::from_str(text).with_context(|| format!("label `{}`", label::STACK_MIXINS))?;
    let without_stage =
        |mixin: &String| mixin.split_once(':').map_or(mixin.as_str(), |(_, name)| name).to_owned();
    Ok(list.iter().flatten().map(without_stage).collect())
}

/// Extensions can change a run image so that the app must not be put on another.
fn not_rebasable(app: &ImageConfig) -> Option<String> {
    let refused = app.label(label::REBASABLE) == Some("false");
    refused.then(|| "app image is not marked as rebasable".to_owned())
}

fn other_target(app: &ImageConfig, base: &ImageConfig) -> Option<String> {
    let (old, new) = (run_image::target_of(app), run_image::target_of(base));
    let json = |target: &Target| drydock_spec::json::to_string(target).expect("strings make JSON");
    (!satisfies(&new, &old)).then(|| {
        format!(
            "unable to satisfy target os/arch constraints; new run image: {}, old run image: {}",
            json(&new),
            json(&old)
        )
    })
}

/// A variant that one of the two lacks fits any; of the distribution, what the new one says must be so.
fn satisfies(new: &Target, old: &Target) -> bool {
    let platform = |target: &Target| Platform {
        os: target.os.clone(),
        architecture: target.arch.clone(),
        variant: Some(target.arch_variant.clone()),
        ..Platform::default()
    };
    let (new_platform, old_platform) = (platform(new), platform(old));
    let same_platform = if new.arch_variant.is_empty() || old.arch_variant.is_empty() {
        new_platform.is_same_machine(&old_platform)
    } else {
        new_platform.is_same(&old_platform)
    };
    let said = |new: &str, old: &str| new.is_empty() || new == old;
    let same_distro = match (&new.distro, &old.distro) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(Distro { name, version }), Some(old)) => said(name, &old.name) && said(version, &old.version),
    };
    same_platform && same_distro
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_log::MemoryLog;

    /// `os/arch[/variant]`, and labels as `key=value` below `io.buildpacks.`; one that begins with `@` is the Platform API.
    fn config(platform: &str, facts: &[&str]) -> ImageConfig {
        let mut config: ImageConfig =
            serde_json::from_str(r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#).unwrap();
        let mut parts = platform.split('/').map(str::to_owned);
        config.os = parts.next().unwrap();
        config.architecture = parts.next().unwrap_or_default();
        config.variant = parts.next();
        for fact in facts {
            if let Some(api) = fact.strip_prefix('@') {
                config.config.set_env("CNB_PLATFORM_API", api);
            } else {
                let (key, value) = fact.split_once('=').unwrap();
                config.config.labels.insert(format!("io.buildpacks.{key}"), value.to_owned());
            }
        }
        config
    }

    fn refusal(app: &ImageConfig, base: &ImageConfig, force: bool) -> (Option<String>, String) {
        let log = MemoryLog::default();
        let refusal = check(app, base, force, &log).err();
        if let Some(error) = &refusal {
            assert!(error.help.is_some(), "{error}");
        }
        (refusal.map(|error| error.to_string()), log.text())
    }

    #[test]
    fn stacks() {
        let linux = "linux/amd64";
        for (app, base, want) in [
            (&["stack.id=a"][..], &["stack.id=a"][..], None),
            (&["@0.11", "stack.id=a"], &["stack.id=a"], None),
            (
                &["@", "stack.id=a"],
                &["stack.id=b"],
                Some("incompatible stack: 'b' is not compatible with 'a'"),
            ),
            (&["@0.3"], &["stack.id=a"], Some("stack not defined on app image")),
            (&["stack.id="], &[], Some("stack not defined on app image")),
            (&["stack.id=a"], &[], Some("stack not defined on new base image")),
        ] {
            for force in [false, true] {
                let (refused, _) = refusal(&config(linux, app), &config(linux, base), force);
                assert_eq!(refused.as_deref(), want, "{app:?} {base:?}");
            }
        }
        // Such an app knows of no target.
        assert_eq!(
            refusal(&config("linux/amd64", &["stack.id=a"]), &config("linux/arm64", &["stack.id=a"]), false)
                .0,
            None
        );
    }

    #[test]
    fn required_mixins() {
        for (app, base, want) in [
            ("", "", None),
            ("null", "[]", None),
            (r#"["a","run:b"]"#, r#"["b","run:a","c"]"#, None),
            (r#"["run:z","a","b"]"#, r#"["build:b"]"#, Some("missing required mixin(s): a, z")),
            (r#"["a"]"#, "", Some("missing required mixin(s): a")),
        ] {
            let image =
                |mixins: &str| config("linux/amd64", &["stack.id=s", &format!("stack.mixins={mixins}")]);
            for force in [false, true] {
                assert_eq!(refusal(&image(app), &image(base), force).0.as_deref(), want, "{app} {base}");
            }
        }
        let with = |mixins| config("linux/amd64", &["stack.id=s", mixins]);
        let broken = check(&with("stack.mixins=[1]"), &with("stack.mixins="), true, &MemoryLog::default())
            .unwrap_err();
        assert!(
            broken.to_string().starts_with("get app image mixins: label `io.buildpacks.stack.mixins`: "),
            "{broken}"
        );
    }

    #[test]
    fn targets() {
        const DEBIAN: &str = "base.distro.name=debian";
        const TWELVE: &str = "base.distro.version=12";
        for (app, base, fits) in [
            (("linux/amd64", &[][..]), ("linux/amd64", &[][..]), true),
            (("linux/amd64", &[]), ("linux/arm64", &[]), false),
            (("linux/amd64", &[]), ("windows/amd64", &[]), false),
            (("linux/arm64", &[]), ("linux/arm64/v8", &[]), true),
            (("linux/arm64/v8", &[]), ("linux/arm64", &[]), true),
            (("linux/arm64/v8", &[]), ("linux/arm64/8", &[]), true),
            (("linux/arm64/v8", &[]), ("linux/arm64/v9", &[]), false),
            (("linux/amd64/v1", &[]), ("linux/amd64/v2", &[]), false),
            (("linux/amd64/v2", &[]), ("linux/amd64/v2", &[]), true),
            (("linux/amd64", &[DEBIAN, TWELVE]), ("linux/amd64", &[]), true),
            (("linux/amd64", &[DEBIAN, TWELVE]), ("linux/amd64", &[DEBIAN]), true),
            (("linux/amd64", &[DEBIAN, TWELVE]), ("linux/amd64", &[DEBIAN, TWELVE]), true),
            (("linux/amd64", &[DEBIAN, TWELVE]), ("linux/amd64", &[DEBIAN, "base.distro.version=13"]), false),
            (("linux/amd64", &[DEBIAN]), ("linux/amd64", &[DEBIAN, TWELVE]), false),
            (("linux/amd64", &[]), ("linux/amd64", &[DEBIAN]), false),
            (("linux/amd64", &["base.id=a"]), ("linux/amd64", &["base.id=b", "stack.id=c"]), true),
        ] {
            let what = format!("{app:?} {base:?}");
            let mut app = config(app.0, app.1);
            app.config.set_env("CNB_PLATFORM_API", "0.12");
            let base = config(base.0, base.1);
            assert_eq!(refusal(&app, &base, false).0.is_none(), fits, "{what}");
            let (refused, warned) = refusal(&app, &base, true);
            assert_eq!((refused, warned.is_empty()), (None, fits), "{what}");
        }
    }

    #[test]
    fn what_is_refused_without_force() {
        let base = config("linux/arm64/v8", &["base.id=x", "base.distro.name=debian"]);
        let app = config("linux/amd64", &["@0.12"]);
        let unable = r#"unable to satisfy target os/arch constraints; new run image: {"id":"x","os":"linux","arch":"arm64","arch-variant":"v8","distro":{"name":"debian","version":""}}, old run image: {"os":"linux","arch":"amd64"}"#;
        let force = "; please provide -force to override";
        assert_eq!(refusal(&app, &base, false).0.unwrap(), format!("{unable}{force}"));
        assert_eq!(refusal(&app, &base, true).1, format!("Warn: {unable}\n"));

        let marked = "app image is not marked as rebasable";
        let app = config("linux/amd64", &["@0.15", "rebasable=false"]);
        assert_eq!(refusal(&app, &app, false).0.unwrap(), format!("{marked}{force}"));
        assert_eq!(refusal(&app, &app, true).1, format!("Warn: {marked}\n"));
        let app = config("linux/amd64", &["@0.15", "rebasable=true"]);
        assert_eq!(refusal(&app, &app, false).0, None);
        let odd = config("linux/amd64", &["@newest"]);
        assert!(refusal(&odd, &odd, true).0.unwrap().contains("failed to get app image platform API"));
    }
}
