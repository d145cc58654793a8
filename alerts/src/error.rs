//! Errors of rules that are refused, and the limits on rules.
//!
//! Invariant: every limit on a rule or a rule file is a constant here, and every error names the
//! file it is about. No state: a crash changes nothing.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Maximum size of a rule file, in bytes.
pub const RULE_FILE_BYTES_MAX: u64 = 1 << 20;
/// Maximum number of rules in one set, correlations included.
pub const RULES_MAX: usize = 4096;
/// Longest window of a correlation.
pub const TIMESPAN_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
/// Largest bound of a correlation. A group must be able to remember this many events.
pub const THRESHOLD_MAX: u64 = 4096;

/// Longest time that a correlation waits for late events.
pub const LATENESS_MAX: Duration = Duration::from_secs(3600);

/// Why rules were refused.
#[derive(Debug, Error)]
pub enum RuleError {
    #[error("cannot read rules {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("rule file {} has {bytes} bytes, more than {RULE_FILE_BYTES_MAX}", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("folder {} contains no .yml or .yaml file", path.display())]
    NoFiles { path: PathBuf },
    #[error("{file}:{line}:{column}: not valid YAML: {message}")]
    Yaml { file: String, line: usize, column: usize, message: String },
    #[error("{file}:{line}: rule \"{rule}\": {message}")]
    Rule { file: String, line: usize, rule: String, message: String },
    #[error("{count} rules are more than the {RULES_MAX} that a set may have")]
    TooMany { count: usize },
}
