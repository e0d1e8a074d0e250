//! `--mount` of `RUN`: options between commas, in words that have their quotes and variables.

use std::collections::BTreeMap;

use super::error::Problem;

/// What a `--mount` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    /// What is mounted.
    pub kind: MountKind,
    /// What is said of it, each under the longest of its names; what is on has the value `true`.
    pub options: BTreeMap<&'static str, String>,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// A part of a context.
    Bind,
    /// A folder that is kept.
    Cache,
    /// A secret.
    Secret,
    /// A folder in memory.
    Tmpfs,
}

/// Options that need no value.
const SWITCHES: [&str; 3] = ["readonly", "readwrite", "required"];

impl MountKind {
    fn parse(text: &str) -> Problem<Self> {
        Ok(match text {
            "bind" => Self::Bind,
            "cache" => Self::Cache,
            "secret" => Self::Secret,
            "tmpfs" => Self::Tmpfs,
            "ssh" => {
                return Err(
                    "--mount=type=ssh is not supported; give the key as a secret: type=secret".to_owned()
                );
            }
            _ => {
                return Err(format!(
                    "there is no --mount of type `{text}`; it is `bind`, `cache`, `secret` or `tmpfs`"
                ));
            }
        })
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Secret => "secret",
            Self::Tmpfs => "tmpfs",
        }
    }

    /// What can be said of it.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Bind => &["from", "source", "destination", "readonly", "readwrite"],
            Self::Cache => &[
                "id",
                "from",
                "source",
                "destination",
                "readonly",
                "readwrite",
                "sharing",
                "mode",
                "uid",
                "gid",
            ],
            Self::Secret => &["id", "source", "destination", "required", "mode", "uid", "gid", "env"],
            Self::Tmpfs => &["destination", "size"],
        }
    }
}

impl MountFlag {
    pub(super) fn parse(text: &str) -> Problem<Self> {
        let fields: Vec<(&str, Option<&str>)> = fields(unquoted(text))
            .into_iter()
            .map(unquoted)
            .map(|field| field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value))))
            .collect();
        let kind = fields.iter().rev().find(|(key, _)| *key == "type").and_then(|(_, value)| *value);
        let kind = MountKind::parse(kind.unwrap_or("bind"))?;
        let mut options = BTreeMap::new();
        for (key, value) in fields.into_iter().filter(|(key, _)| *key != "type") {
            let long = match key {
                "target" | "dst" => "destination",
                "src" => "source",
                "ro" => "readonly",
                "rw" => "readwrite",
                key => key,
            };
            let known = kind.options();
            let name = known.iter().find(|name| **name == long).ok_or_else(|| {
                format!("--mount=type={} has no option `{key}`; it has {}", kind.name(), known.join(", "))
            })?;
            let value = match value {
                Some(value) => value,
                None if SWITCHES.contains(name) => "true",
                None => return Err(format!("`{key}` of --mount has no value; write `{key}=…`")),
            };
            options.insert(*name, value.to_owned());
        }
        Ok(Self { kind, options })
    }
}

/// Without quotes around all of it.
fn unquoted(text: &str) -> &str {
    let inner = |quote: char| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        (!inner.contains(quote)).then_some(inner)
    };
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// What is between commas, unless these are in quotes.
fn fields(text: &str) -> Vec<&str> {
    let mut quote = None;
    text.split(|c: char| {
        match quote {
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(end) if c == end => quote = None,
            _ => {}
        }
        c == ',' && quote.is_none()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        for (text, kind, want) in [
            ("type=cache,target=/c", MountKind::Cache, &[("destination", "/c")][..]),
            (
                "target=/a,src=b,rw",
                MountKind::Bind,
                &[("destination", "/a"), ("readwrite", "true"), ("source", "b")],
            ),
            (
                "dst=/a,ro=false,from=x",
                MountKind::Bind,
                &[("destination", "/a"), ("from", "x"), ("readonly", "false")],
            ),
            ("\"type=tmpfs,size=1m,target=/t\"", MountKind::Tmpfs, &[("destination", "/t"), ("size", "1m")]),
            ("type=secret,id=\"a,b\",'env=E'", MountKind::Secret, &[("env", "E"), ("id", "\"a,b\"")]),
            ("type=secret,id=$x,required", MountKind::Secret, &[("id", "$x"), ("required", "true")]),
        ] {
            let found = MountFlag::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let options: Vec<_> = found.options.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!((found.kind, options.as_slice()), (kind, want), "{text}");
        }
        for (text, want) in [
            ("type=volume,target=/x", "there is no --mount of type `volume`"),
            ("type=ssh", "--mount=type=ssh is not supported"),
            ("type=bind,size=1", "--mount=type=bind has no option `size`; it has from, source"),
            ("type=cache,target", "`target` of --mount has no value"),
            ("", "--mount=type=bind has no option ``"),
        ] {
            let error = MountFlag::parse(text).unwrap_err();
            assert!(error.starts_with(want), "{text}: {error}");
        }
    }
}
