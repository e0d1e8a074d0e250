//! What the contract allows in the Dockerfiles that extensions write, and what they do to the run image.
//!
//! Specification: `image_extension.md` § Dockerfiles.

use anyhow::{bail, ensure};
use drydock_extend::language::{Dockerfile, Kind, Stage, parse};

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

/// Checks a `build.Dockerfile`: one `ARG base_image`, then one stage from it. Returns warnings.
pub(super) fn check_build(text: &str) -> anyhow::Result<Vec<String>> {
    let dockerfile = parse(text)?;
    let stage = only_stage(&dockerfile, "build.Dockerfile")?;
    let global_args: Vec<&str> = dockerfile
        .global_args
        .iter()
        .filter_map(|instruction| match &instruction.kind {
            Kind::Arg(arguments) => arguments.first().map(|argument| argument.name.as_str()),
            _ => None,
        })
        .collect();
    ensure!(
        global_args == [BASE_IMAGE_ARG],
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
    let named = stage.instructions.iter().map(|it| (it.text.split(' ').next().unwrap_or_default(), it.line));
    let odd = named.filter(|(keyword, _)| !RECOMMENDED.contains(keyword));
    odd.map(|(keyword, line)| format!("{file} command {keyword} on line {line} is not recommended")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "ARG base_image\nFROM ${base_image}\n";

    #[test]
    fn what_is_wrong_has_a_line() {
        for (text, want) in [
            ("", "line 1: there is no FROM"),
            ("FROM a\nFOO b", "line 2: unknown instruction: FOO"),
            ("FROM a\nENV", "line 2: ENV requires at least one argument"),
        ] {
            for error in [check_build(text).unwrap_err(), check_run(text).unwrap_err()] {
                assert!(error.to_string().starts_with(want), "{text:?}: {error}");
            }
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
            ("ARG base_image", "there is no FROM"),
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
            ("ARG x", "there is no FROM"),
            ("FROM $base_image", "the name of an image"),
        ] {
            let error = check_run(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text:?}: {error}");
        }
        assert_eq!(check_run("FROM a\nVOLUME b").unwrap().1.len(), 1);
    }
}
