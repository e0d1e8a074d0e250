//! Faults of the system at any moment of a command: what is said, what is left, and that the next run does it all.
//!
//! A scene is a folder and a command. The command is run once undisturbed; then, from the same beginning, once for each fault: a
//! system call that fails (strace), few descriptors, a disk that is full or may only be read. Each time, names stand for what they stood for before
//! or for what they are to stand for, whole; a failure has one of the command's exit codes, and says on which file and why; a
//! success without a warning leaves what it leaves undisturbed. The next run does that in any case, and leaves no temporary files.

mod phases;
mod sandboxed;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use drydock_acceptance::faults::{CALLS, Fault, felt, of_folders, watching};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::project::{run, succeed};
use drydock_acceptance::run::Output;
use drydock_acceptance::tree::{self, Kind, Tree};
use libtest_mimic::Trial;
use walkdir::WalkDir;

use crate::Built;
use crate::building::Houses;

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>, houses: &Arc<Houses>) -> Vec<Trial> {
    let mut trials = phases::trials(executables);
    trials.extend(sandboxed::trials(executables, houses));
    trials
}

/// How many calls of a kind fail, unless `DRYDOCK_TEST_ROUNDS` says how many.
const ROUNDS: usize = 1;

fn rounds() -> Result<usize> {
    #[expect(clippy::disallowed_methods, reason = "for runs by hand, which nothing else reads")]
    match std::env::var("DRYDOCK_TEST_ROUNDS") {
        Ok(text) => text.parse().context("DRYDOCK_TEST_ROUNDS is no number"),
        Err(_) => Ok(ROUNDS),
    }
}

/// Makes a command, started by other programs: their words come first.
pub(crate) type Start<'a> = Box<dyn Fn(&[&str]) -> Result<Command> + 'a>;

/// A command in a folder.
pub(crate) struct Scene<'a> {
    pub(crate) name: &'a str,
    /// All that the command reads and writes.
    pub(crate) root: PathBuf,
    pub(crate) start: Start<'a>,
    /// With which it may fail.
    pub(crate) exits: &'a [i32],
    /// What is done before the next run.
    pub(crate) prepare: Option<Start<'a>>,
    /// With which it may end where everything is done already, and what removes temporary files then.
    pub(crate) done: Option<(i32, Start<'a>)>,
    /// The folder with the layouts that names stand for. When the command fails, nothing in it is lost or changed.
    pub(crate) layouts: &'a str,
    /// What is the same after each run that was not disturbed.
    pub(crate) kept: &'a [&'a str],
    /// Whether it is tried on disks of its own and with few descriptors, too: programs of others have theirs to say to that.
    pub(crate) on_disks: bool,
    /// Calls that are not made to fail.
    pub(crate) without: &'a [&'a str],
}

/// What happens to it.
#[derive(Debug)]
enum Trouble {
    Call(Fault),
    /// It has so many descriptors.
    Descriptors(usize),
    /// Its folder is a file system of its own, mounted with these options, and then with those.
    Disk(String, &'static str),
}

/// What is in a scene's folder.
struct State {
    /// What each image's name stands for.
    names: Vec<String>,
    layouts: Tree,
    kept: Tree,
    temporary: Vec<String>,
}

impl State {
    /// All images must be whole.
    fn of(dir: &Path, layouts: &str, kept: &[&str]) -> Result<Self> {
        let (mut names, mut temporary) = (Vec::new(), Vec::new());
        for entry in WalkDir::new(dir).sort_by_file_name() {
            let entry = entry.context("list the scene")?;
            let path = entry.path().strip_prefix(dir).context("a walk stays under its start")?;
            if entry.file_name().to_string_lossy().starts_with(".drydock-") {
                temporary.push(path.display().to_string());
            }
            if entry.file_name() != "index.json" || !path.starts_with(layouts) {
                continue;
            }
            let (layout, name) =
                (entry.path().parent().context("a folder")?, path.parent().context("a folder")?);
            let images = Layout::new(layout).verify();
            for image in images.with_context(|| format!("what is left in {}", name.display()))? {
                names.push(format!("{} {}", name.display(), image.descriptor.digest));
            }
        }
        let mut kept_files = Tree::new();
        for kept in kept {
            kept_files.extend(files(dir, kept)?);
        }
        Ok(Self { names, layouts: files(dir, layouts)?, kept: kept_files, temporary })
    }
}

/// The names of images but those of caches, which an image can do without.
fn all_but_caches(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| !name.contains("cache"))
}

