//! The options for a store: how to connect to it, and which protection every object must have.
//!
//! Invariant: nothing here contains a secret. Credentials come from the places where AWS tools look
//! for them (environment, shared files, web identity, container and instance metadata) and never
//! pass through these types.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, Days, Months, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Result, StoreError};

/// Calendar years for which an object is kept by default.
pub const RETENTION_YEARS_DEFAULT: u32 = 6;
/// Longest retention that can be requested; S3 itself allows up to a hundred years.
pub const RETENTION_YEARS_MAX: u32 = 100;
/// Default limit on the time of one request, not counting the time to transfer its bytes.
pub const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// The options for all kinds of stores. An archive on a local disk needs none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// The options for locations that start with `s3://`.
    pub s3: S3Options,
}

/// The options for an object store with the S3 interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Options {
    /// URL of the service, for stores other than AWS.
    pub endpoint: Option<String>,
    /// Region of the bucket; by default the one that AWS tools find, and `us-east-1` if an endpoint
    /// is set.
    pub region: Option<String>,
    /// Uses `https://host/bucket/key` instead of `https://bucket.host/key`. Many stores other than
    /// AWS need this.
    pub path_style: bool,
    /// PEM file of certificates that are trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Key for SSE-KMS; by default the bucket's own setting applies.
    pub kms_key_id: Option<String>,
    /// Lock mode of every object. An archive that was created with `Compliance` keeps that mode for
    /// every object, even if `Governance` is set here.
    pub mode: LockMode,
    /// Calendar years for which every object is kept, counted from its PUT, plus a day. An archive
    /// that was created with more years keeps its objects for the larger number.
    pub retention_years: u32,
    /// Permits writing to a store that does not refuse to replace an object. No other writer may
    /// run at the same time.
    pub single_writer: bool,
    /// Folder on a local disk for files that are being written; by default `$STRONGROOM_STAGING`,
    /// or the system's temporary folder if that variable is not set. The files have no name, and
    /// disappear when the process ends.
    pub staging: Option<PathBuf>,
    /// Limit on the time of one request, not counting the time to transfer its bytes.
    pub request_timeout: Duration,
}

impl Default for S3Options {
    fn default() -> Self {
        S3Options {
            endpoint: None,
            region: None,
            path_style: false,
            ca_file: None,
            kms_key_id: None,
            mode: LockMode::Compliance,
            retention_years: RETENTION_YEARS_DEFAULT,
            single_writer: false,
            staging: None,
            request_timeout: REQUEST_TIMEOUT_DEFAULT,
        }
    }
}

/// Who may shorten or remove a retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LockMode {
    /// No one, not even the owner of the account.
    Compliance,
    /// Holders of `s3:BypassGovernanceRetention`; for trials.
    Governance,
}

impl LockMode {
    /// Returns the value in the S3 interface.
    pub fn as_str(self) -> &'static str {
        match self {
            LockMode::Compliance => "COMPLIANCE",
            LockMode::Governance => "GOVERNANCE",
        }
    }
}

/// The lock of every object of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub mode: LockMode,
    pub years: u32,
}

impl Retention {
    /// Returns the stricter mode and the larger number of years of the two.
    pub fn at_least(self, other: Retention) -> Retention {
        let mode = match (self.mode, other.mode) {
            (LockMode::Governance, LockMode::Governance) => LockMode::Governance,
            _ => LockMode::Compliance,
        };
        Retention { mode, years: self.years.max(other.years) }
    }

    /// Returns the end of the retention of an object put at `now`: `self.years` calendar years
    /// later, plus a day. A bucket's own default retention counts years of 365 days, so six such
    /// years would end a day or two too early. If `now` is on the 29th of February and the last
    /// year has no such day, the years end on the 1st of March, and the day is added to that.
    /// `None` if the calendar has no such date.
    pub fn until(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let later = now.checked_add_months(Months::new(self.years.checked_mul(12)?))?;
        let missing = u64::from(later.day() != now.day());
        later.checked_add_days(Days::new(1 + missing))
    }
}

impl StoreOptions {
    /// Returns the options set in the environment; see `variables` for the names.
    ///
    /// # Errors
    /// [`StoreError::Variable`] for a value that cannot be used.
    pub fn from_env() -> Result<StoreOptions> {
        StoreOptions::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<StoreOptions> {
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
        let wrong = |name: &'static str, expected: &'static str| StoreError::Variable { name, expected };
        let flag = |name: &'static str| match variable(name).as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(wrong(name, "true or false")),
        };
        let mut s3 = S3Options {
            endpoint: first(&variables::ENDPOINT),
            region: first(&variables::REGION),
            path_style: flag(variables::PATH_STYLE)?,
            ca_file: first(&variables::CA_FILE).map(PathBuf::from),
            kms_key_id: variable(variables::KMS_KEY_ID),
            single_writer: flag(variables::SINGLE_WRITER)?,
            ..S3Options::default()
        };
        if let Some(mode) = variable(variables::LOCK_MODE) {
            s3.mode = match mode.to_ascii_uppercase().as_str() {
                "COMPLIANCE" => LockMode::Compliance,
                "GOVERNANCE" => LockMode::Governance,
                _ => return Err(wrong(variables::LOCK_MODE, "COMPLIANCE or GOVERNANCE")),
            };
        }
        if let Some(years) = variable(variables::RETENTION_YEARS) {
            let years = years.parse().ok().filter(|years| (1..=RETENTION_YEARS_MAX).contains(years));
            s3.retention_years = years.ok_or(wrong(variables::RETENTION_YEARS, "a number from 1 to 100"))?;
        }
        if let Some(seconds) = variable(variables::TIMEOUT) {
            let seconds = seconds.parse().ok().filter(|seconds| *seconds > 0);
            let seconds = seconds.ok_or(wrong(variables::TIMEOUT, "a number of seconds, at least 1"))?;
            s3.request_timeout = Duration::from_secs(seconds);
        }
        Ok(StoreOptions { s3 })
    }
}

