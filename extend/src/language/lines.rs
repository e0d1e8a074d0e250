//! From a text to its instructions: parser directives, comments, continued lines and here-documents.

use super::error::SyntaxError;
use super::instruction::HereDocument;
use super::words::{json_list, split};

/// An instruction as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// Where it begins, counted from 1.
    pub(super) line: usize,
    /// Its first word in capitals.
    pub(super) keyword: String,
    /// What comes after that, on one line.
    pub(super) arguments: String,
    /// The contents of its here-documents, in their order.
    pub(super) here_documents: Vec<HereDocument>,
}

/// The character that takes the meaning from others, and the instructions.
pub(super) fn statements(text: &str) -> Result<(char, Vec<Statement>), SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = escape(text)?;
    let mut lines = text.split_inclusive('\n').zip(1..);
    let mut statements = Vec::new();
    while let Some((raw, line)) = lines.next() {
        let first = without_end(raw).trim_start();
        if is_comment(first) {
            continue;
        }
        let (piece, mut continues) = continued(first, escape);
        let mut whole = piece.to_owned();
        while continues {
            let Some((raw, _)) = lines.next() else { break };
            let next = without_end(raw);
            if next.trim().is_empty() || is_comment(next.trim_start()) {
                continue;
            }
            let piece;
            (piece, continues) = continued(next, escape);
            whole.push_str(piece);
        }
        let whole = whole.trim();
        if whole.is_empty() {
            continue;
        }
        let (keyword, arguments) = whole.split_once(char::is_whitespace).unwrap_or((whole, ""));
        let (keyword, arguments) = (keyword.to_ascii_uppercase(), arguments.trim().to_owned());
        let mut here_documents = Vec::new();
        for mut document in here_documents_of(&keyword, &arguments, escape) {
            let is_end = |text: &str| {
                let text = without_end(text);
                document.name == if document.strips_tabs { text.trim_start_matches('\t') } else { text }
            };
            loop {
                let Some((raw, _)) = lines.next() else {
                    let problem = format!(
                        "the here-document `{0}` does not end; end it by a line that is `{0}` and nothing else",
                        document.name
                    );
                    return Err(SyntaxError { line, problem });
                };
                if is_end(raw) {
                    break;
                }
                document.text.push_str(raw);
            }
            here_documents.push(document);
        }
        statements.push(Statement { line, keyword, arguments, here_documents });
    }
    Ok((escape, statements))
}

fn without_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

fn is_comment(line: &str) -> bool {
    line.starts_with('#')
}

/// What the directives at the very beginning say: `# name=value`, one on each line.
fn escape(text: &str) -> Result<char, SyntaxError> {
    const KNOWN: [&str; 3] = ["check", "escape", "syntax"];
    let mut escape = '\\';
    let mut seen = Vec::new();
    for (raw, line) in text.split_inclusive('\n').zip(1..) {
        let directive = without_end(raw).trim().strip_prefix('#').and_then(|comment| comment.split_once('='));
        let Some((name, value)) = directive else { break };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if name.is_empty() || value.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            break;
        }
        if !KNOWN.contains(&name.as_str()) {
            continue;
        }
        if seen.contains(&name) {
            let problem = format!("the directive `{name}` is there twice; leave one of them out");
            return Err(SyntaxError { line, problem });
        }
        if name == "escape" {
            escape = match value {
                "\\" => '\\',
                "`" => '`',
                _ => {
                    let problem =
                        format!("the escape character cannot be `{value}`; it is `\\` or a backtick");
                    return Err(SyntaxError { line, problem });
                }
            };
        }
        seen.push(name);
    }
    Ok(escape)
}

/// A line without the character that continues it, and whether it has that. Doubled, the character stands for itself.
fn continued(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

/// Those that an instruction begins, without contents.
fn here_documents_of(keyword: &str, arguments: &str, escape: char) -> Vec<HereDocument> {
    let may_have = |keyword: &str| matches!(keyword, "ADD" | "COPY" | "RUN");
    let arguments = if keyword == "ONBUILD" {
        let (keyword, arguments) = arguments.split_once(char::is_whitespace).unwrap_or_default();
        if may_have(&keyword.to_ascii_uppercase()) { arguments } else { return Vec::new() }
    } else {
        arguments
    };
    if keyword != "ONBUILD" && !may_have(keyword) || json_list(arguments) != Ok(None) {
        return Vec::new();
    }
    split(arguments, escape).into_iter().filter_map(here_document).collect()
}

/// `<<NAME`, `<<-NAME`, `3<<"A NAME"`: one word, in which only what is in quotes has spaces.
pub(crate) fn here_document(word: &str) -> Option<HereDocument> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, strips_tabs) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    let name = rest.replace(['"', '\''], "");
    let is_name = !name.contains(['<', '\\', '`']) && !name.is_empty() && split(word, '\\') == [word];
    let expands = name == rest;
    is_name.then(|| HereDocument { name, expands, strips_tabs, text: String::new() })
}