/// What is in a folder of another one.
fn files(dir: &Path, below: &str) -> Result<Tree> {
    let found = tree::read(&dir.join(below))?;
    // A link may be a copy as well.
    let resolved = found.iter().map(|(path, node)| {
        let mut node = node.clone();
        if let Kind::HardLink(first) = &node.kind {
            node.kind = found[first].kind.clone();
        }
        (Path::new(below).join(path), node)
    });
    Ok(resolved.collect())
}

/// What is different, but for what a layout may have besides: whole blobs that nothing leads to and, with `parts`, what a failure may leave
/// to the next run.
fn differs(wanted: &Tree, found: &Tree, parts: bool) -> Vec<String> {
    let is_temporary = |path: &Path| path.to_string_lossy().contains(".drydock-");
    let (mut wanted, mut found) = (wanted.clone(), found.clone());
    wanted.retain(|path, _| !parts || !is_temporary(path));
    found.retain(|path, node| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_spare = match &node.kind {
            Kind::File(_, digest) => {
                path.parent().is_some_and(|dir| dir.ends_with("blobs/sha256"))
                    && *digest == format!("sha256:{name}")
            }
            _ => false,
        };
        let is_part =
            node.kind == Kind::Dir || name == "oci-layout" || path.to_string_lossy().contains(".drydock-");
        wanted.contains_key(path) || !(is_spare || parts && is_part)
    });
    tree::differences(&wanted, &found)
}

/// What came of a trouble.
struct Met {
    output: Output,
    left: State,
    /// Which calls failed; none if that cannot be known.
    felt: Option<(String, Vec<PathBuf>)>,
}

/// Runs a command, from the folder `$3`, in a file system of its own at `$1`, mounted with `$2` and then `$4`; what it leaves goes to `$5`.
const ON_DISK: &str = r#"
mount -t tmpfs -o "$2" scene "$1" && cp -a "$3/." "$1" || exit 99
[ -z "$4" ] || mount -o "remount,$4" "$1" || exit 99
cd "$1"
left=$5
shift 5
root=$PWD
"$@"
code=$?
cp -a "$root/." "$left" || exit 98
exit $code
"#;

