//! What the phases printed when an image was built: beside the image, in a file, or of a build that still runs.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use drydock_io::lines::Lines;
use drydock_io::lock::is_written;
use drydock_io::read;
use drydock_layout::{Image, Layout, LayoutError, open_whole_blob, read_blob, running};
use drydock_model::json;
use drydock_model::manifest::{Descriptor, Manifest, subject};
use drydock_model::media;
use drydock_model::platform::Platform;
use drydock_spec::build_log::{Line, MAX_LINE};
use serde::Deserialize as _;
use serde_json::Value as Json;

use crate::repository::Repository;
use crate::watch::Watch;

/// So often a build that runs is asked for more.
const EVERY: Duration = Duration::from_millis(100);

/// A log that is read.
pub struct Log {
    lines: Lines<BufReader<Box<dyn Read>>>,
    /// Of a build that may still run.
    growing: Option<Growing>,
    /// Lines that are none of a build's log.
    others: u64,
}

struct Growing {
    /// The file, once more.
    file: File,
    /// Phases that run one by one add to it; else it is one process's.
    of_several: bool,
    /// Nobody wrote to it when it was last looked at.
    is_left: bool,
    /// What the last line says.
    last: Last,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// There is none.
    Nothing,
    /// A phase goes on.
    Goes,
    /// A phase has ended, and the build goes on.
    Phase,
    /// The build has ended.
    Build,
}

/// What comes next in a log.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A line.
    Line(Line),
    /// Nothing yet: the build goes on. See [`pause`].
    Nothing,
    /// Nothing more.
    End,
    /// Nothing more: the build was killed, and has not said how it ended.
    Killed,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("is_growing", &self.growing.is_some()).finish_non_exhaustive()
    }
}

/// Lets a build that runs go on for a moment.
pub fn pause(watch: &dyn Watch) -> io::Result<()> {
    thread::sleep(EVERY);
    watch.advance(0)
}

/// Finds the log of a name: a path of a file, or else an image. With `follow`, that of the build of this name that runs comes
/// first. None: the image has none.
pub fn find(repository: &Repository, name: &str, follow: bool, platform: &Platform) -> Result<Option<Log>> {
    let path = Path::new(name);
    if name.starts_with(['/', '.']) && fs::metadata(path).is_ok_and(|file| !file.is_dir()) {
        let file = read::open(path).with_context(|| format!("cannot open `{name}`"))?;
        return Log::of_file(file, follow, true).map(Some);
    }
    let found = if follow { running(repository.locate(name)?.path())? } else { None };
    if let Some(file) = found {
        return Log::of_file(file, follow, false).map(Some);
    }
    let (_, layout) = repository.open(name)?;
    let image = layout.image(platform)?;
    let Some(lines) = beside(&layout, &image)? else { return Ok(None) };
    let lines = open_whole_blob(image.layout(), &lines)?;
    Ok(Some(Log::new(Box::new(lines), None)))
}

/// The lines of the log of an image's build.
fn beside(layout: &Layout, image: &Image) -> Result<Option<Descriptor>, LayoutError> {
    for artifact in layout.artifacts() {
        // What else there is need not be readable.
        if artifact.rest.get("artifactType").is_some_and(|kind| kind != media::BUILD_LOG) {
            continue;
        }
        let text = match read_blob(image.layout(), artifact) {
            Err(LayoutError::MissingBlob { .. }) => continue,
            text => text?,
        };
        let Ok(json) = json::from_slice::<Json>(&text) else { continue };
        let is_log = json["artifactType"] == media::BUILD_LOG;
        let is_of_image = subject(&json).and_then(|digest| digest.parse().ok()) == Some(image.digest());
        let Ok(manifest) = Manifest::deserialize(json) else { continue };
        if is_log && is_of_image {
            return Ok(manifest.layers.into_iter().find(|layer| layer.media_type == media::BUILD_LOG));
        }
    }
    Ok(None)
}

impl Log {
    fn new(from: Box<dyn Read>, growing: Option<Growing>) -> Self {
        Self { lines: Lines::new(BufReader::new(from), MAX_LINE), growing, others: 0 }
    }

    fn of_file(file: File, follow: bool, of_several: bool) -> Result<Self> {
        let again = file.try_clone().context("cannot open the log once more")?;
        let growing = Growing { file, of_several, is_left: false, last: Last::Nothing };
        Ok(Self::new(Box::new(again), follow.then_some(growing)))
    }

