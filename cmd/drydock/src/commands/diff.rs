//! `drydock diff`.

use anyhow::Result;
use drydock_images::diff::{Diff, Difference, diff as compare};
use drydock_model::platform::Platform;

use super::Context;
use crate::exit;
use crate::output::{Output, Style, bytes};

pub(crate) fn diff(context: &mut Context, before: &str, after: &str, platform: &Platform) -> Result<u8> {
    let a = context.repository.image(before, platform)?;
    let b = context.repository.image(after, platform)?;
    let found = compare(&a, &b, &context.progress)?;
    if context.json {
        context.out.json(&found)?;
    } else if found.is_empty() {
        context.out.line(&format!("{before} and {after} do not differ"))?;
    } else {
        show(&found, &mut context.out)?;
    }
    Ok(if found.is_empty() { 0 } else { exit::FOUND })
}

fn show(found: &Diff, out: &mut Output) -> Result<()> {
    if !found.layers.is_empty() || found.layers_reordered {
        out.styled(Style::Heading, "layers", "")?;
    }
    if found.layers_reordered {
        out.line("  are the same in another order")?;
    }
    for layer in &found.layers {
        let rest = format!(" {} {} {}", layer.number, layer.diff_id, bytes(layer.size));
        if layer.only_in == "before" { minus(out, &rest)? } else { plus(out, &rest)? }
    }
    for (heading, differences) in [
        ("configuration", &found.config),
        ("environment", &found.environment),
        ("labels", &found.labels),
        ("processes", &found.processes),
        ("buildpacks", &found.buildpacks),
    ] {
        if !differences.is_empty() {
            out.styled(Style::Heading, heading, "")?;
        }
        for Difference { name, before, after } in differences {
            if let Some(text) = before {
                minus(out, &format!(" {name}: {}", excerpt(text, after.as_deref())))?;
            }
            if let Some(text) = after {
                plus(out, &format!(" {name}: {}", excerpt(text, before.as_deref())))?;
            }
        }
    }
    if !found.files.is_empty() {
        out.styled(Style::Heading, "files", "")?;
    }
    for file in &found.files {
        let size = |size: Option<u64>| size.map(bytes).unwrap_or_default();
        match file.change {
            "added" => plus(out, &format!(" {:>10}  {}", size(file.after), file.path))?,
            "removed" => minus(out, &format!(" {:>10}  {}", size(file.before), file.path))?,
            _ => {
                let sizes = match (file.before, file.after) {
                    (before, after) if before == after => size(after),
                    (before, after) => format!("{} -> {}", size(before), size(after)),
                };
                let what = file.what.join(", ");
                out.styled(Style::Note, "  ~", &format!(" {sizes:>10}  {} ({what})", file.path))?;
            }
        }
    }
    Ok(())
}

/// Characters of a long value that are shown, and how many of them before the first difference.
const SHOWN: usize = 120;
const BEFORE: usize = 30;

/// A value that differs from another, about where it begins to differ if it is long.
fn excerpt(text: &str, other: Option<&str>) -> String {
    let length = text.chars().count();
    if length <= SHOWN {
        return text.to_owned();
    }
    let other = other.unwrap_or_default();
    let same = text.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let start = same.saturating_sub(BEFORE).min(length - SHOWN);
    let shown: String = text.chars().skip(start).take(SHOWN).collect();
    let (left, right) = (if start > 0 { "…" } else { "" }, if start + SHOWN < length { "…" } else { "" });
    format!("{left}{shown}{right}")
}

fn minus(out: &mut Output, rest: &str) -> Result<()> {
    out.styled(Style::Bad, "  -", rest)
}

fn plus(out: &mut Output, rest: &str) -> Result<()> {
    out.styled(Style::Good, "  +", rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_shown_where_they_differ() {
        let long = |at: usize| format!("{}x{}", "a".repeat(at), "a".repeat(200 - at));
        for (text, other, want) in [
            ("short".to_owned(), Some("shirt"), "short".to_owned()),
            (long(3), None, format!("aaax{}…", "a".repeat(116))),
            (long(100), Some(&*"a".repeat(201)), format!("…{}x{}…", "a".repeat(30), "a".repeat(89))),
            (long(190), Some(&*"a".repeat(201)), format!("…{}x{}", "a".repeat(109), "a".repeat(10))),
            ("é".repeat(121), Some(&*"é".repeat(120)), format!("…{}", "é".repeat(120))),
        ] {
            assert_eq!(excerpt(&text, other), want);
        }
    }
}