/// Names of the variables that [`StoreOptions::from_env`] reads. If there are several names for an
/// option, the first variable that is set is used.
pub mod variables {
    /// [`super::S3Options::endpoint`]
    pub const ENDPOINT: [&str; 3] = ["STRONGROOM_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
    /// [`super::S3Options::region`]
    pub const REGION: [&str; 3] = ["STRONGROOM_S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"];
    /// [`super::S3Options::path_style`]: `true` or `false`.
    pub const PATH_STYLE: &str = "STRONGROOM_S3_PATH_STYLE";
    /// [`super::S3Options::ca_file`]
    pub const CA_FILE: [&str; 2] = ["STRONGROOM_S3_CA_FILE", "AWS_CA_BUNDLE"];
    /// [`super::S3Options::kms_key_id`]
    pub const KMS_KEY_ID: &str = "STRONGROOM_S3_KMS_KEY_ID";
    /// [`super::S3Options::mode`]: `COMPLIANCE` or `GOVERNANCE`.
    pub const LOCK_MODE: &str = "STRONGROOM_S3_LOCK_MODE";
    /// [`super::S3Options::retention_years`]
    pub const RETENTION_YEARS: &str = "STRONGROOM_S3_RETENTION_YEARS";
    /// [`super::S3Options::single_writer`]: `true` or `false`.
    pub const SINGLE_WRITER: &str = "STRONGROOM_S3_SINGLE_WRITER";
    /// [`super::S3Options::request_timeout`], in seconds.
    pub const TIMEOUT: &str = "STRONGROOM_S3_TIMEOUT";
    /// The folder that is used if [`super::S3Options::staging`] is `None`.
    pub const STAGING: &str = "STRONGROOM_STAGING";
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    #[test]
    fn retention_is_calendar_years_and_a_day() {
        let six = Retention { mode: LockMode::Compliance, years: 6 };
        let until = |y, m, d| six.until(Utc.with_ymd_and_hms(y, m, d, 23, 59, 59).unwrap()).unwrap();
        let day = |y, m, d| Utc.with_ymd_and_hms(y, m, d, 23, 59, 59).unwrap();
        assert_eq!(until(2026, 3, 2), day(2032, 3, 3));
        // These six calendar years have 2,192 days, and a day is added. Six years of 365 days would
        // be 2,190.
        assert_eq!((until(2026, 3, 2) - day(2026, 3, 2)).num_days(), 2193);
        assert_eq!(until(2024, 2, 29), day(2030, 3, 2));
        assert_eq!(until(2026, 2, 28), day(2032, 2, 29));
        assert_eq!(until(2026, 12, 31), day(2033, 1, 1));
        let four = Retention { years: 4, ..six };
        assert_eq!(four.until(day(2024, 2, 29)), Some(day(2028, 3, 1)));
        assert_eq!(Retention { years: u32::MAX, ..six }.until(day(2026, 1, 1)), None);
    }

    #[test]
    fn variables_are_read_or_refused_by_name() {
        let options = |pairs: &'static [(&str, &str)]| {
            StoreOptions::from_variables(|name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(options(&[]).unwrap(), StoreOptions::default());
        let s3 = options(&[
            ("AWS_ENDPOINT_URL", "http://b"),
            ("STRONGROOM_S3_ENDPOINT", "http://a"),
            ("STRONGROOM_S3_PATH_STYLE", "true"),
            ("STRONGROOM_S3_LOCK_MODE", "governance"),
            ("STRONGROOM_S3_RETENTION_YEARS", "7"),
        ]);
        let s3 = s3.unwrap().s3;
        assert_eq!(s3.endpoint.as_deref(), Some("http://a"));
        assert_eq!((s3.path_style, s3.mode, s3.retention_years), (true, LockMode::Governance, 7));
        for wrong in [
            &[("STRONGROOM_S3_RETENTION_YEARS", "0")],
            &[("STRONGROOM_S3_PATH_STYLE", "perhaps")],
            &[("STRONGROOM_S3_LOCK_MODE", "NONE")],
            &[("STRONGROOM_S3_TIMEOUT", "soon")],
        ] {
            assert!(matches!(options(wrong), Err(StoreError::Variable { .. })), "{wrong:?}");
        }
    }
}
