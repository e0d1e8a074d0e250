//! Git repositories, by the installed program `git`: the files of one commit, as a tar.
//!
//! What a repository is and how it is reached is what git makes of it: protocols, proxies, the user's own settings and credential
//! helpers, SSH with its agent. What could do harm is turned off: hooks, submodules, filters and attributes of the repository, other
//! protocols than that of the address, questions to the user. Neither a password nor anything that could be an option gets into
//! arguments; credentials that are known here are given to git in its environment, for one host.
//!
//! A commit that is named by its hash must be on a branch or lead to a tag: hosts give out what others have put into a copy of the
//! repository, too. Files are as they were committed: nothing is converted, and in place of what is elsewhere (submodules, LFS), there is
//! an empty folder, or the text that says where it is. Each file has the time of the commit.

mod address;
mod program;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use self::address::is_hash;
pub use self::address::{GitAddress, GitScheme, GitUrl, InvalidGitAddress, Revision};
use self::program::Program;
use crate::auth::{AuthError, Credentials, Keychain};
use crate::error::{ErrorKind, TIME_IS_OVER};
use crate::options::Options;
use crate::transport::Transport;
use crate::url::{Origin, normal_name, port, registry_name};

/// How long it may take to get a commit, in all.
pub const TIME_LIMIT: Duration = Duration::from_hours(1);

/// How many bytes a repository may have that is fetched, and how many the tar of a commit.
pub const SIZE_LIMIT: u64 = 16 << 30;

/// How many bytes the list of a repository's branches and tags may have.
const ANSWER_LIMIT: usize = 64 << 20;

/// Where the wanted commit is in a repository of ours.
const WANTED: &str = "refs/drydock/wanted";

/// Attributes of files that are stronger than those in a commit: all are as they were committed.
const ATTRIBUTES: &str =
    "* -text -eol -crlf -ident -filter -working-tree-encoding -export-ignore -export-subst\n";

/// Why there is no commit.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// A program is not installed.
    #[error("`{program}` is not installed: apt-get install {package}")]
    Missing {
        /// The program.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// The repository does not have it.
    #[error("`{url}` {reason}")]
    NoCommit {
        /// The repository.
        url: String,
        /// What it lacks.
        reason: String,
    },
    /// Git could not do it.
    #[error("`{url}`: {reason}")]
    Failed {
        /// The repository.
        url: String,
        /// In git's words.
        reason: String,
    },
    /// It is larger than anything that makes sense.
    #[error("`{url}` has more than {SIZE_LIMIT} bytes")]
    TooLarge {
        /// The repository.
        url: String,
    },
    /// It takes longer than anything that makes sense.
    #[error("`{url}` takes longer than {} minutes", TIME_LIMIT.as_secs() / 60)]
    TooLong {
        /// The repository.
        url: String,
    },
    /// It was not done when it should have been.
    #[error("`{url}`: {TIME_IS_OVER}")]
    TimeIsOver {
        /// The repository.
        url: String,
    },
    /// Somebody has stopped it.
    #[error("stopped by a signal")]
    Stopped,
    /// The credentials could not be found out.
    #[error("`{url}`: {source}")]
    Credentials {
        /// The repository.
        url: String,
        /// Why.
        source: AuthError,
    },
    /// A setting that cannot be used.
    #[error("`{url}`: {reason}")]
    Options {
        /// The repository.
        url: String,
        /// Which one.
        reason: String,
    },
    /// A process or a file.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// How repositories are reached.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "it holds a function")]
pub struct Git<'a> {
    /// Hosts, credentials and variables, as for registries.
    pub options: &'a Options,
    /// The private key that SSH shows, and no other.
    pub ssh_key: Option<&'a Path>,
    /// Whether somebody wants to stop it.
    pub stopped: &'a dyn Fn() -> bool,
}

/// A commit, and what leads to it: branches and tags, as git is told of them.
struct Found {
    commit: String,
    leads_there: Vec<String>,
}

impl Found {
    /// What a name of the repository stands for.
    fn at((name, commit): (String, String)) -> Self {
        Self { leads_there: vec![format!("+{name}:{WANTED}")], commit }
    }
}

