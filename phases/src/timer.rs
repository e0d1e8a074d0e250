//! When a step began and ended, for whoever looks at the log at debug level.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use drydock_spec::time::rfc3339;

use crate::Log;

/// Does the work, and logs when it began, how long it took and when it ended.
pub fn timed<T>(log: &dyn Log, what: &str, work: impl FnOnce() -> T) -> T {
    log.debug(&format!("Timer: {what} started at {}", now()));
    let start = Instant::now();
    let result = work();
    log.debug(&format!("Timer: {what} ran for {:?} and ended at {}", start.elapsed(), now()));
    result
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).ok().and_then(rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_log::MemoryLog;

    #[test]
    fn start_and_end_are_logged_around_the_work() {
        let log = MemoryLog::default();
        assert_eq!(
            timed(&log, "Worker", || {
                log.info("working");
                7
            }),
            7
        );
        let text = log.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("Debug: Timer: Worker started at 2"), "{text}");
        assert_eq!(lines[1], "Info: working");
        assert!(lines[2].contains("Worker ran for ") && lines[2].contains(" and ended at 2"), "{text}");
    }
}
