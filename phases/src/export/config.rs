//! The app image's configuration: labels, environment, entrypoint, history.
//!
//! Specification: `platform.md` § Exporter, § Launch environment.

use std::path::Path;

use anyhow::bail;
use drydock_model::config::{History, ImageConfig, Settings};
use drydock_spec::api::PlatformApi;
use drydock_spec::launch::{BuildMetadata, Process};
use drydock_spec::time::rfc3339;

use crate::Log;
use crate::app_image::one_for_each_layer;

const LAUNCHER: &str = "/cnb/lifecycle/launcher";
const PROCESS_DIR: &str = "/cnb/process";
const LIFECYCLE_DIR: &str = "/cnb/lifecycle";

/// 1980-01-01T00:00:01Z, the time of everything that is built.
const FIXED_TIME: i64 = 315_532_801;

/// Sets the variables that a launcher needs.
pub(super) fn set_environment(settings: &mut Settings, layers_dir: &str, app_dir: &str, api: PlatformApi) {
    settings.set_env("CNB_LAYERS_DIR", layers_dir);
    settings.set_env("CNB_APP_DIR", app_dir);
    settings.set_env("CNB_PLATFORM_API", &api.to_string());
    settings.set_env("CNB_DEPRECATION_MODE", "quiet");
    let path = match settings.env("PATH") {
        // A trailing colon would put the working directory on the path.
        None | Some("") => format!("{PROCESS_DIR}:{LIFECYCLE_DIR}"),
        Some(old) => format!("{PROCESS_DIR}:{LIFECYCLE_DIR}:{old}"),
    };
    settings.set_env("PATH", &path);
}