    /// How many lines were passed over, since they are none of a build's log.
    pub fn others(&self) -> u64 {
        self.others + self.lines.skipped()
    }

    /// What comes next.
    pub fn next_line(&mut self) -> Result<Next> {
        loop {
            while let Some(text) = self.lines.next_line().context("cannot read the log")? {
                let Some(line) = Line::parse(text) else {
                    self.others += 1;
                    continue;
                };
                if let Some(growing) = &mut self.growing {
                    growing.last = match line.exit {
                        _ if line.ends_build() => Last::Build,
                        Some(_) => Last::Phase,
                        None => Last::Goes,
                    };
                }
                return Ok(Next::Line(line));
            }
            let Some(growing) = &mut self.growing else { return Ok(Next::End) };
            if let Some(next) = growing.next().context("cannot find out whether the build goes on")? {
                return Ok(next);
            }
        }
    }
}

impl Growing {
    /// What comes where there is no line. None: there may be one now.
    fn next(&mut self) -> io::Result<Option<Next>> {
        if !self.is_left {
            self.is_left = !is_written(&self.file)?;
            // What was written before the end is read after it.
            return Ok(if self.is_left { None } else { Some(Next::Nothing) });
        }
        self.is_left = false;
        Ok(Some(match self.last {
            Last::Build => Next::End,
            Last::Nothing | Last::Phase if self.of_several => Next::Nothing,
            Last::Nothing | Last::Phase | Last::Goes => Next::Killed,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use drydock_io::lock::mark_written;

    use super::*;

    fn line(phase: &str, text: &str, exit: Option<u8>) -> String {
        let exit = exit.map_or(String::new(), |exit| format!(",\"exit\":{exit}"));
        format!("{{\"time\":\"t\",\"phase\":\"{phase}\",\"stream\":\"stdout\",\"text\":\"{text}\"{exit}}}\n")
    }

    /// What comes until there is nothing more for now.
    fn come(log: &mut Log) -> String {
        let mut all = Vec::new();
        loop {
            match log.next_line().unwrap() {
                Next::Line(line) => all.push(line.text),
                end => return format!("{} {end:?}", all.join(" ")),
            }
        }
    }

    #[test]
    fn a_file_is_followed_until_the_build_ends() {
        for (of_several, steps) in [
            (
                true,
                &[
                    (line("analyzer", "a", None), true, "a Nothing"),
                    (line("analyzer", "", Some(0)), true, " Nothing"),
                    (String::new(), false, " Nothing"),
                    ("other\n".to_owned() + &line("exporter", "b", None), true, "b Nothing"),
                    (line("exporter", "", Some(0)), true, " Nothing"),
                    (String::new(), false, " End"),
                ][..],
            ),
            (true, &[(String::new(), false, " Nothing"), (line("builder", "a", None), false, "a Killed")]),
            (true, &[(line("builder", "", Some(51)), false, " End")]),
            (false, &[(line("creator", "a", None), true, "a Nothing"), (String::new(), false, " Killed")]),
            (false, &[(line("creator", "a", None) + &line("creator", "", Some(0)), false, "a  End")]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            fs::write(&path, "").unwrap();
            let mut log = Log::of_file(File::open(&path).unwrap(), true, of_several).unwrap();
            for (more, is_held, want) in steps {
                let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
                assert!(mark_written(&writer));
                writer.write_all(more.as_bytes()).unwrap();
                let held = is_held.then_some(writer);
                let got = come(&mut log);
                assert_eq!(got.trim_start(), want.trim_start(), "{of_several} {more}");
                drop(held);
            }
        }
    }

    #[test]
    fn without_following_a_file_ends_where_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, line("builder", "a", None) + "x\n{}\n" + &"x".repeat(MAX_LINE + 1) + "\n").unwrap();
        let repository = Repository::new(dir.path()).unwrap();
        let find = |follow| find(&repository, path.to_str().unwrap(), follow, &Platform::host()).unwrap();
        let mut log = find(false).unwrap();
        assert_eq!(come(&mut log), "a End");
        assert_eq!(log.others(), 3);
        assert_eq!(come(&mut find(true).unwrap()), "a Killed");
    }
}