impl Scene<'_> {
    fn state(&self, dir: &Path) -> Result<State> {
        State::of(dir, self.layouts, self.kept)
    }

    /// Puts a folder's files in the place of the scene's.
    fn put(&self, from: &Path) -> Result<()> {
        empty(&self.root)?;
        copy(from, &self.root)
    }

    fn run(&self, starter: &[String]) -> Result<Output> {
        let patient = ["timeout", "--foreground", "--signal=KILL", "240"];
        let words: Vec<&str> = patient.into_iter().chain(starter.iter().map(String::as_str)).collect();
        run(&mut (self.start)(&words)?)
    }

    /// Tries all troubles.
    pub(crate) fn try_all(&self) -> Result<()> {
        let rounds = rounds()?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let aside = folder.path();
        let begin = aside.join("begin");
        fs::create_dir(&begin)?;
        copy(&self.root, &begin)?;
        let before = self.state(&begin)?;
        let log = self.root.join("calls");
        let output = self.run(&watching(&log))?;
        ensure!(output.exit == 0, "exit code {}\n{}", output.exit, output.text());
        let own = of_folders(&fs::read_to_string(&log)?, &[&self.root]);
        let after = self.state(&self.root)?;
        let mut tally = Tally::default();
        for (call, error) in CALLS {
            let Some(numbers) = own.get(call).filter(|_| !self.without.contains(&call)) else { continue };
            for number in spread(numbers, rounds) {
                let trouble = Trouble::Call(Fault { call, error, number });
                self.judge(&trouble, aside, &before, &after, &mut tally)?;
            }
        }
        if self.on_disks {
            for number in spread(&(4..=40).collect(), rounds * 3) {
                self.judge(&Trouble::Descriptors(number), aside, &before, &after, &mut tally)?;
            }
            for trouble in disks(&begin, rounds * 2)? {
                self.judge(&trouble, aside, &before, &after, &mut tally)?;
            }
        }
        tally.end(self.name, rounds > ROUNDS)
    }

    fn judge(
        &self,
        trouble: &Trouble,
        aside: &Path,
        before: &State,
        after: &State,
        tally: &mut Tally,
    ) -> Result<()> {
        self.put(&aside.join("begin"))?;
        let Some(met) = self.meet(trouble, aside).with_context(|| format!("{trouble:?}"))? else {
            return Ok(());
        };
        tally.count(&met);
        let said = met.output.text();
        let mut wrong = self.wrong(&met, before, after).err();
        if wrong.is_none() {
            wrong = self.next(before, after).context("the next run").err();
        }
        if let Some(wrong) = wrong {
            let felt = met.felt.as_ref();
            tally
                .wrong
                .push(format!("{trouble:?} {felt:?}: {wrong:#}\nexit code {}\n{said}", met.output.exit));
        }
        Ok(())
    }

    /// Runs it in trouble; none if there was none.
    fn meet(&self, trouble: &Trouble, aside: &Path) -> Result<Option<Met>> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        match trouble {
            Trouble::Call(fault) => {
                let log = self.root.join("calls");
                let output = self.run(&fault.starter(&log))?;
                let felt = felt(&fs::read_to_string(&log)?);
                let Some(first) = felt.first() else { return Ok(None) };
                let cause = first.cause.clone();
                let paths = felt.into_iter().flat_map(|felt| felt.paths).collect();
                Ok(Some(Met { output, left: self.state(&self.root)?, felt: Some((cause, paths)) }))
            }
            Trouble::Descriptors(number) => {
                let output = self.run(&words(&["prlimit", &format!("--nofile={number}")]))?;
                Ok(Some(Met { output, left: self.state(&self.root)?, felt: None }))
            }
            Trouble::Disk(options, then) => {
                let (begin, left) = (aside.join("begin"), aside.join("left"));
                fs::create_dir(&left)?;
                let [root, begin, to] = [&self.root, &begin, &left].map(|path| path.display().to_string());
                let script =
                    ["unshare", "--mount", "sh", "-c", ON_DISK, "sh", &root, options, &begin, then, &to];
                let output = self.run(&words(&script))?;
                // There was not room for what is there before.
                let is_tried = output.exit != 99;
                ensure!(output.exit != 98, "what is left cannot be copied: {}", output.text());
                if is_tried {
                    self.put(&left)?;
                }
                fs::remove_dir_all(&left)?;
                Ok(if is_tried {
                    Some(Met { output, left: self.state(&self.root)?, felt: None })
                } else {
                    None
                })
            }
        }
    }

    fn wrong(&self, met: &Met, before: &State, after: &State) -> Result<()> {
        let Met { output, left, felt } = met;
        let (said, shown) = (output.text(), output.text().to_lowercase());
        for never in ["panicked at", "stack backtrace", "Os {", "Error {", "Error(", "kind: ", "Some("] {
            ensure!(!said.contains(never), "`{never}` is said");
        }
        // That there is none in the tests' builder is always said.
        let warns = said
            .lines()
            .any(|line| line.to_lowercase().contains("warning: ") && !line.contains("Did not find SBOM"));
        let is_like = |wanted: &State| all_but_caches(&left.names).eq(all_but_caches(&wanted.names));
        let is_known = |name: &String| before.names.contains(name) || after.names.contains(name);
        let is_whole = (is_like(before) || is_like(after)) && left.names.iter().all(is_known);
        ensure!(is_whole, "neither before nor after: {:?}", left.names);
        if output.exit == 0 {
            ensure!(is_like(after), "success, but names are as before");
            let differs = differs(&after.kept, &left.kept, false);
            ensure!(warns || differs.is_empty(), "success, but: {}", differs.join("\n"));
            return Ok(());
        }
        // What loads libraries before anything of ours runs.
        if output.exit == 127 && said.contains("error while loading shared libraries") {
            return Ok(());
        }
        ensure!(self.exits.contains(&output.exit), "it has no such exit code");
        if is_like(before) {
            let differs = differs(&before.layouts, &left.layouts, true);
            ensure!(differs.is_empty(), "it failed, but: {}", differs.join("\n"));
        }
        let Some((cause, paths)) = felt else {
            let causes = ["Too many open files", "No space left on device", "Read-only file system"];
            ensure!(
                causes.iter().any(|cause| shown.contains(&cause.to_lowercase())),
                "the cause is not said"
            );
            // A pipe has no name.
            ensure!(said.contains('/') || said.contains("Too many"), "no file is named");
            return Ok(());
        };
        ensure!(shown.contains(&cause.to_lowercase()), "`{cause}` is not said");
        let is_named = |path: &PathBuf| {
            let below = path.strip_prefix(&self.root).unwrap_or(path);
            let near = path.ancestors().take(5).filter(|near| near.starts_with(&self.root) || *near == path);
            let near = near.chain(below.ancestors().take(2).filter(|near| !near.as_os_str().is_empty()));
            // A blob is named by its digest, what lies in an image by its path there.
            let leaf = path.file_name().unwrap_or_default().to_string_lossy();
            let is_leaf = |word: &str| word.rsplit('/').next().is_some_and(|last| last.ends_with(&*leaf));
            // And a folder there by what was looked for in it.
            let is_above = |word: &str| {
                let mut above =
                    Path::new(word).ancestors().skip(1).filter_map(|dir| dir.strip_prefix("/").ok());
                above.any(|dir| !dir.as_os_str().is_empty() && path.ends_with(dir))
            };
            // What has no name yet, by the folder that it is in.
            let folder = path.parent().and_then(Path::file_name).filter(|_| leaf.starts_with(".drydock-"));
            let is_in =
                |word: &str| folder.is_some() && Path::new(word).parent().and_then(Path::file_name) == folder;
            let mut words = said.split([' ', '`', ':', ',', '\n']).filter(|word| !word.is_empty());
            near.map(|near| near.display().to_string()).any(|near| said.contains(&near))
                || words.any(|word| is_leaf(word) || is_above(word) || is_in(word))
        };
        ensure!(paths.is_empty() || paths.iter().any(is_named), "none of the files is named");
        Ok(())
    }

    /// Runs it undisturbed on what is left.
    fn next(&self, before: &State, after: &State) -> Result<()> {
        if let Some(prepare) = &self.prepare {
            succeed(&mut prepare(&["env"])?)?;
        }
        let output = self.run(&[])?;
        match &self.done {
            Some((exit, clean)) if output.exit == *exit => drop(succeed(&mut clean(&["env"])?)?),
            _ => ensure!(output.exit == 0, "exit code {}\n{}", output.exit, output.text()),
        }
        let left = self.state(&self.root)?;
        let differs = differs(&after.kept, &left.kept, false);
        ensure!(left.temporary.is_empty(), "temporary files are left: {}", left.temporary.join(", "));
        ensure!(
            left.names == after.names,
            "{:?}, not {:?}, before {:?}",
            left.names,
            after.names,
            before.names
        );
        ensure!(differs.is_empty(), "not as undisturbed: {}\n{}", differs.join("\n"), output.text());
        Ok(())
    }
}

