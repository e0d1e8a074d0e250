//! What a platform says to a phase: flags as Go's library reads them, variables, and what comes of both.
//!
//! The first line of an input names the phase and the Platform API; then come variables, an empty line, and the arguments, one a line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use drydock::Phase;
use drydock::args::command_line::{CommandLine, command};
use drydock::args::flag::{COMMON, Flag, Form};
use drydock::args::{Options, Task, analyze, build, create, detect, export, extend, offers, rebase, restore};
use drydock::env::Env;
use drydock_io::access::User;
use drydock_phases::Error;
use drydock_spec::api::PlatformApi;

use super::silent::Silent;
use super::{Target, roughly};

pub(crate) const TARGET: Target = Target {
    name: "flags",
    longest: 1 << 11,
    words: &[
        b"\n-",
        b"\n--",
        b"\n---",
        b"\n--\n",
        b"\n\n",
        b"=",
        b"=false",
        b"=true",
        b"\n-h\n",
        b"\n-layers\n/l\n",
        b"\n-uid=0x10\n",
        b"\n-kaniko-cache-ttl=1h30m\n",
        b"\n-log-level=debug\n",
        b"\n-tag=a/b:c\n",
        b"\n-run-image=/layout-repo/x\n",
        b"\n-layout\n",
        b"\n-layout-dir=/r\n",
        b"\n-parallel\n",
        b"\n-cache-image=c\n",
        b"\n-cache-dir=../c\n",
        b"\n-layer-compression=zstd:3\n",
        b"\nCNB_USE_OCI_LAYOUT=true\n",
        b"\nCNB_USE_LAYOUT=0\n",
        b"\nCNB_USER_ID=1000\n",
        b"\nCNB_SKIP_RESTORE=t\n",
        b"\nSOURCE_DATE_EPOCH=1\n",
        b"\nCNB_EXPERIMENTAL_MODE=warn\n",
        b"0.7",
        b"0.15",
    ],
    can_use: |_, _| false,
    run,
};

fn run(input: &[u8]) -> String {
    let mut lines = input.split(|byte| *byte == b'\n').map(OsStr::from_bytes);
    let first = lines.next().and_then(OsStr::to_str).unwrap_or_default();
    let (phase, api) = first.split_once(' ').unwrap_or((first, ""));
    let Some(phase) = Phase::ALL.into_iter().find(|known| known.verb() == phase) else {
        return "no phase".into();
    };
    let platform_api: PlatformApi = api.parse().unwrap_or(PlatformApi::NEWEST);
    let variables = lines.by_ref().take_while(|line| !line.is_empty()).filter_map(|line| {
        let at = line.as_bytes().iter().position(|byte| *byte == b'=')?;
        let (name, value) = line.as_bytes().split_at(at);
        Some((OsStr::from_bytes(name), OsStr::from_bytes(&value[1..])))
    });
    let env: Env = variables.collect();
    let arguments: Vec<OsString> = lines.map(OsStr::to_owned).collect();
    let offered = COMMON.iter().chain(offers(phase)).filter(|offer| offer.is_in(platform_api));
    let flags: Vec<Flag> = offered.map(|offer| offer.flag).collect();
    let read = CommandLine::parse(&command(phase, platform_api, offers(phase)), &arguments);
    let Some((given, operands)) = as_go_reads(&flags, &arguments) else {
        let error = read.expect_err("Go's library refuses it").to_string();
        return error.split(':').next().unwrap_or_default().to_owned();
    };
    let command_line = read.expect("Go's library reads it");
    assert_eq!(command_line.operands(), operands);
    for flag in &flags {
        let mut found: Vec<OsString> = command_line.values(flag).map(|value| value.text).collect();
        let all = given.iter().filter(|(name, _)| *name == flag.name).map(|(_, value)| value.clone());
        let mut wanted: Vec<OsString> = all.collect();
        if !matches!(flag.form, Form::Many(_)) {
            // The last one counts.
            found.drain(..found.len().saturating_sub(1));
            wanted.drain(..wanted.len().saturating_sub(1));
        }
        wanted.retain(|value| !value.is_empty());
        assert_eq!(found, wanted, "-{}", flag.name);
    }
    let options = Options {
        phase,
        platform_api,
        env,
        command_line,
        working_dir: PathBuf::from("/work"),
        current_user: User { uid: 501, gid: 502 },
    };
    format!("{}{}", roughly(given.len()), resolved(&options))
}

/// Names with values.
type Given = Vec<(&'static str, OsString)>;

/// Names with values, and operands; none where Go's library says that something is wrong.
fn as_go_reads(flags: &[Flag], arguments: &[OsString]) -> Option<(Given, Vec<OsString>)> {
    let mut given = Vec::new();
    let mut rest = arguments.iter();
    loop {
        let before = rest.clone();
        let Some(argument) = rest.next() else { break };
        let text = argument.as_bytes();
        if text == b"--" {
            break;
        }
        if text.len() < 2 || text[0] != b'-' {
            rest = before;
            break;
        }
        let text = text.strip_prefix(b"--").unwrap_or(&text[1..]);
        if matches!(text.first(), None | Some(b'-' | b'=')) {
            return None;
        }
        let at = text.iter().position(|byte| *byte == b'=');
        let (name, value) = at.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
        // That is not one of the library's flags, but what it has for `-help`.
        let name = if text == b"h" { b"help" } else { name };
        let flag = flags.iter().find(|flag| flag.name.as_bytes() == name)?;
        let value = match (value, flag.form) {
            (Some(value), _) => OsStr::from_bytes(value).to_owned(),
            (None, Form::Switch) => "true".into(),
            (None, _) => rest.next()?.clone(),
        };
        given.push((flag.name, value));
    }
    Some((given, rest.cloned().collect()))
}

/// What comes of it.
fn resolved(options: &Options) -> String {
    fn told<I>(task: Result<Task<I>, Error>) -> String {
        let told = |error: Error| {
            let text = format!("{:#}", error.cause);
            assert!(!text.is_empty(), "an error says nothing");
            text
        };
        match task {
            Ok(Task { inputs: Ok(_), .. }) => "task".to_owned(),
            Ok(Task { inputs: Err(error), .. }) | Err(error) => told(error),
        }
    }
    match options.phase {
        Phase::Analyze => told(analyze::resolve(options, &Silent)),
        Phase::Detect => told(detect::resolve(options)),
        Phase::Restore => told(restore::resolve(options, &Silent)),
        Phase::Extend => told(extend::resolve(options)),
        Phase::Build => told(build::resolve(options)),
        Phase::Export => told(export::resolve(options, &Silent)),
        Phase::Create => told(create::resolve(options, &Silent)),
        Phase::Rebase => told(rebase::resolve(options, &Silent)),
    }
}
