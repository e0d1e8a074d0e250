//! Versions of the Platform and Buildpack APIs. A version is compared here and nowhere else.

use core::fmt;

use drydock_env::api::{BUILDPACK, PLATFORM};

use crate::error::Failure;
use crate::text::lossy;

/// The name of the variable that tells the platform API.
pub(crate) const PLATFORM_API_VARIABLE: &str = "CNB_PLATFORM_API";

/// A supported Platform API: 0.7 to 0.15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlatformApi(u32);

impl PlatformApi {
    /// Reads the value of `CNB_PLATFORM_API`, which must be set.
    pub(crate) fn verify(text: &[u8]) -> Result<Self, Failure> {
        if text.trim_ascii().is_empty() {
            return Err(Failure::platform_api(format_args!(
                "get platform API version; please set '{PLATFORM_API_VARIABLE}' to specify the desired platform API version"
            )));
        }
        match parse(text) {
            None => Err(Failure::platform_api(format_args!("parse platform API '{}'", lossy(text)))),
            Some((0, minor)) if PLATFORM.contains(&minor) => Ok(Self(minor)),
            Some(_) => Err(Failure::platform_api(format_args!(
                "set platform API: platform API version '{}' is incompatible with the lifecycle",
                lossy(text)
            ))),
        }
    }

    /// Users' arguments replace those that a process declares as its defaults; before, they were always appended.
    pub(crate) fn has_overridable_args(self) -> bool {
        self.0 >= 10
    }

    /// Processes tell which execution environments they are for.
    pub(crate) fn has_exec_env(self) -> bool {
        self.0 >= 15
    }
}

impl fmt::Display for PlatformApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0.{}", self.0)
    }
}

/// A supported Buildpack API: 0.7 to 0.12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BuildpackApi(u32);

impl BuildpackApi {
    /// Reads the API of the buildpack `id`.
    pub(crate) fn verify(id: &[u8], text: &[u8]) -> Result<Self, Failure> {
        match parse(text) {
            None => Err(Failure::buildpack_api(format_args!(
                "parse buildpack API '{}' for buildpack '{}'",
                lossy(text),
                lossy(id)
            ))),
            Some((0, minor)) if BUILDPACK.contains(&minor) => Ok(Self(minor)),
            Some(_) => Err(Failure::buildpack_api(format_args!(
                "set API for buildpack '{}': buildpack API version '{}' is incompatible with the lifecycle",
                lossy(id),
                lossy(text)
            ))),
        }
    }

    /// A process's `args` are defaults that users' arguments replace.
    pub(crate) fn has_overridable_args(self) -> bool {
        self.0 >= 9
    }
}

/// `v`, which may be absent, the major version, a dot, which may be absent, and the minor version, 0 if absent.
fn parse(text: &[u8]) -> Option<(u32, u32)> {
    let text = text.strip_prefix(b"v").unwrap_or(text);
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (major, rest) = text.split_at(digits);
    let minor = match rest.strip_prefix(b".").unwrap_or(rest) {
        b"" => 0,
        minor => number(minor)?,
    };
    Some((number(major)?, minor))
}

fn number(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        for (text, version) in [
            ("0.10", Some((0, 10))),
            ("v0.10", Some((0, 10))),
            ("1", Some((1, 0))),
            ("1.", Some((1, 0))),
            ("010", Some((10, 0))),
            ("0.010", Some((0, 10))),
            ("", None),
            ("v", None),
            (".10", None),
            ("0.10.1", None),
            ("0.10 ", None),
            ("0.+1", None),
            ("0.x", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse(text.as_bytes()), version, "{text}");
        }
    }

    #[test]
    fn platform_messages() {
        for (text, message) in [
            (
                "",
                "failed to get platform API version; please set 'CNB_PLATFORM_API' to specify the desired platform API version",
            ),
            (
                " ",
                "failed to get platform API version; please set 'CNB_PLATFORM_API' to specify the desired platform API version",
            ),
            ("x", "failed to parse platform API 'x'"),
            (
                "0.6",
                "failed to set platform API: platform API version '0.6' is incompatible with the lifecycle",
            ),
            (
                "1.7",
                "failed to set platform API: platform API version '1.7' is incompatible with the lifecycle",
            ),
        ] {
            let failure = PlatformApi::verify(text.as_bytes()).unwrap_err();
            assert_eq!((&*failure.message, failure.code), (message, 11));
        }
        assert_eq!(PlatformApi::verify(b"v0.7").unwrap().to_string(), "0.7");
        assert_eq!(PlatformApi::verify(b"0.15").unwrap().to_string(), "0.15");
    }

    #[test]
    fn buildpack_messages() {
        for (text, message) in [
            ("", "failed to parse buildpack API '' for buildpack 'a/b'"),
            (
                "0.13",
                "failed to set API for buildpack 'a/b': buildpack API version '0.13' is incompatible with the lifecycle",
            ),
        ] {
            let failure = BuildpackApi::verify(b"a/b", text.as_bytes()).unwrap_err();
            assert_eq!((&*failure.message, failure.code), (message, 12));
        }
        assert_eq!(BuildpackApi::verify(b"a/b", b"0.12"), Ok(BuildpackApi(12)));
    }
}
