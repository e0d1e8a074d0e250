//! What of a step's outcome differs from what is right.

use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::{Value, json};

use crate::scenario::Step;
use crate::snapshot::Snapshot;

/// One line for each difference; none when all is well.
pub fn differences(step: &Step, want: &Snapshot, got: &Snapshot) -> Vec<String> {
    let mut found = got.faults.clone();
    let printed = || [got.stderr.as_slice(), got.stdout.as_slice()].concat();
    let exit = step.exit.unwrap_or(want.exit);
    if exit != got.exit {
        found.push(format!("exit code {}, expected {exit}: {}", got.exit, end_of(&printed())));
    }
    let (want, comparable_got) = (comparable(corrected(to_value(want))), comparable(to_value(got)));
    for part in &step.compare {
        let name = part.name();
        unequal(&want[name], &comparable_got[name], name, &mut found);
    }
    if let Some(expected) = &step.expect {
        missing(expected, &to_value(got), "", &mut found);
    }
    if let Some(paths) = &step.same_image {
        let images: Vec<Value> = paths.iter().map(|path| contents(got, path)).collect();
        if images.iter().any(|image| *image != images[0] || *image == json!([])) {
            found.push(format!("not one and the same image at {paths:?}; layouts: {:?}", layouts(got)));
        }
    }
    if step.layouts_none && !got.layouts.is_empty() {
        found.push(format!("layouts were written: {:?}", layouts(got)));
    }
    for line in &step.log {
        if !printed().iter().any(|printed| printed.contains(line)) {
            found.push(format!("no line with `{line}`, but: {}", end_of(&printed())));
        }
    }
    found
}

fn end_of(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(8)..].join(" | ")
}

fn layouts(snapshot: &Snapshot) -> Vec<&String> {
    snapshot.layouts.keys().collect()
}

/// The configs, diff IDs included, of the images in the layout at `path`.
fn contents(snapshot: &Snapshot, path: &str) -> Value {
    let images = snapshot.layouts.get(path).and_then(|layout| layout["images"].as_array());
    images.into_iter().flatten().map(|image| image["config"].clone()).collect()
}

fn to_value(snapshot: &Snapshot) -> Value {
    serde_json::to_value(snapshot).expect("a snapshot is made of JSON values")
}

/// What was recorded, with the run image that an app image was built on as it should have been written down.
///
/// The Go lifecycle labels app images with the digest of an empty image in place of the run image's; the analyzer of the
/// next build copies that into `analyzed.toml`. What is right is the run image's identifier, which the analyzer knows.
fn corrected(mut snapshot: Value) -> Value {
    for analyzed in files(&mut snapshot) {
        let path = |reference: &str| reference.split('@').next().map(str::to_owned);
        let truth = analyzed.pointer("/run-image/reference").and_then(Value::as_str).map(str::to_owned);
        let recorded = analyzed.pointer_mut("/metadata/run-image/reference");
        if let (Some(truth), Some(recorded)) = (truth, recorded)
            && recorded.as_str().is_some_and(|recorded| path(recorded) == path(&truth))
        {
            *recorded = json!(truth);
        }
    }
    snapshot
}

/// The snapshot without what may rightly differ: the layout of `metadata.toml`'s text, and so the diff ID of the layer
/// that holds it; size and digest of a manifest, which depend on the gzip encoder; the order of a build plan's entries.
fn comparable(mut value: Value) -> Value {
    let mut config_layers = Vec::new();
    for layer in images(&mut value).flat_map(|image| items(&mut image["layers"])) {
        let mut holds_config = false;
        for entry in layer.get_mut("entries").into_iter().flat_map(items) {
            if entry[0].as_str().is_some_and(|name| name.ends_with("/config/metadata.toml")) {
                holds_config = true;
                entry.as_array_mut().map(Vec::pop);
            }
        }
        if let (true, Some(diff_id)) = (holds_config, layer["diffID"].as_str()) {
            config_layers.push(diff_id.to_owned());
        }
    }
    let mut text = value.to_string();
    for diff_id in &config_layers {
        text = text.replace(diff_id, "<config layer>");
    }
    let mut value: Value =
        serde_json::from_str(&text).expect("one string in place of another leaves it JSON");

    for image in images(&mut value) {
        if let Some(Value::Object(labels)) = image.pointer_mut("/config/config/Labels") {
            labels.remove("io.buildpacks.rebasable");
        }
    }
    for content in files(&mut value) {
        if let Some(Value::String(reference)) = content.pointer_mut("/image/reference")
            && let Some((path, _)) = reference.split_once("@sha256:")
        {
            *reference = format!("{path}@<manifest>");
        }
        if let Some(Value::Array(entries)) = content.get_mut("entries") {
            entries.sort_by_key(Value::to_string);
        }
        if let Some(Value::Object(image)) = content.get_mut("image")
            && image.contains_key("tags")
        {
            image.retain(|key, _| !["manifest-size", "digest", "image-id"].contains(&key.as_str()));
        }
    }
    plain(value)
}

