//! The Dockerfiles that extensions write: as much of their syntax as it takes to find instructions, and what the
//! contract allows in them.
//!
//! Specification: `image_extension.md` § Dockerfiles, and the Dockerfile reference of `BuildKit` for the syntax.

use anyhow::{Context as _, bail, ensure};

/// A Dockerfile.
#[derive(Debug, PartialEq, Eq)]
struct Dockerfile {
    /// The first name in each `ARG` before the first `FROM`.
    global_args: Vec<String>,
    /// What each `FROM` begins.
    stages: Vec<Stage>,
}

/// A `FROM`, and what follows it.
#[derive(Debug, PartialEq, Eq)]
struct Stage {
    base: String,
    instructions: Vec<Instruction>,
}

/// An instruction, with its continuation lines in one.
#[derive(Debug, PartialEq, Eq)]
struct Instruction {
    /// In capitals.
    name: String,
    arguments: String,
    /// The line that it begins on, counted from 1.
    line: usize,
}

/// What a `run.Dockerfile` does to the run image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunDockerfile {
    /// The image to take instead of the one that was analyzed.
    pub(super) new_base: Option<String>,
    /// Whether it adds anything to the image.
    pub(super) extends: bool,
}

const BASE_IMAGE_ARG: &str = "base_image";
const BASE_IMAGE: &str = "${base_image}";

/// What extensions should keep to.
const RECOMMENDED: [&str; 9] = ["ADD", "ARG", "COPY", "ENV", "LABEL", "RUN", "SHELL", "USER", "WORKDIR"];

/// What there is besides.
const OTHERS: [&str; 9] =
    ["CMD", "ENTRYPOINT", "EXPOSE", "FROM", "HEALTHCHECK", "MAINTAINER", "ONBUILD", "STOPSIGNAL", "VOLUME"];

/// Instructions whose argument may be empty.
const MAY_BE_BARE: [&str; 3] = ["CMD", "ENTRYPOINT", "RUN"];

/// Checks a `build.Dockerfile`: one `ARG base_image`, then one stage from it. Returns warnings.
pub(super) fn check_build(text: &str) -> anyhow::Result<Vec<String>> {
    let dockerfile = parse(text)?;
    let stage = only_stage(&dockerfile, "build.Dockerfile")?;
    ensure!(
        dockerfile.global_args == [BASE_IMAGE_ARG],
        "build.Dockerfile did not start with required ARG command; begin it with `ARG {BASE_IMAGE_ARG}`"
    );
    ensure!(
        stage.base == BASE_IMAGE,
        "build.Dockerfile did not contain required FROM {BASE_IMAGE} command: it begins from `{}`",
        stage.base
    );
    Ok(warnings(stage, "build.Dockerfile"))
}

/// Checks a `run.Dockerfile`: one stage, from the run image or from another image. Returns warnings, too.
pub(super) fn check_run(text: &str) -> anyhow::Result<(RunDockerfile, Vec<String>)> {
    let dockerfile = parse(text)?;
    let stage = only_stage(&dockerfile, "run.Dockerfile")?;
    let new_base = (stage.base != BASE_IMAGE).then(|| stage.base.clone());
    if let Some(base) = &new_base {
        ensure!(
            !base.contains('$'),
            "FROM must be followed by {BASE_IMAGE} or the name of an image: it is `{base}`"
        );
    }
    let run = RunDockerfile { new_base, extends: !stage.instructions.is_empty() };
    Ok((run, warnings(stage, "run.Dockerfile")))
}

fn only_stage<'a>(dockerfile: &'a Dockerfile, name: &str) -> anyhow::Result<&'a Stage> {
    match dockerfile.stages.as_slice() {
        [stage] => Ok(stage),
        [] => bail!("{name} should have at least one stage: it has no FROM"),
        _ => bail!("{name} is not permitted to use multistage build: it may have only one FROM"),
    }
}

