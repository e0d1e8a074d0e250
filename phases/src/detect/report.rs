//! What detection has to say, kept until it is known how it ends.
//!
//! When no group passes, everything is told, whatever the log's level: only that tells why.

use std::io::Write as _;
use std::sync::Arc;

use crate::{Level, Log};

/// Messages in the order in which they came up.
#[derive(Debug, Default)]
pub(super) struct Report {
    messages: Vec<Message>,
}

#[derive(Debug)]
struct Message {
    level: Level,
    /// The ID of the buildpack or extension that printed it; empty for what detection says.
    module: String,
    text: Arc<[u8]>,
}

impl Report {
    /// Adds a message.
    pub(super) fn add(&mut self, level: Level, message: impl Into<String>) {
        let text = Arc::from(message.into().into_bytes());
        self.messages.push(Message { level, module: String::new(), text });
    }

    /// Adds one that only matters when something went wrong.
    pub(super) fn debug(&mut self, message: impl Into<String>) {
        self.add(Level::Debug, message);
    }

    /// Adds one for everyone.
    pub(super) fn info(&mut self, message: impl Into<String>) {
        self.add(Level::Info, message);
    }

    /// Adds what a buildpack printed, if it did.
    pub(super) fn printed(&mut self, level: Level, id: &str, name: &str, output: &Arc<[u8]>) {
        if !output.is_empty() {
            self.add(level, format!("======== Output: {name} ========"));
            self.messages.push(Message { level, module: id.to_owned(), text: Arc::clone(output) });
        }
    }

    /// Tells what the log's level lets through.
    pub(super) fn tell(self, log: &dyn Log) {
        for Message { level, module, text } in self.messages {
            let text = String::from_utf8_lossy(&text);
            log.quote(level, &module, text.strip_suffix('\n').unwrap_or(&text));
        }
    }

    /// Tells everything, where errors are told.
    pub(super) fn tell_all(self, log: &dyn Log) -> std::io::Result<()> {
        for Message { module, text, .. } in self.messages {
            let mut output = log.error_output(&module);
            output.write_all(&text)?;
            if !text.ends_with(b"\n") {
                output.write_all(b"\n")?;
            }
            output.flush()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_log::MemoryLog;

    fn report() -> Report {
        let mut report = Report::default();
        report.debug("pass: a@1");
        report.printed(Level::Info, "a", "a@1", &Arc::from(&b"100% \xff {} %s\n"[..]));
        report.printed(Level::Info, "b", "b@1", &Arc::from(&b""[..]));
        report.info("a 1");
        report
    }

    #[test]
    fn levels_are_kept_when_a_group_passes() {
        let log = MemoryLog::default();
        report().tell(&log);
        assert_eq!(
            log.text(),
            "Debug: pass: a@1\nInfo: ======== Output: a@1 ========\nInfo: 100% \u{fffd} {} %s\nInfo: a 1\n"
        );
        assert_eq!(log.printed(), b"");
    }

    #[test]
    fn everything_is_told_byte_for_byte_when_none_does() {
        let log = MemoryLog::default();
        report().tell_all(&log).unwrap();
        assert_eq!(
            log.printed_with_errors(),
            b"pass: a@1\n======== Output: a@1 ========\n100% \xff {} %s\na 1\n"
        );
    }
}