/// Sizes and numbers of files with which a folder's files have room, or almost, and one that may only be read.
fn disks(begin: &Path, rounds: usize) -> Result<Vec<Trouble>> {
    let (mut size, mut files) = (0, 2);
    for entry in WalkDir::new(begin) {
        // tmpfs takes whole pages.
        size += entry.context("list the scene")?.metadata()?.len().div_ceil(4096) * 4;
        files += 1;
    }
    let sizes = (1..=32).map(|more| size + more * more).collect();
    let inodes = (1..=48).map(|more| files + more).collect();
    let sizes = spread(&sizes, rounds).into_iter().map(|size| format!("mode=0755,size={size}k"));
    let inodes =
        spread(&inodes, rounds).into_iter().map(|files| format!("mode=0755,size=256m,nr_inodes={files}"));
    let full = sizes.chain(inodes).map(|options| Trouble::Disk(options, ""));
    Ok(full.chain([Trouble::Disk("mode=0755,size=256m".to_owned(), "ro")]).collect())
}

/// At most so many of these, spread evenly.
fn spread<T: Copy + Ord>(all: &BTreeSet<T>, most: usize) -> Vec<T> {
    let all: Vec<T> = all.iter().copied().collect();
    let most = most.min(all.len());
    (0..most).map(|at| all[(2 * at + 1) * all.len() / (2 * most)]).collect()
}

fn empty(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        let is_dir = path.symlink_metadata()?.is_dir();
        if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
            .with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

/// Copies what is in a folder, as it is.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let from = format!("{}/.", from.display());
    let output = run(Command::new("cp").args(["-a", &from]).arg(to))?;
    ensure!(output.exit == 0, "copy {from}: {}", output.text());
    Ok(())
}

/// What was tried.
#[derive(Default)]
struct Tally {
    tried: usize,
    failed: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn count(&mut self, met: &Met) {
        self.tried += 1;
        self.failed += usize::from(met.output.exit != 0);
    }

    #[expect(clippy::print_stderr, reason = "who runs it by hand wants the numbers")]
    fn end(self, name: &str, tell: bool) -> Result<()> {
        let Self { tried, failed, wrong } = self;
        if tell {
            eprintln!("{name}: {tried} faults, of which {failed} were failures and {} wrong", wrong.len());
        }
        // A restorer goes on without what it cannot read: of the smallest sample, it feels few.
        ensure!(failed >= 3, "only {failed} of {tried} were felt");
        if !wrong.is_empty() {
            bail!("{} of {tried} faults:\n\n{}", wrong.len(), wrong.join("\n\n"));
        }
        Ok(())
    }
}
