//! `drydock verify`.

use std::fs;

use anyhow::Result;
use drydock_images::verify::{Proven, Status, verify as check};
use drydock_images::{Name, Watch as _};

use super::{Context, cores};
use crate::output::{Style, bytes};
use crate::{env, exit};

pub(crate) fn verify(context: &mut Context, names: &[String]) -> Result<u8> {
    let repository = &context.repository;
    let is_listed = names.is_empty();
    let names: Vec<Name> = if is_listed {
        repository.names()?
    } else {
        names.iter().map(|name| repository.locate(name)).collect::<Result<_>>()?
    };
    // What somebody has removed since it was listed nobody has asked for.
    let gone = |name: &Name| if is_listed { Ok(()) } else { Err(repository.unknown(name).into()) };
    let cache = env::cache_dir().map(|dir| dir.join("proven"));
    let mut proven = cache.as_deref().map(Proven::read).unwrap_or_default();
    let found = check(&names, cores(), &mut proven, &context.progress, &gone)?;
    if let Some(path) = &cache {
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| proven.write(path));
        // The next time takes longer; whoever reads what was found has nothing of it.
        if let Err(error) = written {
            context.progress.note(&format!("cannot write `{}`: {error}", path.display()));
        }
    }
    let has = |status| found.iter().any(|verified| verified.status == status);
    let code = match (has(Status::Damaged), has(Status::Unreadable)) {
        (true, _) => exit::FOUND,
        (false, true) => exit::FAILED,
        (false, false) => 0,
    };
    let out = &mut context.out;
    if context.json {
        out.json(&found)?;
        return Ok(code);
    }
    for verified in &found {
        let (style, word) = match verified.status {
            Status::Whole => (Style::Good, "whole"),
            Status::Sparse => (Style::Note, "sparse"),
            Status::Empty => (Style::Note, "empty"),
            Status::Damaged => (Style::Bad, "damaged"),
            Status::Unreadable => (Style::Bad, "unreadable"),
        };
        if context.quiet && verified.status == Status::Whole {
            continue;
        }
        let size = bytes(verified.size);
        out.styled(
            style,
            &format!("{word:<8}"),
            &format!(" {} ({} blobs, {size})", verified.name, verified.blobs),
        )?;
        for problem in verified.problems.iter().chain(&verified.unreadable) {
            out.line(&format!("         {problem}"))?;
        }
        for lacking in &verified.lacks {
            out.line(&format!("         lacks {} ({})", lacking.digest, bytes(lacking.size)))?;
        }
    }
    Ok(code)
}
