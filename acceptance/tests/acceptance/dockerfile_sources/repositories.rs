//! Dockerfiles in git repositories: which commits are found, who may have them, and what a repository cannot do.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use drydock_acceptance::project::{run, succeed};
use drydock_acceptance::sandboxed::Who;
use drydock_fake_registry::{Answer, Fake};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::git_server::{TOKEN, git, serve};
use super::{EVERYBODY, Site};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("dockerfile_sources::commits_are_found_or_refused", commits_are_found_or_refused),
            ("dockerfile_sources::git_wants_user_and_token", git_wants_user_and_token),
            ("dockerfile_sources::ssh_shows_the_key_and_asks_nobody", ssh_shows_the_key_and_asks_nobody),
            ("dockerfile_sources::a_repository_runs_nothing", a_repository_runs_nothing),
            ("dockerfile_sources::a_signal_ends_git", a_signal_ends_git),
        ],
    )
}

fn commits_are_found_or_refused(built: &Built) -> Result<()> {
    let scratch = "FROM scratch\nCOPY file /\n";
    let site = Site::new(
        built,
        Who::Ordinary,
        &[("Dockerfile", scratch), ("file", "first"), ("sub/Dockerfile", scratch)],
    )?;
    site.put("sub/file", "of sub")?;
    let first = site.commit("home/repo")?;
    let dir = site.house.path("home/repo");
    let commit = |text: &str| -> Result<String> {
        fs::write(dir.join("file"), text)?;
        git(&dir, &["commit", "--quiet", "--all", "--message", text])?;
        git(&dir, &["rev-parse", "HEAD"])
    };
    let second = commit("second")?;
    git(&dir, &["tag", "light"])?;
    let third = commit("third")?;
    git(&dir, &["tag", "--annotate", "heavy", "--message", "of three"])?;
    git(&dir, &["checkout", "--quiet", "-b", "side/way", &first])?;
    let aside = commit("aside")?;
    git(&dir, &["tag", "both"])?;
    git(&dir, &["branch", "both"])?;
    // A commit that nothing leads to, as of a copy of the repository elsewhere.
    let lost = commit("lost")?;
    git(&dir, &["reset", "--quiet", "--hard", &aside])?;
    git(&dir, &["checkout", "--quiet", "main"])?;
    git(&dir, &["config", "uploadpack.allowAnySHA1InWant", "true"])?;
    site.house.own()?;
    let server = serve(&site.house.path("home"), false, |_| ());
    site.house.write("sources.toml", &format!("[host.'{}']\nplain-http = true\n", server.host))?;
    let places = [format!("git+file://{}", dir.display()), format!("git+http://{}/repo/.git", server.host)];
    for place in &places {
        for (fragment, text, of) in [
            ("", "third", &third),
            ("#main", "third", &third),
            ("#refs/heads/main", "third", &third),
            ("#light", "second", &second),
            ("#heavy", "third", &third),
            ("#refs/tags/heavy", "third", &third),
            ("#side/way", "aside", &aside),
            ("#refs/tags/both", "aside", &aside),
            (&format!("#{first}"), "first", &first),
            (&format!("#{}", second.to_uppercase()), "second", &second),
            (&format!("#main@{second}"), "second", &second),
            (&format!("#side/way@{first}"), "first", &first),
            ("#:sub", "of sub", &third),
            ("#main:sub/", "of sub", &third),
        ] {
            let source = format!("dockerfile:{place}{fragment}");
            let output = site.imported(&["--json", &source, "acme/x:1", "--sources", "sources.toml"])?;
            let answer: Value = serde_json::from_slice(&output.stdout)?;
            ensure!(answer["commit"] == of.as_str(), "{source}: {answer}");
            let found = fs::read_to_string(site.files("acme/x:1", "files")?.join("file"))?;
            ensure!(found == text, "{source}: {found}");
            fs::remove_dir_all(site.house.path("home/files"))?;
        }
        for (fragment, exit, says) in [
            (format!("#main@{aside}"), 3, format!("has no commit {aside} on branch `main`")),
            (format!("#none@{aside}"), 3, "has no branch `none`".to_owned()),
            (format!("#{lost}"), 3, format!("has no commit {lost} on any branch or tag")),
            (format!("#main@{}", "0".repeat(40)), 3, "on branch `main`".to_owned()),
            ("#none".to_owned(), 3, "has neither a branch nor a tag `none`".to_owned()),
            ("#both".to_owned(), 3, "has a branch and a tag `both`".to_owned()),
            (format!("#{}", &first[..8]), 3, "a commit is named by its whole hash".to_owned()),
            ("#main:none".to_owned(), 3, "has no folder `none`".to_owned()),
            ("#main:../x".to_owned(), 2, "leads out of the repository".to_owned()),
            ("#--upload-pack=x".to_owned(), 2, "neither a branch nor a tag nor a hash".to_owned()),
        ] {
            let source = format!("dockerfile:{place}{fragment}");
            site.refused(exit, &says, &[&source, "acme/y:1", "--sources", "sources.toml"])?;
        }
    }
    let none = format!("dockerfile:git+file://{}/none", site.house.path("home").display());
    site.refused(4, "does not appear to be a git repository", &[&none, "acme/y:1"])?;
    site.refused(4, "plain HTTP", &[&format!("dockerfile:{}", places[1]), "acme/y:1"])?;
    site.refused(
        2,
        "a user and a token do not belong",
        &["dockerfile:git+https://u:p@example.com/x", "acme/y:1"],
    )?;
    ensure!(!site.layout("acme/y/1").dir().exists(), "something is there");
    Ok(())
}

