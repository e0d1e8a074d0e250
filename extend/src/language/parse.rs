//! From statements to instructions.

use super::arguments::{Flags, duration, names_and_values};
use super::error::{Problem, SyntaxError};
use super::instruction::{
    Argument, CommandLine, Copy, Dockerfile, HealthCheck, HereDocument, Instruction, Kind, Network, Run,
    Source, Stage,
};
use super::lines::{Statement, here_document, statements};
use super::mount::MountFlag;
use super::words::{json_list, split};

/// Bytes that a Dockerfile may have.
pub const MAX_TEXT: usize = 4 << 20;

/// Every instruction.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses a Dockerfile of at most [`MAX_TEXT`] bytes.
pub fn parse(text: &str) -> Result<Dockerfile, SyntaxError> {
    if text.len() > MAX_TEXT {
        let problem = format!("the Dockerfile has more than {MAX_TEXT} bytes; shorten it");
        return Err(SyntaxError { line: 1, problem });
    }
    let (escape, statements) = statements(text)?;
    let mut global_args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    for statement in statements {
        let line = statement.line;
        let wrong = |problem| SyntaxError { line, problem };
        if statement.keyword == "FROM" {
            stages.push(stage(&statement, escape).map_err(wrong)?);
            continue;
        }
        let instruction = instruction(statement, escape).map_err(wrong)?;
        match (stages.last_mut(), &instruction.kind) {
            (Some(stage), _) => stage.instructions.push(instruction),
            (None, Kind::Arg(_)) => global_args.push(instruction),
            (None, _) => {
                let keyword = instruction.text.split(' ').next().unwrap_or_default();
                return Err(wrong(format!(
                    "{keyword} comes before FROM; only ARG may, so begin with `FROM <image>`"
                )));
            }
        }
    }
    if stages.is_empty() {
        let problem = "there is no FROM; begin with `FROM <image>`".to_owned();
        return Err(SyntaxError { line: text.lines().count().max(1), problem });
    }
    Ok(Dockerfile { escape, global_args, stages })
}

/// Parses what an image's `ONBUILD` says: one instruction. Fails with what is wrong.
pub fn parse_trigger(text: &str) -> Result<Instruction, String> {
    let (escape, statements) = statements(text).map_err(|error| error.problem)?;
    let [statement] = <[Statement; 1]>::try_from(statements)
        .map_err(|found| format!("it has {} instructions, and must have one", found.len()))?;
    check_trigger(&statement.keyword)?;
    instruction(statement, escape)
}

