//! What the program says of itself.

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::exit::Usage;

/// What a shell needs to complete commands.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "drydock", &mut text);
    text
}

/// The manual page, or that of a command.
pub(crate) fn manual(command: Option<&str>) -> Result<Vec<u8>> {
    let mut all = Cli::command();
    all.build();
    let page = match command {
        None => all,
        Some(name) => {
            let found = all.find_subcommand(name).cloned();
            found.ok_or_else(|| Usage(format!("there is no command `{name}`")))?
        }
    };
    let mut text = Vec::new();
    Man::new(page).render(&mut text).context("cannot write the manual page")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_page_and_every_shell_completions() {
        for command in Cli::command().get_subcommands() {
            let page = String::from_utf8(manual(Some(command.get_name())).unwrap()).unwrap();
            assert!(page.contains(&format!("drydock\\-{}", command.get_name())), "{page}");
        }
        assert!(String::from_utf8(manual(None).unwrap()).unwrap().contains("Exit codes"));
        assert!(manual(Some("nonsense")).is_err());
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            assert!(String::from_utf8(completions(shell)).unwrap().contains("flatten"));
        }
    }
}