fn git_wants_user_and_token(built: &Built) -> Result<()> {
    for who in EVERYBODY {
        let site =
            Site::new(built, who, &[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "private")])?;
        site.commit("home/repo")?;
        let words: Arc<Mutex<String>> = Arc::default();
        let note = Arc::clone(&words);
        let server = serve(&site.house.path("home"), true, move |all| {
            note.lock().unwrap_or_else(PoisonError::into_inner).push_str(all);
        });
        let host = &server.host;
        let repository = format!("dockerfile:git+http://{host}/repo/.git");
        let plain = format!("[host.'{host}']\nplain-http = true\n");
        let source =
            |auth: &str| format!("{plain}[source.code]\nkind = 'git'\nlocation = 'http://{host}'\n{auth}");
        site.house.write("sources.toml", &plain)?;
        let arguments = [&*repository, "acme/x:1", "--sources", "sources.toml"];
        let said = site.refused(4, "credentials come from", &arguments)?;
        ensure!(!said.contains(TOKEN), "{said}");
        // By the file of sources.
        site.house.write("token", &format!("user:{TOKEN}\n"))?;
        site.house.write("sources.toml", &source("auth = { user-file = 'token' }"))?;
        site.imported(&arguments)?;
        site.imported(&["code/repo/.git#main", "--sources", "sources.toml"])?;
        site.image("code/repo/main")?;
        site.house.write("token", "user:hunter2hunter2\n")?;
        let said = site.refused(4, "Authentication failed", &arguments)?;
        ensure!(!said.contains("hunter2"), "{said}");
        // As `drydock login` keeps it.
        site.house.write("sources.toml", &plain)?;
        let mut login = site.command(&["login", host, "--user", "user", "--password-stdin", "--unchecked"]);
        site.house.write("token", TOKEN)?;
        succeed(login.stdin(File::open(site.house.path("token"))?))?;
        site.imported(&arguments)?;
        fs::remove_dir_all(site.house.path("home/.docker"))?;
        // By a helper of git's own.
        site.house.write("home/.gitconfig", "[credential]\nhelper = store\n")?;
        site.house.write("home/.git-credentials", &format!("http://user:open%20sesame@{host}\n"))?;
        site.house.own()?;
        site.imported(&arguments)?;
        let words = words.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(words.contains("git"), "no process was seen");
        for secret in [TOKEN, "hunter2", "dXNlcjpvcGVuIHNlc2FtZQ"] {
            ensure!(!words.contains(secret), "{who:?}: `{secret}` is among the words of processes");
        }
    }
    Ok(())
}

/// In place of SSH there is a program that notes its words, and does on this machine what it is asked for.
fn ssh_shows_the_key_and_asks_nobody(built: &Built) -> Result<()> {
    let site = Site::new(
        built,
        Who::Ordinary,
        &[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "private")],
    )?;
    site.commit("home/repo")?;
    let (words, bin) = (site.house.path("home/words"), site.house.path("home/bin"));
    fs::create_dir(&bin)?;
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >>{}\nfor last; do :; done\nexec sh -c \"$last\"\n",
        words.display()
    );
    fs::write(bin.join("ssh"), script)?;
    succeed(Command::new("chmod").arg("755").arg(bin.join("ssh")))?;
    site.house.write("home/a key", "private")?;
    site.house.own()?;
    let home = site.house.path("home");
    let source = format!("dockerfile:git+ssh://git@code.example:2222{}/repo#main", home.display());
    let key = home.join("a key").display().to_string();
    let arguments = ["import", &source, "acme/x:1", "--network", "none", "--ssh-key", &key];
    succeed(site.command(&arguments).env("PATH", format!("{}:/usr/bin:/bin", bin.display())))?;
    let words = fs::read_to_string(words)?;
    let has = |word: &str| words.lines().any(|line| line == word);
    for word in ["BatchMode=yes", "IdentitiesOnly=yes", &key, "git@code.example", "2222"] {
        ensure!(has(word), "SSH was not told `{word}`: {words}");
    }
    let none = [&arguments[..5], &["--ssh-key", "/no/such/key"]].concat();
    let output = run(&mut site.command(&none))?;
    ensure!(output.exit == 4 && output.text().contains("cannot find the key"), "{}", output.text());
    Ok(())
}

