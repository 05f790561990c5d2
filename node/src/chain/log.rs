//! The kernel's log lines, passed on to `tracing`.

use bitcoinkernel::{
    KernelError, Log, Logger,
    log::logging::{LoggingOptions, set_logging_options},
};
use tracing::{debug, error, warn};

/// Passes each line on: errors and warnings as such, the rest at debug level, all
/// under the target `pulse_node::kernel`.
struct Forward;

impl Log for Forward {
    fn log(&self, message: &str) {
        let line = message.trim_end();
        if line.starts_with("[error]") {
            error!(target: "pulse_node::kernel", line, "kernel");
        } else if line.starts_with("[warning]") {
            warn!(target: "pulse_node::kernel", line, "kernel");
        } else {
            debug!(target: "pulse_node::kernel", line, "kernel");
        }
    }
}

/// Connects the kernel's log. Lines flow until the logger is dropped.
pub(super) fn connect() -> Result<Logger, KernelError> {
    set_logging_options(LoggingOptions {
        log_timestamps: false,
        log_time_micros: false,
        log_threadnames: false,
        log_sourcelocations: false,
        always_print_category_levels: false,
    });
    Logger::new(Forward)
}