/// The contents of all files in the layers directory in a snapshot's value.
fn files(snapshot: &mut Value) -> impl Iterator<Item = &mut Value> {
    snapshot["layers"].as_object_mut().into_iter().flat_map(|files| files.values_mut())
}

/// All images of all layouts in a snapshot's value.
fn images(snapshot: &mut Value) -> impl Iterator<Item = &mut Value> {
    let layouts = snapshot["layouts"].as_object_mut().into_iter().flat_map(|layouts| layouts.values_mut());
    layouts.flat_map(|layout| items(&mut layout["images"]))
}

fn items(array: &mut Value) -> impl Iterator<Item = &mut Value> {
    array.as_array_mut().into_iter().flatten()
}

/// Two encoders may differ in whether they write an empty value (dropped here) and in how they write a number or a date.
fn plain(value: Value) -> Value {
    static DATE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(Z|\+00:00)$")
            .expect("the pattern is fixed and right")
    });
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (key, plain(value)));
            fields.filter(|(_, value)| !is_empty(value)).collect()
        }
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::String(text) if DATE.is_match(&text) => json!(text.replace(' ', "T").replace("+00:00", "Z")),
        Value::Number(number) => match number.as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "a whole number far below i64's limits")]
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                json!(float as i64)
            }
            _ => Value::Number(number),
        },
        other => other,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Adds to `found` where the two values differ.
fn unequal(want: &Value, got: &Value, at: &str, found: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(w), Value::Object(g)) => {
            let new = g.keys().filter(|key| !w.contains_key(*key));
            for key in w.keys().chain(new) {
                unequal(&want[key], &got[key], &format!("{at}/{key}"), found);
            }
        }
        (Value::Array(w), Value::Array(g)) if w.len() == g.len() => {
            for (i, (want, got)) in w.iter().zip(g).enumerate() {
                unequal(want, got, &format!("{at}/{i}"), found);
            }
        }
        (Value::Array(w), Value::Array(g)) => {
            let too_few: Vec<&Value> = w.iter().filter(|item| !g.contains(item)).collect();
            let too_many: Vec<&Value> = g.iter().filter(|item| !w.contains(item)).collect();
            found.push(format!(
                "{at}: {} items, expected {}; not there: {}; not expected: {}",
                g.len(),
                w.len(),
                brief(&json!(too_few)),
                brief(&json!(too_many))
            ));
        }
        _ if want == got => {}
        _ => found.push(format!("{at}: {}, expected {}", brief(got), brief(want))),
    }
}

/// Adds to `found` what of `want` is not in `got`: every key of a table must be there; other keys do not count.
fn missing(want: &Value, got: &Value, at: &str, found: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(w), Value::Object(_)) => {
            for (key, want) in w {
                missing(want, &got[key], &format!("{at}/{key}"), found);
            }
        }
        _ => unequal(want, got, at, found),
    }
}

