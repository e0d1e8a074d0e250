//! Questions at the terminal.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, Result, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::exit::Usage;

/// What Ctrl-C, Ctrl-D and the key that deletes give, where they are bytes like others.
const INTERRUPT: u8 = 3;
const END: u8 = 4;
const DELETE: [u8; 2] = [8, 0x7f];

/// An answer may have so many bytes: tokens that stand for a password are long.
pub(crate) const MAX_ANSWER: usize = 64 << 10;

/// Asks for a line, which is shown as it is typed.
pub(crate) fn ask(question: &str) -> Result<String> {
    must_be_terminal()?;
    say(question)?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("cannot read the answer")?;
    Ok(line.trim().to_owned())
}

/// Asks for a line, which is not shown.
pub(crate) fn ask_secret(question: &str) -> Result<String> {
    must_be_terminal()?;
    say(question)?;
    let before = tcgetattr(io::stdin()).context("cannot look at the terminal")?;
    let mut silent = before.clone();
    // Byte by byte, so that Ctrl-C does not leave the terminal silent.
    silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    tcsetattr(io::stdin(), OptionalActions::Flush, &silent).context("cannot silence the terminal")?;
    let _restored = Restored(before);
    let mut answer = Vec::new();
    loop {
        let mut byte = [0];
        let n = io::stdin().read(&mut byte).context("cannot read the answer")?;
        match byte[0] {
            INTERRUPT => bail!("stopped"),
            b'\r' | b'\n' | END => break,
            _ if n == 0 || answer.len() == MAX_ANSWER => break,
            key if DELETE.contains(&key) => drop(answer.pop()),
            key => answer.push(key),
        }
    }
    say("\n")?;
    String::from_utf8(answer).context("the answer is not UTF-8")
}

/// Puts a terminal back as it was.
struct Restored(Termios);

impl Drop for Restored {
    fn drop(&mut self) {
        // If that fails, the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

fn must_be_terminal() -> Result<()> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    let text = "there is no terminal to ask at: use --user and --password-stdin";
    Err(Usage(text.to_owned()).into())
}

fn say(text: &str) -> Result<()> {
    let mut terminal = io::stderr();
    terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush()).context("cannot ask")
}
