//! `drydock verify`.

use anyhow::Result;
use drydock_images::Name;
use drydock_images::verify::{Status, verify as check};
use drydock_layout::LayoutError;

use super::{Context, cores};
use crate::exit;
use crate::output::{Style, bytes};

pub(crate) fn verify(context: &mut Context, names: &[String]) -> Result<u8> {
    let names: Vec<Name> = if names.is_empty() {
        context.repository.names()?
    } else {
        names.iter().map(|name| known(context, name)).collect::<Result<_>>()?
    };
    let found = check(&names, cores(), &context.progress)?;
    let is_damaged = found.iter().any(|verified| verified.status == Status::Damaged);
    let out = &mut context.out;
    if context.json {
        out.json(&found)?;
        return Ok(if is_damaged { exit::FOUND } else { 0 });
    }
    for verified in &found {
        let (style, word) = match verified.status {
            Status::Whole => (Style::Good, "whole"),
            Status::Sparse => (Style::Note, "sparse"),
            Status::Damaged => (Style::Bad, "damaged"),
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
        for problem in &verified.problems {
            out.line(&format!("         {problem}"))?;
        }
        for lacking in &verified.lacks {
            out.line(&format!("         lacks {} ({})", lacking.digest, bytes(lacking.size)))?;
        }
    }
    Ok(if is_damaged { exit::FOUND } else { 0 })
}

/// The layout may be damaged, but it must be there.
fn known(context: &Context, name: &str) -> Result<Name> {
    let found = context.repository.locate(name)?;
    match drydock_layout::Layout::read_index(found.path()) {
        Err(LayoutError::NotFound(_)) => Err(context.repository.unknown(&found).into()),
        _ => Ok(found),
    }
}
