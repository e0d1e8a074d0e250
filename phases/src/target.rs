//! What the run image runs on, as buildpacks are told.

use std::io;
use std::path::Path;

use drydock_io::read;
use drydock_model::platform::Platform;
use drydock_spec::analyzed::{Distro, Target};

use crate::{Log, limits};

/// Where a file system says which distribution it is.
pub const OS_RELEASE: &str = "/etc/os-release";

/// Completes a target without a distribution from the file system that the build runs in: `os_release` is its
/// [`OS_RELEASE`]. Without an operating system it is `linux`, without an architecture this machine's.
pub fn complete(mut target: Target, os_release: &Path, log: &dyn Log) -> Target {
    if target.distro.is_some() {
        return target;
    }
    if target.os.is_empty() {
        "linux".clone_into(&mut target.os);
    }
    if target.arch.is_empty() {
        target.arch = Platform::host().architecture;
    }
    log.info("target distro name/version labels not found, reading /etc/os-release file");
    match read::read(os_release, limits::DOCUMENT) {
        Ok(text) => target.distro = parse_os_release(&String::from_utf8_lossy(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            log.warn(&format!("Encountered error trying to read {} file: {error}", os_release.display()));
        }
    }
    target
}

/// `ID` and `VERSION_ID`; none if both are missing.
fn parse_os_release(text: &str) -> Option<Distro> {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        let value = lines.find(|(key, _)| *key == name).map_or("", |(_, value)| value);
        value.trim_matches(['"', '\'', ' ']).to_owned()
    };
    let distro = Distro { name: value("ID"), version: value("VERSION_ID") };
    (distro != Distro::default()).then_some(distro)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::memory_log::MemoryLog;

    #[test]
    fn os_release_is_read() {
        for (text, expected) in [
            ("NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n", Some(("debian", "12"))),
            ("VERSION_ID='3.20'\nID='alpine'", Some(("alpine", "3.20"))),
            ("ID=arch\nVERSION_CODENAME=x", Some(("arch", ""))),
            ("ID\nNAME=x=y\n=", None),
            ("", None),
        ] {
            let distro = parse_os_release(text);
            let found = distro.as_ref().map(|distro| (distro.name.as_str(), distro.version.as_str()));
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn only_what_is_missing_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let os_release = dir.path().join("os-release");
        fs::write(&os_release, "ID=debian\nVERSION_ID=12\n").unwrap();
        let debian = Some(Distro { name: "debian".into(), version: "12".into() });
        let log = MemoryLog::default();

        let whole = Target { distro: Some(Distro::default()), ..Target::default() };
        assert_eq!(complete(whole.clone(), &os_release, &log), whole);
        assert_eq!(log.text(), "");

        let s390x = Target { os: "zos".into(), arch: "s390x".into(), ..Target::default() };
        assert_eq!(complete(s390x.clone(), &os_release, &log), Target { distro: debian.clone(), ..s390x });
        let empty = complete(Target::default(), &os_release, &log);
        assert_eq!(
            (empty.os.as_str(), empty.arch.as_str()),
            ("linux", Platform::host().architecture.as_str())
        );
        assert_eq!(empty.distro, debian);
        assert_eq!(complete(Target::default(), &dir.path().join("none"), &log).distro, None);
        assert!(!log.text().contains("error"), "{}", log.text());
        for no_file in [dir.path(), Path::new("/dev/zero")] {
            assert_eq!(complete(Target::default(), no_file, &log).distro, None);
            let said = format!("Encountered error trying to read {} file", no_file.display());
            assert!(log.text().contains(&said), "{}", log.text());
        }
    }
}