fn a_repository_runs_nothing(built: &Built) -> Result<()> {
    let dockerfile = "FROM scratch\nCOPY . /\n";
    let site = Site::new(
        built,
        Who::Ordinary,
        &[("Dockerfile", dockerfile), ("file", "a\n$Id$\n"), ("large", "pointer\n")],
    )?;
    let ran = site.house.path("home/ran");
    let touch = format!("touch {}", ran.display());
    site.put(
        ".gitattributes",
        "* text eol=crlf\nfile ident export-subst\nlarge filter=evil\ngone export-ignore\n",
    )?;
    site.put("gone", "still here\n")?;
    site.put(".gitmodules", "[submodule \"sub\"]\npath = sub\nurl = --upload-pack=x\n")?;
    site.commit("home/repo")?;
    let dir = site.house.path("home/repo");
    // A submodule: a commit of elsewhere in place of a folder.
    git(&dir, &["update-index", "--add", "--cacheinfo", &format!("160000,{},sub", "1".repeat(40))])?;
    git(&dir, &["commit", "--quiet", "--message", "submodule"])?;
    for hook in ["post-checkout", "post-merge", "reference-transaction", "pre-auto-gc"] {
        let path = dir.join(".git/hooks").join(hook);
        fs::write(&path, format!("#!/bin/sh\n{touch}\n"))?;
        succeed(Command::new("chmod").arg("755").arg(&path))?;
    }
    let template = site.house.path("home/template/hooks");
    fs::create_dir_all(&template)?;
    fs::copy(dir.join(".git/hooks/post-checkout"), template.join("reference-transaction"))?;
    let settings = format!(
        "[filter \"evil\"]\nsmudge = {touch}; cat\nprocess = {touch}\nrequired = true\n[core]\nfsmonitor = {touch}\n\
         sshCommand = {touch}\naskPass = {touch}\n[init]\ntemplateDir = {}\n[fetch]\nrecurseSubmodules = true\n",
        site.house.path("home/template").display()
    );
    site.house.write("home/.gitconfig", &settings)?;
    site.house.own()?;
    let source = format!("dockerfile:git+file://{}", dir.display());
    site.imported(&[&source, "acme/x:1"])?;
    let files = site.files("acme/x:1", "files")?;
    for (path, text) in [("file", "a\n$Id$\n"), ("large", "pointer\n"), ("gone", "still here\n")] {
        let found = fs::read_to_string(files.join(path))?;
        ensure!(found == text, "{path}: {found:?}");
    }
    ensure!(fs::read_dir(files.join("sub"))?.next().is_none() && !files.join(".git").exists());
    ensure!(!ran.exists(), "something of the repository or its settings ran");
    for variable in
        ["GIT_DIR", "GIT_CONFIG_PARAMETERS", "GIT_EXTERNAL_DIFF", "GIT_PROXY_COMMAND", "GIT_ASKPASS"]
    {
        let mut command = site.command(&["import", &source, "acme/x:1", "--network", "none"]);
        succeed(command.env(variable, "/nowhere"))?;
    }
    Ok(())
}

fn a_signal_ends_git(built: &Built) -> Result<()> {
    let site = Site::new(built, Who::Root, &[])?;
    let silent = Fake::start(|_, _| Answer::new(200, "").announcing(1000).stalling());
    site.house.write("sources.toml", &format!("[host.'{}']\nplain-http = true\n", silent.host))?;
    let source = format!("dockerfile:git+http://{}/x", silent.host);
    let mut command = site.house.command(&["import", &source, "acme/x:1", "--sources", "sources.toml"]);
    let output = File::create(site.house.path("output"))?;
    let mut child = command.stdout(Stdio::null()).stderr(output).spawn()?;
    let began = Instant::now();
    while silent.seen().is_empty() {
        ensure!(began.elapsed() < Duration::from_mins(1), "git asks for nothing");
        thread::sleep(Duration::from_millis(50));
    }
    kill_process(Pid::from_child(&child), Signal::INT)?;
    let status = child.wait()?;
    ensure!(status.code() == Some(130), "{status}: {}", fs::read_to_string(site.house.path("output"))?);
    site.house.is_clean()
}