fn warnings(stage: &Stage, file: &str) -> Vec<String> {
    let is_odd = |instruction: &&Instruction| !RECOMMENDED.contains(&instruction.name.as_str());
    let warning = |Instruction { name, line, .. }: &Instruction| {
        format!("{file} command {name} on line {line} is not recommended")
    };
    stage.instructions.iter().filter(is_odd).map(warning).collect()
}

fn parse(text: &str) -> anyhow::Result<Dockerfile> {
    let mut dockerfile = Dockerfile { global_args: Vec::new(), stages: Vec::new() };
    let instructions = instructions(text)?;
    ensure!(!instructions.is_empty(), "there are no instructions in it");
    for instruction in instructions {
        let line = instruction.line;
        check(&instruction).with_context(|| format!("line {line}"))?;
        match (instruction.name.as_str(), dockerfile.stages.last_mut()) {
            ("FROM", _) => {
                let base = base_of(&instruction).with_context(|| format!("line {line}"))?;
                dockerfile.stages.push(Stage { base, instructions: Vec::new() });
            }
            (_, Some(stage)) => stage.instructions.push(instruction),
            ("ARG", None) => {
                let end = |c: char| c == '=' || c.is_whitespace();
                let name = instruction.arguments.split(end).next().unwrap_or_default();
                dockerfile.global_args.push(name.to_owned());
            }
            (name, None) => bail!("line {line}: {name} comes before FROM"),
        }
    }
    Ok(dockerfile)
}

fn check(Instruction { name, arguments, .. }: &Instruction) -> anyhow::Result<()> {
    let name = name.as_str();
    ensure!(RECOMMENDED.contains(&name) || OTHERS.contains(&name), "unknown instruction: {name}");
    ensure!(!arguments.is_empty() || MAY_BE_BARE.contains(&name), "{name} requires at least one argument");
    Ok(())
}

fn base_of(from: &Instruction) -> anyhow::Result<String> {
    let words: Vec<&str> =
        from.arguments.split_whitespace().skip_while(|word| word.starts_with("--")).collect();
    match words[..] {
        [base] => Ok(base.to_owned()),
        [base, r#as, _] if r#as.eq_ignore_ascii_case("as") => Ok(base.to_owned()),
        _ => bail!("FROM requires either one or three arguments"),
    }
}

/// Splits a Dockerfile into instructions: joins continued lines, and leaves out comments and here-documents.
fn instructions(text: &str) -> anyhow::Result<Vec<Instruction>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = escape(text)?;
    let mut instructions = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((first, line)) = lines.next() {
        let first = first.trim_start();
        if is_comment(first) {
            continue;
        }
        let (mut whole, mut continues) = continuation(first, escape);
        let mut whole_text = whole.to_owned();
        while continues {
            let Some((next, _)) = lines.next() else { break };
            if next.trim().is_empty() || is_comment(next.trim_start()) {
                continue;
            }
            (whole, continues) = continuation(next, escape);
            whole_text.push_str(whole);
        }
        let statement = whole_text.trim();
        if statement.is_empty() {
            continue;
        }
        let (name, arguments) = statement.split_once(char::is_whitespace).unwrap_or((statement, ""));
        let name = name.to_ascii_uppercase();
        for here in here_documents(&name, arguments) {
            let is_end =
                |text: &str| here.end == if here.strips_tabs { text.trim_start_matches('\t') } else { text };
            ensure!(lines.any(|(text, _)| is_end(text)), "line {line}: unterminated heredoc `{}`", here.end);
        }
        instructions.push(Instruction { name, arguments: arguments.trim().to_owned(), line });
    }
    Ok(instructions)
}

fn is_comment(line: &str) -> bool {
    line.starts_with('#')
}

/// The character that continues a line: a directive at the very beginning can change it.
fn escape(text: &str) -> anyhow::Result<char> {
    let directives = text.lines().map_while(|line| {
        let (name, value) = line.trim().strip_prefix('#')?.split_once('=')?;
        let name = name.trim();
        (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| (name, value.trim()))
    });
    for (name, value) in directives {
        if name.eq_ignore_ascii_case("escape") {
            return match value {
                "\\" => Ok('\\'),
                "`" => Ok('`'),
                _ => bail!("invalid escape directive `{value}`: it must be ` or \\"),
            };
        }
    }
    Ok('\\')
}