/// The value as one line of bearable length.
fn brief(value: &Value) -> String {
    let text = if value.is_null() { "nothing".to_owned() } else { value.to_string() };
    if text.chars().count() <= 600 { text } else { text.chars().take(600).chain("…".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(words: &Value) -> Step {
        let mut step = json!({"phase": "exporter", "args": [], "user": "root"});
        step.as_object_mut().unwrap().append(&mut words.as_object().unwrap().clone());
        serde_json::from_value(step).unwrap()
    }

    /// A snapshot with one image of two layers, the second with `metadata.toml`.
    fn snapshot() -> Value {
        json!({
            "exit": 0, "stdout": ["Adding layer 'a'", ""], "stderr": [""],
            "layers": {
                "report.toml": {"image": {"tags": ["t"], "digest": "d", "manifest-size": 1}},
                "plan.toml": {"entries": [{"a": 1}, {"b": 2}]},
                "a.toml": {"launch": true, "metadata": {"n": 3, "f": 1.5, "on": "2024-01-02T03:04:05Z"}}
            },
            "layouts": {"app": {"images": [{
                "annotations": {"name": "latest"},
                "config": {
                    "config": {"Labels": {"l": {"config": {"sha": "sha256:2"}}, "x": "y"}},
                    "rootfs": {"diff_ids": ["sha256:1", "sha256:2"]}
                },
                "layers": [
                    {"diffID": "sha256:1", "entries": [["/f", "file", "0o644", 0, 0, 0, "abc"]]},
                    {"diffID": "sha256:2", "entries": [["/layers/config/metadata.toml", "file", "0o644", 0, 0, 0, "def"]]}
                ]
            }]}},
            "cache": {"committed/x": "sum"}
        })
    }

    fn compare(words: &Value, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut got = snapshot();
        change(&mut got);
        let parse = |value| serde_json::from_value(value).unwrap();
        differences(&step(words), &parse(snapshot()), &parse(got))
    }

    #[test]
    fn what_may_differ() {
        let none: [String; 0] = [];
        let image = "/layouts/app/images/0";
        assert_eq!(compare(&json!({}), |_| ()), none);
        assert_eq!(
            compare(&json!({}), |s| s["layers"]["report.toml"]["image"]["digest"] = json!("other")),
            none
        );
        assert_eq!(
            compare(&json!({}), |s| s["layers"]["plan.toml"]["entries"] = json!([{"b": 2}, {"a": 1}])),
            none
        );
        assert_eq!(compare(&json!({}), |s| s["layers"]["a.toml"]["build"] = json!(false)), none);
        assert_eq!(compare(&json!({}), |s| s["layers"]["a.toml"]["metadata"]["n"] = json!(3.0)), none);
        assert_eq!(
            compare(&json!({}), |s| s["layers"]["a.toml"]["metadata"]["on"] =
                json!("2024-01-02 03:04:05+00:00")),
            none
        );
        let other_text = |s: &mut Value| {
            let text = s.to_string().replace("sha256:2", "sha256:3").replace("\"def\"", "\"other\"");
            *s = serde_json::from_str(&text).unwrap();
        };
        assert_eq!(compare(&json!({}), other_text), none);
        let rebasable = |s: &mut Value| {
            s.pointer_mut(&format!("{image}/config/config/Labels")).unwrap()["io.buildpacks.rebasable"] =
                json!("true");
        };
        assert_eq!(compare(&json!({}), rebasable), none);
        assert_eq!(compare(&json!({"compare": []}), |s| s["cache"] = json!({})), none);
    }

    #[test]
    fn what_may_not() {
        let image = "/layouts/app/images/0";
        for (at, value) in [
            ("/exit", json!(1)),
            ("/layers/a.toml/launch", json!(false)),
            ("/layers/a.toml/metadata/f", json!(1.25)),
            ("/layers/plan.toml/entries", json!([{"a": 1}])),
            ("/cache/committed~1x", json!("other")),
            (&*format!("{image}/annotations/name"), json!("1")),
            (&*format!("{image}/config/config/Labels/x"), json!("z")),
            (&*format!("{image}/config/rootfs/diff_ids/0"), json!("sha256:9")),
            (&*format!("{image}/config/rootfs/diff_ids/1"), json!("sha256:9")),
            (&*format!("{image}/layers/0/entries/0/2"), json!("0o600")),
            (&*format!("{image}/layers/1/entries/0/3"), json!(1)),
            (&*format!("{image}/layers/0/entries"), json!([])),
        ] {
            let found = compare(&json!({}), |s| *s.pointer_mut(at).unwrap() = value);
            assert_eq!(found.len(), 1, "{at}: {found:?}");
        }
        let found = compare(&json!({}), |s| s["layers"]["new.toml"] = json!({"a": 1}));
        assert_eq!(found, [r#"layers/new.toml: {"a":1}, expected nothing"#]);
    }

    #[test]
    fn what_a_step_says() {
        let none: [String; 0] = [];
        assert_eq!(compare(&json!({"exit": 62}), |s| s["exit"] = json!(62)), none);
        assert_eq!(compare(&json!({"exit": 62}), |_| ()).len(), 1);
        assert_eq!(compare(&json!({"log": ["layer 'a'"]}), |_| ()), none);
        assert_eq!(compare(&json!({"log": ["layer 'b'"]}), |_| ()).len(), 1);
        assert_eq!(compare(&json!({"compare": ["stdout"]}), |s| s["stdout"] = json!([])).len(), 1);
        assert_eq!(compare(&json!({"layouts_none": true}), |_| ()).len(), 1);
        assert_eq!(compare(&json!({"expect": {"layers": {"a.toml": {"launch": true}}}}), |_| ()), none);
        assert_eq!(compare(&json!({"expect": {"layers": {"a.toml": {"cache": true}}}}), |_| ()).len(), 1);
        assert_eq!(compare(&json!({"same_image": ["app"]}), |_| ()), none);
        assert_eq!(compare(&json!({"same_image": ["app", "gone"]}), |_| ()).len(), 1);
        let copy = |s: &mut Value| s["layouts"]["copy"] = s["layouts"]["app"].clone();
        assert_eq!(compare(&json!({"compare": [], "same_image": ["app", "copy"]}), copy), none);
    }
}