impl Git<'_> {
    /// Writes the files of a commit, or of the folder of it that is asked for, as a tar; gives the commit's hash. Names in the tar begin
    /// at the commit's root. `dir` is an empty folder that is nobody else's.
    pub fn archive(&self, address: &GitAddress, dir: &Path, to: &mut dyn Write) -> Result<String, GitError> {
        let git = self.program(address, dir)?;
        let search = Search { git: &git, address, dir };
        let found = search.find()?;
        let contents = search.bring(&found)?;
        let mut arguments = vec!["--git-dir", &contents, "archive", "--format=tar", &*found.commit];
        arguments.extend(address.folder.iter().flat_map(|folder| ["--", folder]));
        git.run(&arguments, to).map_err(|error| match (&address.folder, error) {
            (Some(folder), GitError::Failed { url, reason })
                if reason.contains("did not match any files") =>
            {
                GitError::NoCommit {
                    url,
                    reason: format!("has no folder `{folder}` in commit {}", found.commit),
                }
            }
            (_, error) => error,
        })?;
        Ok(found.commit)
    }

    fn program<'p>(&'p self, address: &GitAddress, dir: &'p Path) -> Result<Program<'p>, GitError> {
        let url = &address.url;
        let text = url.to_string();
        let wrong = |reason: String| GitError::Options { url: text.clone(), reason };
        let scheme = url.scheme.name();
        let mut git = Program::new(dir, (text.clone(), scheme), self.options, self.stopped);
        match url.scheme {
            GitScheme::File => {}
            GitScheme::Ssh => git.set("GIT_SSH_COMMAND", &self.ssh().map_err(wrong)?),
            GitScheme::Https | GitScheme::Http => {
                let origin = Origin { is_https: url.scheme == GitScheme::Https, host: url.host.clone() };
                let transport =
                    Transport::new(self.options).map_err(|kind: ErrorKind| wrong(kind.to_string()))?;
                if !transport.allows(&origin) {
                    return Err(wrong("the host is not said to have plain HTTP; use HTTPS".to_owned()));
                }
                let is_host =
                    |name: &str| normal_name(name, port(origin.is_https)).as_deref() == Some(&*url.host);
                let host = self.options.hosts.iter().find(|(name, _)| is_host(name));
                if let Some(path) = host.and_then(|(_, host)| host.ca_file.as_ref()) {
                    let path = path
                        .to_str()
                        .ok_or_else(|| wrong("the path of a `ca-file` is not UTF-8".to_owned()))?;
                    git.configure(format!("http.{origin}/.sslCAInfo"), path);
                }
                let keychain = Keychain::new(self.options);
                let found = keychain.credentials(&transport, registry_name(&url.host), &url.path);
                let found = found.map_err(|source| GitError::Credentials { url: text.clone(), source })?;
                if let Some(Credentials::Password { user, password }) = found {
                    if user.contains(['\n', '\0']) || password.0.contains(['\n', '\0']) {
                        return Err(wrong("its credentials have more than one line".to_owned()));
                    }
                    git.show(&origin.to_string(), &user, &password.0);
                }
            }
        }
        Ok(git)
    }

    /// The command by which git starts SSH: a line for a shell.
    fn ssh(&self) -> Result<String, String> {
        // One connection of its own, which ends with git, and asks nobody.
        let line = "ssh -o BatchMode=yes -o ConnectTimeout=60 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 \
                        -o ControlMaster=no -o ControlPath=none -o ForwardAgent=no -o ClearAllForwardings=yes \
                        -o PermitLocalCommand=no";
        let Some(key) = self.ssh_key else { return Ok(line.to_owned()) };
        let path = fs::canonicalize(key)
            .map_err(|error| format!("cannot find the key `{}`: {error}", key.display()))?;
        let path = path.to_str().ok_or("the path of the key is not UTF-8")?.replace('\'', "'\\''");
        Ok(format!("{line} -o IdentitiesOnly=yes -i '{path}'"))
    }
}

/// What is looked for in a repository.
struct Search<'a> {
    git: &'a Program<'a>,
    address: &'a GitAddress,
    dir: &'a Path,
}