/// A line without the character that continues it, and whether it has that. Doubled, the character stands for itself.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

/// A here-document that an instruction begins.
#[derive(Debug, PartialEq, Eq)]
struct HereDocument {
    /// The line that ends it.
    end: String,
    /// Whether tabs before that do not matter.
    strips_tabs: bool,
}

fn here_documents(name: &str, arguments: &str) -> Vec<HereDocument> {
    let arguments = match name {
        "ADD" | "COPY" | "RUN" => arguments,
        "ONBUILD" => {
            let (name, arguments) = arguments.trim().split_once(char::is_whitespace).unwrap_or_default();
            match name.to_ascii_uppercase().as_str() {
                "ADD" | "COPY" | "RUN" => arguments,
                _ => return Vec::new(),
            }
        }
        _ => return Vec::new(),
    };
    if serde_json::from_str::<Vec<String>>(arguments.trim()).is_ok() {
        return Vec::new();
    }
    words(arguments).iter().filter_map(|word| here_document(word)).collect()
}

/// `<<NAME`, `<<-NAME`, `3<<"NAME"`.
fn here_document(word: &str) -> Option<HereDocument> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, strips_tabs) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    let end = rest.replace(['"', '\''], "");
    (!end.is_empty() && !end.contains('<')).then_some(HereDocument { end, strips_tabs })
}

