//! Copies of folders by `cp`: owners, times, attributes and holes are as they were, as far as this process may.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Names that one `cp` is given: of 255 bytes, with folders before them, they have room among its arguments.
const NAMES: usize = 200;

/// Bytes that are kept of what `cp` says.
const SAID: u64 = 4096;

/// Copies what is in a folder into another that is there, but for what is at the paths `without`. `going` is asked again and again: its error
/// ends the copy, and is the result.
pub fn copy(from: &Path, to: &Path, without: &[PathBuf], going: &dyn Fn() -> io::Result<()>) -> Result<()> {
    if !without.iter().any(|path| path.starts_with(from)) {
        return cp(&["--no-target-directory".as_ref(), "--".as_ref(), from.as_ref(), to.as_ref()], going);
    }
    let read = || format!("cannot read `{}`", from.display());
    let mut whole = Vec::new();
    for entry in fs::read_dir(from).with_context(read)? {
        let entry = entry.with_context(read)?;
        let path = entry.path();
        if !without.iter().any(|other| other.starts_with(&path)) {
            whole.push(path);
        } else if !without.contains(&path) && entry.file_type().with_context(read)?.is_dir() {
            let made = to.join(entry.file_name());
            fs::create_dir(&made).with_context(|| format!("cannot make `{}`", made.display()))?;
            copy(&path, &made, without, going)?;
        }
    }
    for paths in whole.chunks(NAMES) {
        let target = [OsStr::new("--target-directory"), to.as_ref(), "--".as_ref()];
        cp(&target.into_iter().chain(paths.iter().map(AsRef::as_ref)).collect::<Vec<_>>(), going)?;
    }
    let mode = fs::metadata(from).with_context(read)?.permissions().mode();
    fs::set_permissions(to, fs::Permissions::from_mode(mode & 0o7777))
        .with_context(|| format!("cannot change the mode of `{}`", to.display()))
}

fn cp(arguments: &[&OsStr], going: &dyn Fn() -> io::Result<()>) -> Result<()> {
    const BETWEEN: Duration = Duration::from_millis(10);
    let mut command = Command::new("cp");
    command.args(["--archive", "--reflink=auto"]).args(arguments);
    let mut child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `cp`")?;
    let mut errors = child.stderr.take().context("it was piped")?;
    // It may say more than a pipe takes.
    let reader = thread::Builder::new().spawn(move || {
        let mut said = Vec::new();
        let read = errors.by_ref().take(SAID).read_to_end(&mut said);
        read.and_then(|_| io::copy(&mut errors, &mut io::sink())).map(|_| said)
    });
    let reader = match reader {
        Ok(reader) => reader,
        Err(error) => {
            child.kill().and_then(|()| child.wait()).context("cannot end `cp`")?;
            return Err(error).context("cannot start a thread");
        }
    };
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for `cp`")? {
            break status;
        }
        if let Err(stop) = going() {
            child.kill().and_then(|()| child.wait()).context("cannot end `cp`")?;
            return Err(stop.into());
        }
        thread::sleep(BETWEEN);
    };
    let said = reader.join().map_err(|_| io::Error::other("a thread of this process has failed"));
    let said = said.and_then(|read| read).context("cannot read what `cp` says")?;
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().take(3).map(|line| line.trim_start_matches("cp: ")).collect();
        bail!("cp: {}", lines.join("; "));
    }
    Ok(())
}