impl Search<'_> {
    fn none(&self, reason: String) -> GitError {
        GitError::NoCommit { url: self.address.url.to_string(), reason }
    }

    /// The wanted commit, of which it is known that it is where the address says.
    fn find(&self) -> Result<Found, GitError> {
        match &self.address.revision {
            Revision::Head => {
                let all = self.listed(&["HEAD".to_owned()])?;
                let head = all.into_iter().find(|(name, _)| name == "HEAD");
                head.map(Found::at).ok_or_else(|| self.none("has no commit at its HEAD".to_owned()))
            }
            Revision::Name(name) => self.named(name),
            Revision::OnBranch { branch, commit } => {
                let reference = format!("refs/heads/{branch}");
                let all = self.listed(std::slice::from_ref(&reference))?;
                if all.is_empty() {
                    return Err(self.none(format!("has no branch `{branch}`")));
                }
                self.reached(commit, &all, &format!("branch `{branch}`"))
            }
            Revision::Commit(commit) => {
                let mut all = self.listed(&[])?;
                all.retain(|(name, _)| name.starts_with("refs/heads/") || name.starts_with("refs/tags/"));
                self.reached(commit, &all, "any branch or tag")
            }
        }
    }

    /// What the repository lists: of all, or of what has one of these whole names; of tags that lead to commits these.
    fn listed(&self, names: &[String]) -> Result<Vec<(String, String)>, GitError> {
        let url = self.address.url.to_string();
        let mut arguments = vec!["ls-remote", "--quiet", "--", &url];
        let patterns: Vec<String> =
            names.iter().flat_map(|name| [name.clone(), format!("{name}^{{}}")]).collect();
        arguments.extend(patterns.iter().map(String::as_str));
        let answer = self.git.answer(&arguments)?;
        let mut found: Vec<(String, String)> = Vec::new();
        for (hash, name) in
            answer.lines().filter_map(|line| line.split_once('\t')).filter(|(hash, _)| is_hash(hash))
        {
            let (name, is_peeled) = name.strip_suffix("^{}").map_or((name, false), |name| (name, true));
            match found.last_mut() {
                Some((last, commit)) if is_peeled && last == name => hash.clone_into(commit),
                _ if names.is_empty() || names.iter().any(|wanted| wanted == name) => {
                    found.push((name.to_owned(), hash.to_owned()));
                }
                // A pattern fits the end of other names, too.
                _ => {}
            }
        }
        Ok(found)
    }

    fn named(&self, name: &str) -> Result<Found, GitError> {
        let whole = name.starts_with("refs/").then(|| vec![name.to_owned()]);
        let names =
            whole.unwrap_or_else(|| ["heads", "tags"].map(|kind| format!("refs/{kind}/{name}")).into());
        let mut all = self.listed(&names)?;
        if all.len() > 1 {
            let reason =
                format!("has a branch and a tag `{name}`: write `refs/heads/{name}` or `refs/tags/{name}`");
            return Err(self.none(reason));
        }
        all.pop().map(Found::at).ok_or_else(|| {
            let is_short = name.len() >= 7 && name.bytes().all(|b| b.is_ascii_hexdigit());
            let help = if is_short { "; a commit is named by its whole hash" } else { "" };
            self.none(format!("has neither a branch nor a tag `{name}`{help}"))
        })
    }

    /// A commit that one of these must lead to.
    fn reached(&self, commit: &str, all: &[(String, String)], place: &str) -> Result<Found, GitError> {
        let none = || self.none(format!("has no commit {commit} on {place}"));
        if let Some(tip) = all.iter().find(|(_, hash)| hash == commit) {
            return Ok(Found::at(tip.clone()));
        }
        let leads_there: Vec<String> = match all {
            [] => return Err(none()),
            [(name, _)] => vec![format!("+{name}:{WANTED}")],
            _ => ["heads", "tags"].map(|kind| format!("+refs/{kind}/*:refs/{kind}/*")).into(),
        };
        // Only the history is brought, where the server can do that.
        let history = self.begin("history.git", commit)?;
        self.fetch(&history, &["--filter=tree:0"], &leads_there)?;
        let mut seen = Contains { wanted: commit.as_bytes(), line: Vec::new(), found: false };
        self.git.run(&["--git-dir", &*history, "rev-list", "--all"], &mut seen)?;
        if seen.found { Ok(Found { commit: commit.to_owned(), leads_there }) } else { Err(none()) }
    }

    /// A new repository of ours.
    fn begin(&self, name: &str, commit: &str) -> Result<String, GitError> {
        let format = if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        self.git
            .run(&["init", "--quiet", "--bare", "--template=", format, "--", name], &mut std::io::sink())?;
        let write = |source| GitError::Io { action: "write the attributes of files", source };
        let info = self.dir.join(name).join("info");
        fs::create_dir_all(&info)
            .and_then(|()| fs::write(info.join("attributes"), ATTRIBUTES))
            .map_err(write)?;
        Ok(name.to_owned())
    }

    fn fetch(&self, into: &str, how: &[&str], what: &[String]) -> Result<(), GitError> {
        let url = self.address.url.to_string();
        let mut arguments =
            vec!["--git-dir", into, "fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
        arguments.extend(["--no-write-fetch-head", "--no-auto-maintenance"]);
        arguments.extend(how);
        arguments.extend(["--", &url]);
        arguments.extend(what.iter().map(String::as_str));
        self.git.run(&arguments, &mut std::io::sink())
    }

    /// The files of a commit, in a repository of ours.
    fn bring(&self, found: &Found) -> Result<String, GitError> {
        let contents = self.begin("contents.git", &found.commit)?;
        // Some servers give only what is listed: then all that leads to it.
        match self.fetch(&contents, &["--depth=1"], &[format!("+{}:{WANTED}", found.commit)]) {
            Err(GitError::Failed { .. }) => self.fetch(&contents, &[], &found.leads_there)?,
            other => other?,
        }
        Ok(contents)
    }
}

