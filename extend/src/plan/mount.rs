//! What a `RUN` sees besides the image.

use super::From;
use super::planner::below;
use crate::language::{MountFlag, MountKind};

/// Something that is there while a program runs, and in no layer. Targets are absolute; they are made if they are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// A file or a folder of a context.
    Bind {
        /// Where it comes from.
        from: From,
        /// Which one, absolute.
        source: String,
        /// Where it is seen.
        target: String,
        /// Whether it can be written; what is written is thrown away.
        writable: bool,
    },
    /// A folder that is kept for the next time.
    Cache {
        /// What it is called: mounts of one name are one folder.
        id: String,
        /// Where it is seen.
        target: String,
        /// Who may use it at a time.
        sharing: Sharing,
        /// What it holds when it is new; nothing, if none.
        from: Option<From>,
        /// The folder there, absolute.
        source: String,
        /// Permissions when it is new.
        mode: u32,
        /// Whose it is when it is new.
        uid: u32,
        /// Whose it is when it is new.
        gid: u32,
        /// Whether it can be written.
        writable: bool,
    },
    /// An empty folder in memory.
    Tmpfs {
        /// Where it is seen.
        target: String,
        /// Bytes that it holds; as the kernel chooses, if none.
        size: Option<u64>,
    },
    /// A secret, as a file, as a variable or as both.
    Secret {
        /// Which one.
        id: String,
        /// Where the file is seen.
        target: Option<String>,
        /// What the variable is called.
        env: Option<String>,
        /// Whether it must be there.
        required: bool,
        /// Permissions of the file.
        mode: u32,
        /// Whose the file is.
        uid: u32,
        /// Whose the file is.
        gid: u32,
    },
}

/// Who may use a cache at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Everyone.
    Shared,
    /// Everyone has one alone.
    Private,
    /// One after the other.
    Locked,
}

/// Where a secret is that says nothing else.
const SECRETS: &str = "/run/secrets";

impl Mount {
    /// What a flag says; relative paths are seen from `dir`. `expand` puts in the values of variables.
    pub(super) fn of(
        flag: &MountFlag,
        from: Option<From>,
        dir: &str,
        expand: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Self, String> {
        let name = flag.kind.name();
        let option = |option: &str| {
            let value = flag.options.get(option).map(|word| expand(word)).transpose()?;
            Ok::<_, String>(value.filter(|value| !value.is_empty()))
        };
        let switch = |name: &str| match option(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(value) => Err(format!("`{name}` of --mount is `{value}`; it is `true` or `false`")),
        };
        let number = |name: &str, radix: u32, default: u32, most: u32| {
            let Some(text) = option(name)? else { return Ok(default) };
            let value = u32::from_str_radix(&text, radix).ok().filter(|value| *value <= most);
            value.ok_or_else(|| {
                format!(
                    "`{name}` of --mount is `{text}`; write it like `{name}={}`",
                    match name {
                        "mode" => "0755",
                        _ => "1000",
                    }
                )
            })
        };
        let target = option("destination")?.map(|path| below(dir, &path));
        if target.as_deref() == Some("/") {
            return Err(format!("--mount=type={name} cannot be at `/`; name another `target`"));
        }
        let needed =
            || target.clone().ok_or_else(|| format!("--mount=type={name} needs a `target`; name one"));
        let source = || Ok::<_, String>(below("/", &option("source")?.unwrap_or_default()));
        let given = |name| flag.options.contains_key(name);
        let writable = match (given("readwrite"), given("readonly")) {
            (true, true) => {
                return Err("--mount has both `readwrite` and `readonly`; leave one out".to_owned());
            }
            (true, false) => Some(switch("readwrite")?),
            (false, true) => Some(!switch("readonly")?),
            (false, false) => None,
        };
        // The largest number is nobody's.
        let (uid, gid) = (number("uid", 10, 0, u32::MAX - 1)?, number("gid", 10, 0, u32::MAX - 1)?);
        let mode = |default| number("mode", 8, default, 0o7777);
        Ok(match flag.kind {
            MountKind::Bind => Self::Bind {
                from: from.unwrap_or(From::Context),
                source: source()?,
                target: needed()?,
                writable: writable.unwrap_or(false),
            },
            MountKind::Cache => Self::Cache {
                id: option("id")?.map_or_else(needed, Ok)?,
                target: needed()?,
                sharing: Sharing::parse(option("sharing")?.as_deref())?,
                from,
                source: source()?,
                mode: mode(0o755)?,
                uid,
                gid,
                writable: writable.unwrap_or(true),
            },
            MountKind::Tmpfs => {
                let size = option("size")?.map(|text| bytes(&text)).transpose()?;
                Self::Tmpfs { target: needed()?, size }
            }
            MountKind::Secret => {
                let env = option("env")?;
                let id = match (option("id")?, option("source")?) {
                    (Some(id), None) | (None, Some(id)) => id,
                    (Some(_), Some(_)) => {
                        return Err("--mount=type=secret has both `id` and `source`, which mean the same; leave one out".to_owned());
                    }
                    (None, None) => {
                        let of_target = target.as_deref().and_then(|path| path.rsplit('/').next());
                        of_target
                            .or(env.as_deref())
                            .map(str::to_owned)
                            .ok_or("--mount=type=secret has no `id`; name one")?
                    }
                };
                let file = id.rsplit('/').next().unwrap_or_default();
                let target = target.or_else(|| env.is_none().then(|| below(SECRETS, file)));
                Self::Secret { id, target, env, required: switch("required")?, mode: mode(0o400)?, uid, gid }
            }
        })
    }
}

impl Sharing {
    fn parse(text: Option<&str>) -> Result<Self, String> {
        Ok(match text {
            None | Some("shared") => Self::Shared,
            Some("private") => Self::Private,
            Some("locked") => Self::Locked,
            Some(text) => {
                return Err(format!(
                    "`sharing` of --mount is `{text}`; it is `shared`, `private` or `locked`"
                ));
            }
        })
    }
}

/// A size like `64m`.
fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        Some(b't') => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    let size = digits.parse::<u64>().ok().and_then(|size| size.checked_mul(1 << shift));
    size.ok_or_else(|| format!("`size` of --mount is `{text}`; write it like `64m` or `1g`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("64m", Some(64 << 20)),
            ("1G", Some(1 << 30)),
            ("2kb", Some(2 << 10)),
            ("1MiB", Some(1 << 20)),
            ("10b", Some(10)),
            ("", None),
            ("m", None),
            ("1x", None),
            ("-1", None),
            ("99999999t", None),
        ] {
            assert_eq!(bytes(text).ok(), want, "{text}");
        }
    }
}
