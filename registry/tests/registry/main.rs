//! The client before a registry that a test plays.
#![cfg(test)]

mod credentials;
mod downloads;
mod fake;
mod uploads;