/// Whether a line is this one.
struct Contains<'a> {
    wanted: &'a [u8],
    line: Vec<u8>,
    found: bool,
}

impl Write for Contains<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                self.found |= self.line == self.wanted;
                self.line.clear();
            } else if self.line.len() <= self.wanted.len() {
                self.line.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Environment;

    fn archive(path: &str, stopped: bool) -> GitError {
        let dir = tempfile::tempdir().unwrap();
        let environment: Environment = [("PATH", path)].into_iter().collect();
        let options = Options { environment, ..Options::default() };
        let git = Git { options: &options, ssh_key: None, stopped: &|| stopped };
        let address = format!("git+file://{}/none", dir.path().display()).parse().unwrap();
        git.archive(&address, dir.path(), &mut std::io::sink()).unwrap_err()
    }

    #[test]
    fn failures_are_told_apart() {
        let path = "/usr/local/bin:/usr/bin:/bin";
        assert!(matches!(archive("/nowhere", false), GitError::Missing { package: "git", .. }));
        assert!(matches!(archive(path, true), GitError::Stopped));
        let failed = archive(path, false);
        assert!(matches!(failed, GitError::Failed { .. }), "{failed}");
        assert!(failed.to_string().contains("does not appear to be a git repository"), "{failed}");
    }

    #[test]
    fn the_key_of_ssh_is_one_word() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("a key's; touch x");
        fs::write(&key, "").unwrap();
        let git = Git { options: &Options::default(), ssh_key: Some(&key), stopped: &|| false };
        let line = git.ssh().unwrap();
        let words = std::process::Command::new("sh")
            .args(["-c", &format!("printf '%s\\n' {line}")])
            .output()
            .unwrap();
        let words = String::from_utf8(words.stdout).unwrap();
        let key = fs::canonicalize(&key).unwrap();
        assert_eq!(words.lines().last(), key.to_str());
        assert!(words.contains("BatchMode=yes") && words.contains("IdentitiesOnly=yes"));
        let missing = Git { ssh_key: Some(Path::new("/no/such/key")), ..git };
        assert!(missing.ssh().unwrap_err().contains("/no/such/key"));
    }
}
