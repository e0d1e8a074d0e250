//! `drydock ls`.

use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use drydock_images::list::{Listed, list};
use drydock_io::read::is_dir;

use super::Context;
use crate::cli::field;
use crate::exit;
use crate::output::bytes;

/// The names of all fields, for errors; each is also in the help.
const FIELDS: &str =
    "name, repository, tag, digest, platforms, size, own, linked, copied, lacking, created, base, path";

/// How an image is printed.
#[derive(Debug, Clone)]
pub(crate) struct Format(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("a `{` has no `}`")?;
            if !FIELDS.split(", ").any(|field| field == name) {
                return Err(format!("there is no field `{name}`; there are {FIELDS}"));
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Field(name.to_owned()));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }
}

impl Format {
    fn apply(&self, listed: &Listed) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field(name) => field(listed, name).unwrap_or_default(),
        };
        self.0.iter().map(piece).collect()
    }
}

pub(crate) fn ls(context: &mut Context, pattern: Option<&str>, format: Option<&Format>) -> Result<u8> {
    let dir = context.repository.dir().path();
    if !is_dir(dir).with_context(|| format!("cannot look at `{}`", dir.display()))? {
        bail!("there is no layout repository `{}`: say with --layout-dir where it is", dir.display());
    }
    let all = list(&context.repository, pattern)?;
    let out = &mut context.out;
    if context.json {
        out.json(&all)?;
    } else if let Some(format) = format {
        for listed in &all {
            // Tabs and line feeds of the format are wanted, and fields have none.
            out.bytes(format!("{}\n", format.apply(listed)).as_bytes())?;
        }
    } else {
        let headings =
            ["REPOSITORY", "TAG", "PLATFORMS", "SIZE", "OWN", "LINKED", "COPIED", "CREATED", "BASE"];
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        out.table(&headings, &[3, 4, 5, 6], &rows)?;
    }
    for listed in &all {
        let Some((state, why)) = trouble(listed) else { continue };
        context.progress.say(&format!("{state}: {}: {}", listed.name, crate::output::printable(why)));
    }
    Ok(if all.iter().any(|listed| listed.damage.is_some()) {
        exit::FOUND
    } else if all.iter().any(|listed| trouble(listed).is_some()) {
        exit::FAILED
    } else {
        0
    })
}

/// What keeps an image from being listed as it is, in a word and at length.
fn trouble(listed: &Listed) -> Option<(&'static str, &str)> {
    let unreadable = listed.unreadable.as_deref().map(|why| ("unreadable", why));
    listed.damage.as_deref().map(|why| ("damaged", why)).or(unreadable)
}

fn row(listed: &Listed) -> Vec<String> {
    let size = |n: u64| if n == 0 { "-".to_owned() } else { bytes(n) };
    // To the minute.
    let created = listed.created.as_deref().unwrap_or("-").replace('T', " ");
    let created = created.get(..16).unwrap_or(&created).to_owned();
    let tag = match listed.tag.strip_prefix("sha256:") {
        Some(hex) => format!("@{}", hex.get(..12).unwrap_or(hex)),
        None => listed.tag.clone(),
    };
    let state = if listed.lacking > 0 { " (sparse)" } else { "" };
    let platforms = trouble(listed).map_or_else(|| listed.platforms.join(","), |(state, _)| state.to_owned());
    vec![
        listed.repository.clone(),
        tag,
        format!("{platforms}{state}"),
        bytes(listed.size),
        size(listed.own),
        size(listed.linked),
        size(listed.copied),
        created,
        listed.base.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_name_fields() {
        let Format(pieces) = "{name}\\t{size}!".parse().unwrap();
        let text = |text: &str| Piece::Text(text.to_owned());
        let field = |name: &str| Piece::Field(name.to_owned());
        assert_eq!(pieces, [text(""), field("name"), text("\t"), field("size"), text("!")]);
        assert!("{nome}".parse::<Format>().unwrap_err().contains("name, repository"));
        assert!("{name".parse::<Format>().is_err());
    }
}
