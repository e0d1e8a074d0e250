//! `drydock log`.

use std::io::{self, IsTerminal as _};

use anyhow::Result;
use drydock_images::Watch as _;
use drydock_images::log::{Next, find, pause};
use drydock_model::platform::Platform;
use drydock_spec::build_log::Line;

use super::Context;
use crate::exit;
use crate::output::printable;

/// How a line is shown.
#[derive(Clone, Copy)]
struct Look {
    /// With who has printed it.
    who: bool,
    colour: bool,
}

pub(crate) fn log(context: &mut Context, name: &str, follow: bool, platform: &Platform) -> Result<u8> {
    let Some(mut log) = find(&context.repository, name, follow, platform)? else {
        let why = "phases keep it beside the image if they are given `-log-file auto`";
        context.progress.say(&printable(&format!("`{name}` has no build log: {why}")));
        return Ok(exit::FOUND);
    };
    let look = Look { who: io::stdout().is_terminal(), colour: context.out.has_colour() };
    loop {
        match log.next_line()? {
            Next::Line(line) if context.json => context.out.bytes(format!("{line}\n").as_bytes())?,
            Next::Line(line) => {
                if let Some(text) = shown(&line, look) {
                    context.out.bytes(text.as_bytes())?;
                }
            }
            Next::Nothing => {
                context.out.flush()?;
                pause(&context.progress)?;
            }
            Next::End => break,
            Next::Killed => {
                context.progress.note("the build was killed: it has not said how it ended");
                break;
            }
        }
    }
    if log.others() > 0 {
        context.progress.note(&format!("{} lines are none of a build's log", log.others()));
    }
    Ok(0)
}

/// A line for people. None: it is not for them.
fn shown(line: &Line, look: Look) -> Option<String> {
    if line.exit.is_some() {
        return None;
    }
    let text = visible(&line.text, look.colour);
    let who = if line.buildpack.is_empty() { &line.phase } else { &line.buildpack };
    Some(match look {
        Look { who: false, .. } => format!("{text}\n"),
        Look { colour: false, .. } => format!("{} {text}\n", printable(who)),
        Look { colour: true, .. } => format!("\x1b[2m{}\x1b[0m {text}\n", printable(who)),
    })
}

/// A text of others: of what a terminal would obey, only tabs and, if they are wanted, colours. Where a line was written over,
/// the last is what remains.
fn visible(text: &str, colour: bool) -> String {
    let mut rest = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
    let (mut out, mut is_coloured) = (String::with_capacity(rest.len()), false);
    while !rest.is_empty() {
        let sequence = colour_sequence(rest);
        let plain = rest.char_indices().skip(1).find(|(_, c)| matches!(c, '\x1b' | '\t'));
        let length = sequence.or(plain.map(|(at, _)| at)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(length);
        rest = after;
        if sequence.is_some() {
            out.push_str(if colour { part } else { "" });
            is_coloured |= colour;
        } else if let Some(part) = part.strip_prefix('\t') {
            out.push('\t');
            out.push_str(&printable(part));
        } else {
            out.push_str(&printable(part));
        }
    }
    if is_coloured {
        out.push_str("\x1b[0m");
    }
    out
}

/// How long the sequence at the beginning is that changes colours and weight of letters (SGR).
fn colour_sequence(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !matches!(c, '0'..='9' | ';' | ':'))?;
    parameters[end..].starts_with('m').then_some("\x1b[".len() + end + 1)
}

#[cfg(test)]
mod tests {
    use drydock_spec::build_log::Stream;

    use super::*;

    #[test]
    fn only_colours_reach_the_terminal() {
        for (text, plain, coloured) in [
            ("plain naïve 日本", "plain naïve 日本", "plain naïve 日本"),
            ("\x1b[1;31mred\x1b[m", "red", "\x1b[1;31mred\x1b[m\x1b[0m"),
            ("\x1b[38:2::1:2:3mx", "x", "\x1b[38:2::1:2:3mx\x1b[0m"),
            ("\x1b[2J\x1b[31", "\\u{1b}[2J\\u{1b}[31", "\\u{1b}[2J\\u{1b}[31"),
            (
                "\x1b]0;title\x07\x1b[?25l",
                "\\u{1b}]0;title\\u{7}\\u{1b}[?25l",
                "\\u{1b}]0;title\\u{7}\\u{1b}[?25l",
            ),
            ("\u{9b}31m\u{202e}x", "\\u{9b}31m\\u{202e}x", "\\u{9b}31m\\u{202e}x"),
            ("a\tb\t\tc\x08", "a\tb\t\tc\\u{8}", "a\tb\t\tc\\u{8}"),
            ("10 %\r20 %\r\r", "20 %", "20 %"),
            ("", "", ""),
        ] {
            assert_eq!((visible(text, false).as_str(), visible(text, true).as_str()), (plain, coloured));
        }
    }

    #[test]
    fn who_printed_a_line_is_told_on_a_terminal() {
        let line = |buildpack: &str, exit| Line {
            time: String::new(),
            phase: "builder".to_owned(),
            buildpack: buildpack.to_owned(),
            stream: Stream::Stdout,
            text: "\x1b[1mx".to_owned(),
            exit,
        };
        let look = |who, colour| Look { who, colour };
        for (line, look, want) in [
            (line("acme/a", None), look(false, false), Some("x\n")),
            (line("acme/a", None), look(true, false), Some("acme/a x\n")),
            (line("", None), look(true, true), Some("\x1b[2mbuilder\x1b[0m \x1b[1mx\x1b[0m\n")),
            (line("\x1b[2J", None), look(true, true), Some("\x1b[2m\\u{1b}[2J\x1b[0m \x1b[1mx\x1b[0m\n")),
            (line("", Some(0)), look(true, true), None),
        ] {
            assert_eq!(shown(&line, look).as_deref(), want);
        }
    }
}