fn stage(statement: &Statement, escape: char) -> Problem<Stage> {
    let (flags, rest) = Flags::take("FROM", &statement.arguments, &["platform"], escape)?;
    let (base, name) = match split(rest, escape)[..] {
        [base] => (base, None),
        [base, r#as, name] if r#as.eq_ignore_ascii_case("as") => (base, Some(stage_name(name)?)),
        _ => return Err("FROM requires either one or three arguments: `FROM <image> [AS <name>]`".to_owned()),
    };
    Ok(Stage {
        line: statement.line,
        base: base.to_owned(),
        name,
        platform: flags.one("platform")?,
        instructions: Vec::new(),
    })
}

fn stage_name(name: &str) -> Problem<String> {
    let lower = name.to_ascii_lowercase();
    let is_name = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if is_name {
        Ok(lower)
    } else {
        Err(format!(
            "a stage cannot be called `{name}`; its name begins with a letter, then come letters, digits, `-`, `_`, `.`"
        ))
    }
}

fn instruction(statement: Statement, escape: char) -> Problem<Instruction> {
    let Statement { line, keyword, arguments, here_documents } = statement;
    let kind = kind(&keyword, &arguments, here_documents, escape)?;
    let text = if arguments.is_empty() { keyword } else { format!("{keyword} {arguments}") };
    Ok(Instruction { line, text, kind })
}

fn kind(keyword: &str, arguments: &str, here: Vec<HereDocument>, escape: char) -> Problem<Kind> {
    let may_be_bare = matches!(keyword, "CMD" | "ENTRYPOINT" | "RUN");
    if arguments.is_empty() && !may_be_bare && KEYWORDS.contains(&keyword) {
        return Err(format!("{keyword} requires at least one argument"));
    }
    let no_flags = || Flags::take(keyword, arguments, &[], escape).map(|(_, rest)| rest);
    let only_one = || match split(arguments, escape).len() {
        1 => Ok(arguments.to_owned()),
        count => Err(format!("{keyword} requires exactly one argument, and has {count}; put it in quotes")),
    };
    Ok(match keyword {
        "ADD" => Kind::Add(copy(keyword, arguments, here, escape)?),
        "ARG" => Kind::Arg(split(no_flags()?, escape).into_iter().map(argument).collect::<Problem<_>>()?),
        "CMD" => Kind::Cmd(command_line(no_flags()?)?),
        "COPY" => Kind::Copy(copy(keyword, arguments, here, escape)?),
        "ENTRYPOINT" => Kind::Entrypoint(command_line(no_flags()?)?),
        "ENV" => Kind::Env(names_and_values(keyword, no_flags()?, escape)?),
        "EXPOSE" => Kind::Expose(split(no_flags()?, escape).into_iter().map(str::to_owned).collect()),
        "FROM" => return Err("FROM cannot be the instruction of an ONBUILD; leave it out".to_owned()),
        "HEALTHCHECK" => Kind::HealthCheck(health_check(arguments, escape)?),
        "LABEL" => Kind::Label(names_and_values(keyword, no_flags()?, escape)?),
        "MAINTAINER" => Kind::Maintainer(arguments.to_owned()),
        "ONBUILD" => {
            let statement = Statement {
                line: 0,
                keyword: arguments.split_whitespace().next().unwrap_or_default().to_ascii_uppercase(),
                arguments: arguments.split_once(char::is_whitespace).unwrap_or_default().1.trim().to_owned(),
                here_documents: here.clone(),
            };
            check_trigger(&statement.keyword)?;
            instruction(statement, escape)?;
            // A trigger has its here-documents with it.
            let ends = here.iter().map(|here| format!("\n{}{}", here.text, here.name));
            Kind::OnBuild(std::iter::once(arguments.to_owned()).chain(ends).collect())
        }
        "RUN" => Kind::Run(run(arguments, here, escape)?),
        "SHELL" => match json_list(no_flags()?)? {
            Some(words) if !words.is_empty() => Kind::Shell(words),
            _ => {
                return Err(format!(
                    "SHELL requires a list: `SHELL [\"/bin/sh\", \"-c\"]`; it is `{arguments}`"
                ));
            }
        },
        "STOPSIGNAL" => Kind::StopSignal(only_one()?),
        "USER" => Kind::User(only_one()?),
        "VOLUME" => Kind::Volume(list(no_flags()?, escape)?),
        "WORKDIR" => Kind::WorkDir(no_flags()?.to_owned()),
        _ => return Err(unknown(keyword)),
    })
}

fn unknown(keyword: &str) -> String {
    // What is much longer is near to none, and may be very long.
    let short = &keyword[..keyword.floor_char_boundary(20)];
    let near = KEYWORDS.into_iter().map(|known| (distance(short.as_bytes(), known.as_bytes()), known)).min();
    match near {
        Some((distance, near)) if distance <= 2 => {
            format!("unknown instruction: {keyword}; did you mean {near}?")
        }
        _ => format!(
            "unknown instruction: {keyword}; a line that goes on needs a backslash at the end of the one before"
        ),
    }
}

/// How many letters must be put in, taken out or changed to make one word of the other.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in (1..).zip(a) {
        let mut diagonal = std::mem::replace(&mut row[0], i);
        for (j, y) in (1..).zip(b) {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j];
            row[j] = changed.min(row[j] + 1).min(row[j - 1] + 1);
        }
    }
    row[b.len()]
}

fn check_trigger(keyword: &str) -> Problem<()> {
    match keyword {
        "ONBUILD" | "FROM" | "MAINTAINER" => {
            Err(format!("{keyword} cannot be the instruction of an ONBUILD; leave it out"))
        }
        _ => Ok(()),
    }
}

fn argument(word: &str) -> Problem<Argument> {
    let (name, default) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if !is_name {
        return Err(format!("an argument cannot be called `{name}`; its name has letters, digits and `_`"));
    }
    Ok(Argument { name: name.to_owned(), default: default.map(str::to_owned) })
}

fn command_line(arguments: &str) -> Problem<CommandLine> {
    let words = json_list(arguments)?;
    Ok(words.map_or_else(|| CommandLine::Shell(arguments.to_owned()), CommandLine::Exec))
}

