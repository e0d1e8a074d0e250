//! Dockerfiles: what they say, and what they come to on an image.

use std::path::Path;

use drydock_extend::language::{IgnoreRules, MAX_VALUE, expand, parse};
use drydock_extend::plan::{Action, Build, PlanError, Wanted};
use drydock_model::config::ImageConfig;
use drydock_model::platform::Platform;

use super::Target;

pub(crate) const TARGET: Target = Target {
    name: "dockerfile",
    longest: 1 << 12,
    words: &[
        b"FROM a\n",
        b"# escape=`\n",
        b"RUN ",
        b"FROM a AS b\n",
        b"COPY --from=b a b\n",
        b"--mount=type=cache,target=/c,from=b ",
        b"--mount=type=secret,id=a,env=b ",
        b"COPY --chown=a:b --chmod=u=rwX,go-w --exclude=**/x ",
        b"ADD ",
        b"ENV a=b ",
        b"ARG a=b\n",
        b"LABEL ",
        b"USER ",
        b"WORKDIR ",
        b"EXPOSE 1-9/udp\n",
        b"VOLUME [\"/v\"]\n",
        b"HEALTHCHECK --interval=1.5h CMD ",
        b"ONBUILD ",
        b"SHELL [\"a\"]\n",
        b"<<E\nE\n",
        b"<<-'E'",
        b"${a:-${b}}",
        b"${a//b*/c}",
        b"${a%%?}",
        b"\\\n",
    ],
    can_use: |path, _| path.file_name().is_some_and(|name| name.to_string_lossy().contains("Dockerfile")),
    run,
};

fn run(input: &[u8]) -> String {
    let Ok(text) = str::from_utf8(input) else { return "no text".into() };
    if let Ok(rules) = IgnoreRules::parse(text) {
        rules.leaves_out(b"a/b.c");
    }
    let value = |name: &str| (name != "u").then(|| name.repeat(2));
    if let Ok(expanded) = expand(text, '\\', &value) {
        assert!(expanded.len() <= MAX_VALUE + text.len(), "an expansion has no limit");
    }
    let lines = text.split('\n').count();
    let told = |line: usize, problem: &str| {
        assert!((1..=lines).contains(&line), "line {line} of {lines}: {problem}");
        // Without what is quoted or named in it.
        let words = problem.split_whitespace().filter(|word| word.bytes().all(|b| b.is_ascii_lowercase()));
        words.take(2).collect::<Vec<_>>().join(" ")
    };
    let dockerfile = match parse(text) {
        Ok(dockerfile) => dockerfile,
        Err(error) => return told(error.line, &error.problem),
    };
    let config: ImageConfig =
        serde_json::from_str(r#"{"rootfs":{"type":"layers","diff_ids":[]},"config":{"Env":["a=b"]}}"#)
            .expect("this is a configuration");
    let args = [("a".to_owned(), "c".to_owned())];
    let wanted = Wanted { target: None, args: &args, platform: &Platform::linux("amd64") };
    let build = match Build::of(&dockerfile, &wanted, &mut |_, _| Ok(config.clone())) {
        Ok(build) => build,
        Err(PlanError::Syntax(error)) => return told(error.line, &error.problem),
        Err(error) => return error.to_string(),
    };
    assert!(build.stages.len() <= dockerfile.stages.len(), "there are more stages than were written");
    let steps = || build.stages.iter().flat_map(|stage| &stage.plan.steps);
    for step in steps() {
        assert!((0..=lines).contains(&step.line), "line {} of {lines}", step.line);
        let path = match &step.action {
            Action::Run(program) => &program.dir,
            Action::Copy(copying) => &copying.target,
            Action::MakeDir { path, .. } => path,
        };
        assert!(
            path.starts_with('/') && !Path::new(path).components().any(|it| it.as_os_str() == ".."),
            "{path}"
        );
    }
    format!("{} steps", super::roughly(steps().count()))
}
