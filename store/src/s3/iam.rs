//! IAM policies for an administrator to install: the permissions that each role needs, and those
//! that no one should have.
//!
//! Invariant: policies are printed, never applied. An identity that can install a bucket's policy
//! can also remove it, and this program must not have that permission.

use serde_json::{Value, json};
use strongroom_schemas::Table;

use super::S3;
use crate::layout;
use crate::options::Retention;

/// Actions that remove objects, hide them, or undo their protection.
const DENIED: [&str; 7] = [
    "s3:DeleteObject*",
    "s3:DeleteBucket*",
    "s3:BypassGovernanceRetention",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutBucketVersioning",
    "s3:PutLifecycleConfiguration",
    "s3:PutBucketPolicy",
];

/// Returns the minimum remaining retention, in days, that the bucket policy demands at the time of
/// a PUT. The day that is added to every retention is not part of this minimum, so a PUT passes
/// even if the clocks differ by some hours.
fn days_min(retention: Retention) -> i64 {
    i64::from(retention.years) * 365 + i64::from(retention.years / 4)
}

fn arns(s3: &S3) -> (String, String) {
    let bucket = format!("arn:aws:s3:::{}", s3.bucket());
    let objects = match s3.prefix() {
        "" => format!("{bucket}/*"),
        prefix => format!("{bucket}/{prefix}/*"),
    };
    (bucket, objects)
}

/// Returns the permissions that a writer needs and no more. It also denies the actions that a
/// writer must not have, even if another policy allows them.
pub fn writer_policy(s3: &S3) -> Value {
    let (bucket, objects) = arns(s3);
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "WriteOnceAndRead",
                "Effect": "Allow",
                "Action": [
                    "s3:PutObject", "s3:PutObjectRetention",
                    "s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention",
                ],
                "Resource": objects,
            },
            {
                "Sid": "ListAndCheck",
                "Effect": "Allow",
                "Action": [
                    "s3:ListBucket", "s3:ListBucketVersions",
                    "s3:GetBucketObjectLockConfiguration", "s3:GetBucketVersioning",
                    "s3:GetLifecycleConfiguration", "s3:GetBucketPolicy",
                ],
                "Resource": bucket,
            },
            { "Sid": "NeverRemove", "Effect": "Deny", "Action": DENIED, "Resource": [bucket, objects] },
        ],
    })
}

/// Returns the permissions for extending retention, and for placing and releasing holds. This
/// policy is separate from the writer's, because an identity that may place a hold may also release
/// it.
pub fn keeper_policy(s3: &S3) -> Value {
    let (bucket, objects) = arns(s3);
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "ExtendAndHold",
                "Effect": "Allow",
                "Action": [
                    "s3:PutObject", "s3:PutObjectRetention", "s3:PutObjectLegalHold",
                    "s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention", "s3:GetObjectLegalHold",
                ],
                "Resource": objects,
            },
            {
                "Sid": "List",
                "Effect": "Allow",
                "Action": ["s3:ListBucket", "s3:ListBucketVersions"],
                "Resource": bucket,
            },
            { "Sid": "NeverRemove", "Effect": "Deny", "Action": DENIED, "Resource": [bucket, objects] },
        ],
    })
}

/// Returns the permissions for checking an archive (with either verifier) and for querying it. They
/// do not allow changes.
pub fn auditor_policy(s3: &S3) -> Value {
    let (bucket, objects) = arns(s3);
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Read",
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention", "s3:GetObjectLegalHold"],
                "Resource": objects,
            },
            {
                "Sid": "ListAndCheck",
                "Effect": "Allow",
                "Action": [
                    "s3:ListBucket", "s3:ListBucketVersions",
                    "s3:GetBucketObjectLockConfiguration", "s3:GetBucketVersioning",
                ],
                "Resource": bucket,
            },
        ],
    })
}