/// What the image starts: the type that the user wants, else the buildpacks' default, else the launcher alone.
pub(super) fn entrypoint(
    metadata: &BuildMetadata,
    wanted: Option<&str>,
    log: &dyn Log,
) -> anyhow::Result<String> {
    let process_type = match wanted {
        Some(wanted) => {
            if metadata.processes.iter().all(|process| process.r#type != wanted) {
                let known =
                    metadata.processes.iter().map(|process| process.r#type.as_str()).collect::<Vec<_>>();
                bail!(
                    "determining entrypoint: tried to set {wanted} to default but it doesn't exist; process types are: {}",
                    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                );
            }
            wanted
        }
        None => metadata.buildpack_default_process_type.as_str(),
    };
    if process_type.is_empty() {
        log.info("no default process type");
        return Ok(LAUNCHER.to_owned());
    }
    log.info(&format!("Setting default process type '{process_type}'"));
    Ok(Path::new(PROCESS_DIR).join(process_type).display().to_string())
}

/// Bytes in the name of a file.
const NAME_MAX: usize = 255;

/// A process type is the name of a file.
pub(super) fn check_process_types(processes: &[Process]) -> anyhow::Result<()> {
    for Process { r#type, .. } in processes {
        if r#type.is_empty()
            || r#type.len() > NAME_MAX
            || matches!(r#type.as_str(), "." | "..")
            || r#type.contains(['/', '>', '<', ':', '|', '&', '\\', '\0'])
        {
            bail!(
                "process type '{}' is not valid: it may not be empty, have more than {NAME_MAX} bytes, or hold any of \
                 / > < : | & \\",
                r#type.escape_debug()
            );
        }
    }
    Ok(())
}

/// One entry for each layer: those of the run image, then the new ones.
pub(super) fn set_history(
    config: &mut ImageConfig,
    base_layers: usize,
    new: &[String],
    created: &str,
    api: PlatformApi,
) {
    let blank = || History { created: Some(created.to_owned()), ..History::default() };
    let base = one_for_each_layer(std::mem::take(&mut config.history), base_layers);
    let new = new.iter().map(|created_by| History { created_by: created_by.clone(), ..History::default() });
    config.history =
        base.into_iter()
            .chain(new)
            .map(|entry| {
                if api.has_history() {
                    History { created: Some(created.to_owned()), ..entry }
                } else {
                    blank()
                }
            })
            .collect();
}

/// When the image says that it was made (RFC 3339).
pub(crate) fn created(source_date_epoch: Option<&str>, api: PlatformApi, log: &dyn Log) -> String {
    let seconds = match source_date_epoch {
        Some(text) if api.has_source_date_epoch() => {
            match text.parse() {
                Ok(seconds) if rfc3339(seconds).is_some() => seconds,
                _ => {
                    log.warn(&format!("Ignoring invalid SOURCE_DATE_EPOCH '{text}': it must be a number of seconds since 1970"));
                    FIXED_TIME
                }
            }
        }
        Some(_) => {
            log.warn(&format!(
                "Ignoring SOURCE_DATE_EPOCH: Platform API {api} does not have it, 0.9 and later do"
            ));
            FIXED_TIME
        }
        None => FIXED_TIME,
    };
    rfc3339(seconds).expect("it was checked above, and the fixed time is in 1980")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_log::MemoryLog;

    #[test]
    fn a_bad_epoch_is_ignored_with_a_warning() {
        for (text, minor, warned, want) in [
            (Some("1700000000"), 9, false, "2023-11-14T22:13:20Z"),
            (Some("soon"), 9, true, "1980-01-01T00:00:01Z"),
            (Some("99999999999999"), 9, true, "1980-01-01T00:00:01Z"),
            (Some("1700000000"), 8, true, "1980-01-01T00:00:01Z"),
            (None, 12, false, "1980-01-01T00:00:01Z"),
        ] {
            let log = MemoryLog::default();
            assert_eq!(created(text, PlatformApi::minor(minor), &log), want);
            assert_eq!(log.text().contains("SOURCE_DATE_EPOCH"), warned, "{text:?}");
        }
    }

    #[test]
    fn the_path_has_no_empty_part() {
        for (old, want) in [
            (vec![], "/cnb/process:/cnb/lifecycle"),
            (vec!["PATH="], "/cnb/process:/cnb/lifecycle"),
            (vec!["PATH=/bin:/a=b"], "/cnb/process:/cnb/lifecycle:/bin:/a=b"),
        ] {
            let mut settings =
                Settings { env: old.into_iter().map(str::to_owned).collect(), ..Settings::default() };
            set_environment(&mut settings, "/layers", "/app", PlatformApi::minor(14));
            assert_eq!(settings.env("PATH"), Some(want));
        }
    }

    #[test]
    fn the_entrypoint_is_what_the_user_wants_then_what_the_buildpacks_want() {
        let processes =
            ["web", "job"].map(|name| Process { r#type: name.into(), ..Process::default() }).to_vec();
        let with_default = |default: &str| BuildMetadata {
            processes: processes.clone(),
            buildpack_default_process_type: default.into(),
            ..BuildMetadata::default()
        };
        for (default, wanted, want) in [
            ("", None, Some("/cnb/lifecycle/launcher")),
            ("job", None, Some("/cnb/process/job")),
            ("job", Some("web"), Some("/cnb/process/web")),
            ("job", Some("nope"), None),
        ] {
            let got = entrypoint(&with_default(default), wanted, &MemoryLog::default()).ok();
            assert_eq!(got.as_deref(), want, "{default} {wanted:?}");
        }
    }

    #[test]
    fn process_types_are_file_names() {
        let process = |name: &str| [Process { r#type: name.into(), ..Process::default() }];
        assert!(check_process_types(&process("web.one-2_x y")).is_ok());
        assert!(check_process_types(&process(&"x".repeat(255))).is_ok());
        for bad in ["", ".", "..", "a/b", "a:b", "a\\b", "a&b", &"x".repeat(256)] {
            assert!(check_process_types(&process(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn history_keeps_texts_and_fits_the_layers() {
        let config = |entries: &str| -> ImageConfig {
            let text = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[]}},"history":{entries}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let fits =
            r#"[{"created":"x","created_by":"one","comment":"c"},{"empty_layer":true},{"created_by":"two"}]"#;
        for (entries, layers, minor, want) in [
            (fits, 2, 12, vec!["one", "two", "new"]),
            (fits, 3, 12, vec!["", "", "", "new"]),
            (fits, 2, 11, vec!["", "", ""]),
            ("null", 1, 12, vec!["", "new"]),
        ] {
            let mut config = config(entries);
            set_history(&mut config, layers, &["new".to_owned()], "now", PlatformApi::minor(minor));
            assert_eq!(config.history.iter().map(|h| h.created_by.as_str()).collect::<Vec<_>>(), want);
            assert!(config.history.iter().all(|h| h.created.as_deref() == Some("now") && !h.empty_layer));
        }
    }
}
