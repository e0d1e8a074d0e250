//! `drydock`: looks into a repository of OCI layouts, checks it, cleans it and makes new images of those in it.
//!
//! What it does is in `drydock-images`; here is what a terminal needs: arguments ([`cli`]), answers ([`output`]), progress
//! ([`progress`]), exit codes ([`exit`]). What it carries over the network is in [`remote`], what may come from where in [`rules`].

mod cli;
mod cli_import;
mod cli_sandboxed;
mod commands;
mod config;
mod env;
mod exit;
mod output;
mod progress;
mod prompt;
mod remote;
mod rules;

use std::process::ExitCode;

fn main() -> ExitCode {
    exit::code(commands::run())
}