/// Returns the permissions for dropping a volume past its retention. They should exist only while a
/// drop runs. The bucket's own policy refuses deletion to everyone, so its administrator must also
/// exempt this identity there.
pub fn remover_policy(s3: &S3) -> Value {
    let (bucket, objects) = arns(s3);
    let below = objects.trim_end_matches('*');
    let volumes: Vec<String> = Table::ALL.iter().map(|table| format!("{below}{}/*", table.name())).collect();
    let records: Vec<String> =
        [format!("{below}{}/*", layout::DROPPED)].into_iter().chain(volumes.clone()).collect();
    let refused: Vec<&str> =
        ["s3:DeleteObject", "s3:PutObjectLegalHold"].into_iter().chain(DENIED[1..].iter().copied()).collect();
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Read",
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention", "s3:GetObjectLegalHold"],
                "Resource": objects,
            },
            {
                "Sid": "List",
                "Effect": "Allow",
                "Action": ["s3:ListBucket", "s3:ListBucketVersions"],
                "Resource": bucket,
            },
            {
                "Sid": "LayDown",
                "Effect": "Allow",
                "Action": ["s3:PutObject", "s3:PutObjectRetention"],
                "Resource": records,
            },
            {
                "Sid": "RemoveWhatNoLockKeeps",
                "Effect": "Allow",
                "Action": "s3:DeleteObjectVersion",
                "Resource": volumes,
            },
            {
                "Sid": "NeverBypass",
                "Effect": "Deny",
                "Action": refused,
                "Resource": [bucket, objects],
            },
        ],
    })
}

/// Returns the actions that the bucket itself refuses to everyone.
pub fn bucket_policy(s3: &S3, retention: Retention) -> Value {
    let (bucket, objects) = arns(s3);
    // `sealed` does not include the folder of the objects that a writer puts to test the store,
    // because these objects are locked for only a day.
    let below = objects.trim_end_matches('*');
    let tables = Table::ALL.iter().map(|table| format!("{below}{}/*", table.name()));
    let records = [layout::KEYS, layout::RETENTION, layout::HOLDS, layout::DROPPED, layout::CLOCK];
    let records = records.map(|folder| format!("{below}{folder}/*"));
    let sealed: Vec<String> = tables.chain([format!("{below}{}", layout::MANIFEST)]).chain(records).collect();
    let put_refused_if = |sid: &str, condition: Value| {
        json!({
            "Sid": sid,
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:PutObject",
            "Resource": sealed,
            "Condition": condition,
        })
    };
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [bucket, objects],
                "Condition": { "Bool": { "aws:SecureTransport": "false" } },
            },
            {
                "Sid": "NeverRemove",
                "Effect": "Deny",
                "Principal": "*",
                "Action": DENIED[..3],
                "Resource": [bucket, objects],
            },
            put_refused_if(
                "ModeAtLeast",
                json!({ "StringNotEquals": { "s3:object-lock-mode": retention.mode.as_str() } }),
            ),
            put_refused_if(
                "RetentionAtLeast",
                json!({
                    "NumericLessThan": {
                        "s3:object-lock-remaining-retention-days": days_min(retention).to_string(),
                    },
                }),
            ),
        ],
    })
}

#[cfg(test)]
mod tests {
    use chrono::{Days, NaiveDate, NaiveTime};

    use super::*;
    use crate::options::LockMode;

    /// The policy must not refuse our own PUTs, on any day of a cycle of leap years.
    #[test]
    fn no_retention_of_ours_is_too_short_for_the_policy() {
        let first = NaiveDate::from_ymd_opt(2096, 1, 1).expect("a date").and_time(NaiveTime::MIN).and_utc();
        for years in 1..=12 {
            let retention = Retention { mode: LockMode::Compliance, years };
            for day in 0..4 * 366 {
                let now = first + Days::new(day);
                let until = retention.until(now).expect("within the calendar");
                assert!((until - now).num_days() >= days_min(retention), "{now} {years}");
            }
        }
    }
}
