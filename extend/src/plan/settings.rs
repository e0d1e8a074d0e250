//! What instructions say of containers, in an image's configuration.

use std::net::IpAddr;

use drydock_model::config::ImageConfig;
use serde_json::{Map, Value as Json, json};

use crate::language::{CommandLine, HealthCheck};

/// The shell where nobody chose another one.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// What runs commands that are written for a shell.
pub(super) fn shell(config: &ImageConfig) -> Vec<String> {
    let chosen = config.config.rest.get("Shell").and_then(Json::as_array);
    let words = chosen.map(|words| words.iter().filter_map(Json::as_str).map(str::to_owned).collect());
    words.filter(|words: &Vec<String>| !words.is_empty()).unwrap_or_else(|| SHELL.map(str::to_owned).into())
}

/// A command as a program with its arguments; none if it is empty.
pub(super) fn words(command: &CommandLine, config: &ImageConfig) -> Vec<String> {
    match command {
        CommandLine::Exec(words) => words.clone(),
        CommandLine::Shell(text) if text.is_empty() => Vec::new(),
        CommandLine::Shell(text) => {
            let mut words = shell(config);
            words.push(text.clone());
            words
        }
    }
}

/// Adds a member to one of the sets that a configuration has as tables without values.
pub(super) fn add_to_set(config: &mut ImageConfig, set: &str, member: &str) {
    let set = config.config.rest.entry(set).or_insert_with(|| Json::Object(Map::new()));
    if !set.is_object() {
        *set = Json::Object(Map::new());
    }
    if let Some(set) = set.as_object_mut() {
        set.insert(member.to_owned(), json!({}));
    }
}

/// Sets something that is a text or a list.
pub(super) fn set(config: &mut ImageConfig, key: &str, value: impl Into<Json>) {
    config.config.rest.insert(key.to_owned(), value.into());
}

/// Adds a trigger for images that begin from this one.
pub(super) fn add_trigger(config: &mut ImageConfig, trigger: &str) {
    let list = config.config.rest.entry("OnBuild").or_insert_with(|| Json::Array(Vec::new()));
    if !list.is_array() {
        *list = Json::Array(Vec::new());
    }
    if let Some(list) = list.as_array_mut() {
        list.push(trigger.into());
    }
}

/// What an image asks of those that begin from it.
pub(super) fn triggers(config: &ImageConfig) -> Vec<String> {
    let list = config.config.rest.get("OnBuild").and_then(Json::as_array);
    list.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
}

/// Takes back what the image asks for that this one begins from.
pub(super) fn remove_triggers(config: &mut ImageConfig) {
    config.config.rest.remove("OnBuild");
}

pub(super) fn set_health_check(config: &mut ImageConfig, check: Option<&HealthCheck>) {
    let Some(check) = check else { return set(config, "Healthcheck", json!({"Test": ["NONE"]})) };
    let test = match &check.command {
        CommandLine::Exec(words) => {
            std::iter::once("CMD").chain(words.iter().map(String::as_str)).collect::<Vec<_>>()
        }
        CommandLine::Shell(text) => vec!["CMD-SHELL", text],
    };
    let mut value = Map::from_iter([("Test".to_owned(), json!(test))]);
    for (key, number) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries),
    ] {
        value.extend(number.map(|number| (key.to_owned(), json!(number))));
    }
    set(config, "Healthcheck", value);
}

/// Ports as a configuration has them, of `80`, `80-90` and `53/udp`. Where the host is to have them (`127.0.0.1:8080:80`) is left out, as
/// `BuildKit` does. Fails with what is wrong.
pub(super) fn ports(text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("`{text}` is no port; write it like `80`, `53/udp` or `8000-8010`");
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
        range.filter(|(first, last)| first <= last).ok_or_else(wrong)
    };
    let (outside, inside) = numbers.rsplit_once(':').unwrap_or(("", numbers));
    let (address, outside) = outside.rsplit_once(':').unwrap_or(("", outside));
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(wrong());
    }
    if !outside.is_empty() {
        range(outside)?;
    }
    let (first, last) = range(inside)?;
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Whether this is a signal's name or number.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"+-".contains(&b))
}
