//! What cannot be done in the file system that this process runs in.

use drydock_extend::language::{Dockerfile, SyntaxError};
use drydock_extend::plan::{Action, Base, From, Mount, Network, Origin, PlannedStage};

/// That a Dockerfile has no more than one stage: a second one would need a file system of its own. Specification:
/// `image_extension.md` § Dockerfiles.
pub(super) fn check_stages(dockerfile: &Dockerfile) -> Result<(), SyntaxError> {
    match dockerfile.stages.as_slice() {
        [_, second, ..] => Err(not_here(second.line, "a second stage", "have one FROM")),
        _ => Ok(()),
    }
}

/// That nothing of a stage needs more than its context and this file system.
pub(super) fn check(stage: &PlannedStage) -> Result<(), SyntaxError> {
    if stage.base == Base::Scratch {
        return Err(not_here(stage.line, "FROM scratch", "begin with `FROM ${base_image}`"));
    }
    for step in &stage.plan.steps {
        if let Some((what, instead)) = lacking(&step.action) {
            // What the base asks for has no line of its own.
            return Err(not_here(step.line.max(stage.line), &what, instead));
        }
    }
    Ok(())
}

fn lacking(action: &Action) -> Option<(String, &'static str)> {
    match action {
        Action::Run(program) => {
            let of_mount = program.mounts.first().map(|mount| {
                let name = match mount {
                    Mount::Bind { .. } => "bind",
                    Mount::Cache { .. } => "cache",
                    Mount::Tmpfs { .. } => "tmpfs",
                    Mount::Secret { .. } => "secret",
                };
                (format!("RUN --mount=type={name}"), "copy what is needed, and remove it in the same RUN")
            });
            let of_network =
                (program.network == Network::None).then(|| ("RUN --network=none".to_owned(), "leave it out"));
            of_mount.or(of_network)
        }
        Action::Copy(copying) => {
            let of_image = match &copying.from {
                From::Image(name) => Some((format!("COPY --from={name}"), "put the files into the context")),
                From::Context | From::Stage(_) => None,
            };
            let is_download = copying.sources.iter().any(|origin| matches!(origin, Origin::Url { .. }));
            // Arguments in its address may be secret.
            of_image.or_else(|| {
                is_download.then(|| ("ADD of a download".to_owned(), "put the file into the context"))
            })
        }
        Action::MakeDir { .. } => None,
    }
}

fn not_here(line: usize, what: &str, instead: &str) -> SyntaxError {
    SyntaxError { line, problem: format!("{what} is not supported here; {instead}") }
}