/// Words as a shell splits them, with their quotes.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let word = words.last_mut().expect("there is always a last word");
        match (c, quote) {
            (c, None) if c.is_whitespace() => {
                words.push(String::new());
                continue;
            }
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: &str = "ARG base_image\nFROM ${base_image}\n";

    fn names(text: &str) -> String {
        let all = instructions(text).unwrap();
        all.iter().map(|i| format!("{}:{}", i.line, i.name)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn instructions_are_found() {
        for (text, want) in [
            ("from a\nRun b", "1:FROM 2:RUN"),
            ("\u{feff}FROM a\r\nRUN b\r\n", "1:FROM 2:RUN"),
            ("# c\n\n  # d\nFROM a # e\n   RUN x", "4:FROM 5:RUN"),
            ("RUN a \\\n  b \\  \n\n# c\n  d\nUSER x", "1:RUN 6:USER"),
            ("RUN a \\\\\nUSER x", "1:RUN 2:USER"),
            ("RUN a \\", "1:RUN"),
            ("\\\nRUN a", "1:RUN"),
            ("# escape=`\nRUN a `\nb\nRUN c\\\nUSER d", "2:RUN 4:RUN 5:USER"),
            ("# syntax=x\n# Escape = `\nRUN a `\nb", "3:RUN"),
            ("# comment\n# escape=`\nRUN a \\\nb", "3:RUN"),
            ("RUN <<EOF\nFROM b\nEOF\nUSER x", "1:RUN 4:USER"),
            ("RUN <<A cat <<-'B'\nA\n\t\tB\nUSER x", "1:RUN 4:USER"),
            ("COPY <<EOF /x\n\tEOF\nEOF\nUSER x", "1:COPY 4:USER"),
            ("ONBUILD RUN <<EOF\nx\nEOF\nUSER x", "1:ONBUILD 4:USER"),
            ("RUN echo \"<<EOF\"\nUSER x", "1:RUN 2:USER"),
            ("RUN [\"<<EOF\"]\nUSER x", "1:RUN 2:USER"),
            ("RUN a <<<EOF\nUSER x", "1:RUN 2:USER"),
            ("LABEL a=<<EOF\nUSER x", "1:LABEL 2:USER"),
        ] {
            assert_eq!(names(text), want, "{text:?}");
        }
    }

    #[test]
    fn continued_lines_are_one() {
        let all = instructions("RUN a \\\n  b\\\nc").unwrap();
        assert_eq!(all[0].arguments, "a   bc");
    }

    #[test]
    fn what_is_no_dockerfile() {
        for (text, want) in [
            ("", "no instructions"),
            ("# only a comment", "no instructions"),
            ("FROM a\nFOO b", "line 2: unknown instruction: FOO"),
            ("RUN a\nFROM b", "line 1: RUN comes before FROM"),
            ("FROM", "line 1: FROM requires at least one argument"),
            ("FROM a b", "line 1: FROM requires either one or three arguments"),
            ("FROM a is b", "line 1: FROM requires either one or three arguments"),
            ("FROM a\nENV", "line 2: ENV requires at least one argument"),
            ("FROM a\nRUN <<EOF\nEO", "line 2: unterminated heredoc `EOF`"),
            ("# escape=x\nFROM a", "invalid escape directive `x`"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(want), "{text:?}: {error}");
        }
    }

    #[test]
    fn build_dockerfiles() {
        for text in [
            START,
            "ARG base_image=x\nFROM ${base_image} AS y\nRUN z",
            "arg base_image\nfrom --platform=linux/amd64 ${base_image}",
        ] {
            assert_eq!(check_build(text).unwrap(), <[String; 0]>::default(), "{text:?}");
        }
        for (text, want) in [
            ("FROM ${base_image}", "required ARG"),
            ("ARG other\nFROM ${base_image}", "required ARG"),
            ("ARG base_image\nARG other\nFROM ${base_image}", "required ARG"),
            ("ARG base_image\nFROM $base_image", "required FROM"),
            ("ARG base_image\nFROM debian", "required FROM"),
            ("ARG base_image\nFROM ${base_image}\nFROM ${base_image}", "multistage"),
            ("ARG base_image", "at least one stage"),
        ] {
            let error = check_build(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text:?}: {error}");
        }
    }

    #[test]
    fn odd_instructions_are_warned_about() {
        let text = format!("{START}RUN a\ncmd b\nENV c=d\nENTRYPOINT e\n");
        let warning =
            |name, line| format!("build.Dockerfile command {name} on line {line} is not recommended");
        assert_eq!(check_build(&text).unwrap(), [warning("CMD", 4), warning("ENTRYPOINT", 6)]);
    }

    #[test]
    fn run_dockerfiles() {
        for (text, new_base, extends) in [
            (START, None, false),
            ("FROM ${base_image}\nRUN a", None, true),
            ("FROM acme/run:other", Some("acme/run:other"), false),
            ("FROM acme/run:other\nRUN a", Some("acme/run:other"), true),
        ] {
            let (run, warnings) = check_run(text).unwrap();
            assert_eq!(run, RunDockerfile { new_base: new_base.map(str::to_owned), extends }, "{text:?}");
            assert!(warnings.is_empty());
        }
        for (text, want) in [
            ("FROM a\nFROM b", "multistage"),
            ("ARG x", "at least one stage"),
            ("FROM $base_image", "the name of an image"),
        ] {
            let error = check_run(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text:?}: {error}");
        }
        assert_eq!(check_run("FROM a\nVOLUME b").unwrap().1.len(), 1);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r#"((?i)ARG|FROM|RUN|CMD|COPY| |\\|`|\n|#|escape=|base_image|\$\{base_image\}|<<|-|EOF|"|'|\[|\]|é){0,60}"#) {
            let _ = check_build(&text);
            let _ = check_run(&text);
        }

        #[test]
        fn instructions_are_on_lines_that_are_there(text in "(FROM a|RUN b|\\\\|\n|#| |<<E|E){0,40}") {
            for instruction in instructions(&text).unwrap_or_default() {
                let line = text.lines().nth(instruction.line - 1).unwrap();
                prop_assert!(!line.trim().is_empty() && !line.trim_start().starts_with('#'), "{:?}", instruction);
            }
        }
    }
}