/// Words: of a JSON list, or split at spaces.
fn list(arguments: &str, escape: char) -> Problem<Vec<String>> {
    let split = || split(arguments, escape).into_iter().map(str::to_owned).collect();
    Ok(json_list(arguments)?.unwrap_or_else(split))
}

fn copy(keyword: &str, arguments: &str, here: Vec<HereDocument>, escape: char) -> Problem<Copy> {
    let known: &[&str] = if keyword == "ADD" {
        &["chown", "chmod", "link", "exclude", "checksum", "unpack"]
    } else {
        &["from", "parents", "chown", "chmod", "link", "exclude"]
    };
    let (flags, rest) = Flags::take(keyword, arguments, known, escape)?;
    // It says what a layer may be kept with, and changes nothing in what is there in the end.
    flags.switch("link")?;
    let is_json = json_list(rest)?.is_some();
    let mut words = list(rest, escape)?;
    let target = words.pop().unwrap_or_default();
    if words.is_empty() {
        return Err(format!(
            "{keyword} requires at least two arguments: what is copied, and where to: `{keyword} <source>… <target>`"
        ));
    }
    let mut here = here.into_iter();
    let source = |word: String| match here_document(&word).filter(|_| !is_json) {
        Some(_) => here
            .next()
            .map(Source::Here)
            .ok_or_else(|| format!("`{word}` has no contents; write them on the next lines")),
        None => Ok(Source::Path(word)),
    };
    let sources = words.into_iter().map(source).collect::<Problem<_>>()?;
    if !is_json && here_document(&target).is_some() {
        return Err(format!(
            "{keyword} cannot write to the here-document `{target}`; name a path as the last argument"
        ));
    }
    Ok(Copy {
        sources,
        target,
        from: flags.one("from")?,
        parents: flags.switch("parents")?.unwrap_or(false),
        chown: flags.one("chown")?,
        chmod: flags.one("chmod")?,
        exclude: flags.all("exclude")?,
        checksum: flags.one("checksum")?,
        unpack: flags.switch("unpack")?,
    })
}

fn run(arguments: &str, here_documents: Vec<HereDocument>, escape: char) -> Problem<Run> {
    let (flags, rest) = Flags::take("RUN", arguments, &["mount", "network", "security"], escape)?;
    Ok(Run {
        command: command_line(rest)?,
        here_documents,
        mounts: flags.all("mount")?.iter().map(|text| MountFlag::parse(text)).collect::<Problem<_>>()?,
        network: network(flags.one("network")?.as_deref())?,
        security: flags.one("security")?,
    })
}

fn network(text: Option<&str>) -> Problem<Network> {
    Ok(match text {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(text) => return Err(format!("--network is `{text}`; it is `default`, `none` or `host`")),
    })
}

fn health_check(arguments: &str, escape: char) -> Problem<Option<HealthCheck>> {
    const FLAGS: [&str; 5] = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let (flags, rest) = Flags::take("HEALTHCHECK", arguments, &FLAGS, escape)?;
    let (form, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match form.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() => return Ok(None),
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments; leave them out".to_owned()),
        "CMD" if !command.trim().is_empty() => {}
        "CMD" => return Err("HEALTHCHECK CMD has no command; write one after it".to_owned()),
        _ => {
            return Err(format!(
                "HEALTHCHECK is followed by CMD or NONE, not by `{form}`; write `HEALTHCHECK CMD <command>`"
            ));
        }
    }
    // Nanoseconds; none are as good as not said.
    let time = |name| -> Problem<Option<u64>> {
        match flags.one(name)?.as_deref().map(duration).transpose()? {
            None | Some(0) => Ok(None),
            Some(1..1_000_000) => Err(format!("--{name} is less than 1ms; leave it out, or make it longer")),
            time => Ok(time),
        }
    };
    let retries = flags.one("retries")?.map(|text| {
        text.parse().map_err(|_| format!("--retries is `{text}`; it is a number, and not less than 0"))
    });
    Ok(Some(HealthCheck {
        command: command_line(command.trim())?,
        interval: time("interval")?,
        timeout: time("timeout")?,
        start_period: time("start-period")?,
        start_interval: time("start-interval")?,
        retries: retries.transpose()?,
    }))
}
