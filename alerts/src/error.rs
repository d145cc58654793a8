//! Why rules are refused, and the limits that they are held to.
//!
//! Invariant: every limit on a rule or a rule file is a constant here, and every error names the file it is
//! about. No state: a crash changes nothing.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Largest rule file that is read.
pub const RULE_FILE_BYTES_MAX: u64 = 1 << 20;
/// Most rules, correlations included, in one set.
pub const RULES_MAX: usize = 4096;
/// Longest window of a correlation.
pub const TIMESPAN_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
/// Largest number that a correlation may count to: what one group remembers.
pub const THRESHOLD_MAX: u64 = 4096;

/// Longest that a correlation waits for events that come late.
pub const LATENESS_MAX: Duration = Duration::from_secs(3600);

/// Why rules were refused.
#[derive(Debug, Error)]
pub enum RuleError {
    #[error("rules {}: cannot read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("rules {}: {bytes} bytes, more than the {RULE_FILE_BYTES_MAX} that a rule file may have", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("rules {}: no file that ends in .yml or .yaml", path.display())]
    NoFiles { path: PathBuf },
    #[error("{file}:{line}:{column}: not YAML: {message}")]
    Yaml { file: String, line: usize, column: usize, message: String },
    #[error("{file}:{line}: rule \"{rule}\": {message}")]
    Rule { file: String, line: usize, rule: String, message: String },
    #[error("{count} rules, more than the {RULES_MAX} of a set")]
    TooMany { count: usize },
}
