//! `strongroom query`, run as a program: questions are answered from the right files and in the
//! requested format, and a query can only read.

use std::collections::HashSet;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arrow_array::builder::{ListBuilder, StringBuilder, StringDictionaryBuilder};
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow_schema::DataType;
use chrono::{DateTime, Duration as Span, TimeZone as _, Utc};
use datafusion::arrow::ipc::reader::{FileReader, StreamReader};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use strongroom_archive::{Archive, Counts, Position, SourcePosition, encode};
use strongroom_schemas::{Table, events};
use tempfile::TempDir;

use crate::daemon::PATIENCE;
use crate::run::{expect_code, ingest, log, number, output, strongroom, write};

const PARTITION: &str = "file/0011223344556677";
/// How long a query may take to stop. Without being stopped, the queries of these tests would run
/// for hours.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// The columns of an event that the queries here use.
#[derive(Clone, Default)]
struct Event {
    time: DateTime<Utc>,
    audit_id: String,
    stage: &'static str,
    verb: &'static str,
    user: &'static str,
    impersonated: Option<&'static str>,
    addresses: &'static [&'static str],
    agent: &'static str,
    group: Option<&'static str>,
    resource: &'static str,
    subresource: Option<&'static str>,
    namespace: Option<&'static str>,
    name: Option<&'static str>,
    code: i32,
    decision: Option<&'static str>,
    uri: &'static str,
    request: Option<&'static str>,
}

impl Event {
    /// Returns an event in which a person reads a pod.
    fn at(time: DateTime<Utc>) -> Event {
        Event {
            time,
            audit_id: format!("id-{}", time.timestamp_micros()),
            stage: "ResponseComplete",
            verb: "get",
            user: "alice",
            addresses: &["203.0.113.9", "10.0.0.7"],
            agent: "kubectl/v1.33",
            resource: "pods",
            namespace: Some("shop"),
            name: Some("web-0"),
            code: 200,
            decision: Some("allow"),
            uri: "/api/v1/namespaces/shop/pods/web-0",
            ..Event::default()
        }
    }
}

fn text(data_type: &DataType, values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    match data_type {
        DataType::Dictionary(..) => {
            let mut column = StringDictionaryBuilder::<Int32Type>::new();
            values.for_each(|value| column.append_option(value));
            Arc::new(column.finish())
        }
        _ => Arc::new(StringArray::from_iter(values)),
    }
}

fn batch(rows: &[Event], first_offset: i64) -> RecordBatch {
    let schema = Table::Events.batch_schema();
    let columns = schema.fields().iter().map(|field| {
        let column = |value: &dyn Fn(&Event) -> Option<String>| {
            text(field.data_type(), rows.iter().map(value).collect::<Vec<_>>().into_iter())
        };
        let some = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        let own = |value: Option<&'static str>| value.map(str::to_owned);
        match field.name().as_str() {
            events::AUDIT_ID => column(&|row| some(&row.audit_id)),
            events::STAGE => column(&|row| some(row.stage)),
            events::LEVEL => column(&|_| Some("Request".to_owned())),
            events::VERB => column(&|row| some(row.verb)),
            events::REQUEST_URI => column(&|row| some(row.uri)),
            events::USER_NAME => column(&|row| some(row.user)),
            events::IMPERSONATED_USER_NAME => column(&|row| own(row.impersonated)),
            events::USER_AGENT => column(&|row| some(row.agent)),
            events::API_GROUP => column(&|row| own(row.group)),
            events::RESOURCE => column(&|row| some(row.resource)),
            events::SUBRESOURCE => column(&|row| own(row.subresource)),
            events::NAMESPACE => column(&|row| own(row.namespace)),
            events::NAME => column(&|row| own(row.name)),
            events::AUTHZ_DECISION => column(&|row| own(row.decision)),
            events::REQUEST_OBJECT => column(&|row| own(row.request)),
            events::CLUSTER => column(&|_| Some("prod".to_owned())),
            events::SOURCE => column(&|_| Some(PARTITION.to_owned())),
            events::RESPONSE_CODE => {
                Arc::new(Int32Array::from_iter(rows.iter().map(|row| (row.code != 0).then_some(row.code))))
            }
            events::STAGE_TIMESTAMP => {
                let times = rows.iter().map(|row| row.time.timestamp_micros());
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            events::SOURCE_OFFSET => Arc::new(Int64Array::from_iter_values(
                (0..rows.len() as i64).map(|row| first_offset + row * 1000),
            )),
            events::SOURCE_IPS => match field.data_type() {
                DataType::List(item) if matches!(item.data_type(), DataType::Dictionary(..)) => {
                    let mut column = ListBuilder::new(StringDictionaryBuilder::<Int32Type>::new())
                        .with_field(Arc::clone(item));
                    rows.iter().for_each(|row| column.append_value(row.addresses.iter().map(|ip| Some(*ip))));
                    Arc::new(column.finish())
                }
                _ => {
                    let mut column = ListBuilder::new(StringBuilder::new());
                    rows.iter().for_each(|row| column.append_value(row.addresses.iter().map(|ip| Some(*ip))));
                    Arc::new(column.finish())
                }
            },
            _ => new_null_array(field.data_type(), rows.len()),
        }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("columns in the schema's order")
}

/// Makes an archive of `rows`, with a file for each date.
fn archive(rows: &[Event], arrived: DateTime<Utc>) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let location = folder.path().join("archive");
    let archive = Archive::open_or_create(location.to_str().expect("UTF-8")).expect("a new archive");
    let mut writer = archive.writer().expect("the only writer");
    for group in encode(Table::Events, batch(rows, 0), arrived).expect("rows") {
        writer.append(group).expect("a row group");
    }
    let end = rows.len() as i64;
    let position =
        Position { next_offset: end * 1000, records: end, prefix_blake3: [7; 16], broker_offset: None };
    let source = SourcePosition {
        partition: PARTITION.to_owned(),
        label: "test".to_owned(),
        position,
        previous: None,
    };
    let count = rows.len() as u64;
    let counts = Counts { received: count, events: count, rejects: 0, duplicates: 0 };
    writer.seal(&[source], counts).expect("a seal");
    folder
}

fn noon(month: u32, day: u32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, month, day, 12, 0, 0).single().expect("a time")
}

/// An archive with an event for each hour of a year, and one event with an implausible time.
static YEAR: LazyLock<TempDir> = LazyLock::new(|| {
    let start = Utc.with_ymd_and_hms(2026, 1, 1, 0, 30, 0).single().expect("a time");
    let mut rows: Vec<Event> = (0..365 * 24).map(|hour| Event::at(start + Span::hours(hour))).collect();
    // This event is stored under 31 December, the day of its arrival.
    rows.push(Event {
        user: "time-traveller",
        ..Event::at(Utc.with_ymd_and_hms(1999, 6, 1, 0, 0, 0).single().expect("a time"))
    });
    archive(&rows, Utc.with_ymd_and_hms(2026, 12, 31, 23, 59, 0).single().expect("a time"))
});

fn query(folder: &TempDir, sql: &str) -> Command {
    let mut command = strongroom();
    command.arg("query").arg("--archive").arg(folder.path().join("archive")).arg(sql);
    command
}

fn csv(folder: &TempDir, sql: &str) -> String {
    expect_code(query(folder, sql).args(["--format", "csv", "--quiet"]), 0).0
}

/// Returns the dates of the files that the plan of a statement opens. The dates are in their names.
fn opened(folder: &TempDir, sql: &str) -> Vec<String> {
    let (plan, _) = expect_code(&mut query(folder, &format!("EXPLAIN VERBOSE {sql}")), 0);
    let plan = plan.split("physical_plan:").nth(1).unwrap_or_default();
    let dates = plan.split("date=").skip(1).filter(|rest| rest.contains(".parquet"));
    let dates: HashSet<String> = dates.map(|rest| rest.chars().take(10).collect()).collect();
    let mut dates: Vec<String> = dates.into_iter().collect();
    dates.sort();
    dates
}

/// Runs a statement, and returns how many files it has read and how many the archive has. The
/// command prints both on standard error, as `<kept> of <listed> files`.
fn files(folder: &TempDir, sql: &str) -> (usize, usize) {
    let (_, err) = expect_code(&mut query(folder, sql), 0);
    let words: Vec<&str> = err.split_whitespace().collect();
    let at =
        words.iter().position(|word| word.starts_with("files")).unwrap_or_else(|| panic!("{sql}: {err}"));
    (words[at - 3].parse().expect("a count"), words[at - 1].parse().expect("a count"))
}

#[test]
fn a_question_about_an_hour_opens_the_files_of_its_day() {
    let hour = "stage_timestamp >= '2026-03-02T10:00:00Z' AND stage_timestamp < '2026-03-02T11:00:00Z'";
    // The file of 31 December also has an event of 1999. Its times therefore span the whole year,
    // and it is always read.
    let odd = "2026-12-31".to_owned();
    for question in [
        format!("SELECT actor, name FROM events WHERE {hour}"),
        format!("SELECT count(*) FROM events WHERE {hour} AND source_ip = '10.0.0.7'"),
        format!("SELECT e.audit_id FROM events e WHERE {hour} ORDER BY stage_timestamp LIMIT 5"),
        format!("WITH x AS (SELECT * FROM events) SELECT count(*) FROM x WHERE {hour}"),
        "SELECT name FROM events WHERE stage_timestamp BETWEEN TIMESTAMP '2026-03-02 10:00:00' AND TIMESTAMP '2026-03-02 10:59:00'".to_owned(),
        "SELECT actor, name FROM events WHERE date_trunc('hour', stage_timestamp) = '2026-03-02T10:00:00Z'".to_owned(),
        "SELECT actor FROM events WHERE date_trunc('hour', stage_timestamp) = TIMESTAMP '2026-03-02 10:00:00'".to_owned(),
        "SELECT actor FROM events WHERE TIMESTAMPTZ '2026-03-02 10:00:00+00' = date_trunc('hour', stage_timestamp)".to_owned(),
        "SELECT actor FROM events WHERE date_trunc('day', stage_timestamp) = '2026-03-02'".to_owned(),
        "SELECT actor FROM events WHERE date_trunc('day', stage_timestamp) = DATE '2026-03-02'".to_owned(),
        "SELECT actor FROM events WHERE date_trunc('hour', stage_timestamp) BETWEEN '2026-03-02' AND '2026-03-02T23:00:00Z'".to_owned(),
        "SELECT actor FROM events WHERE date_trunc('hour', stage_timestamp) >= '2026-03-02' AND date_trunc('day', stage_timestamp) < '2026-03-03'".to_owned(),
        "SELECT actor FROM events WHERE stage_timestamp::date = '2026-03-02'".to_owned(),
        "SELECT actor FROM events WHERE CAST(stage_timestamp AS DATE) >= DATE '2026-03-02' AND stage_timestamp::date <= '2026-03-02'".to_owned(),
    ] {
        assert_eq!(opened(&YEAR, &question), ["2026-03-02".to_owned(), odd.clone()], "{question}");
        assert_eq!(files(&YEAR, &question), (2, 365), "{question}");
    }
    assert_eq!(csv(&YEAR, &format!("SELECT count(*) FROM events WHERE {hour}")), "count(*)\n1\n");
    for (step, rows) in [("hour", 1), ("day", 24), ("week", 168), ("month", 744)] {
        let question = format!(
            "SELECT count(*) FROM events WHERE date_trunc('{step}', stage_timestamp) = date_trunc('{step}', TIMESTAMPTZ '2026-03-02 10:59:59+00')"
        );
        assert_eq!(csv(&YEAR, &question), format!("count(*)\n{rows}\n"), "{step}");
    }
    assert_eq!(
        csv(&YEAR, "SELECT count(*) FROM events WHERE stage_timestamp::date = '2026-03-02'"),
        "count(*)\n24\n"
    );
    // If the question names the date, the file of 31 December is skipped, too.
    let question = format!("SELECT name FROM events WHERE {hour} AND date = '2026-03-02'");
    assert_eq!(opened(&YEAR, &question), ["2026-03-02"]);
    assert_eq!(files(&YEAR, &question), (1, 365));
}

#[test]
fn a_question_about_an_address_reads_where_it_occurs() {
    // One file per day. Each has one address or none, and one has a second address, which a client
    // put before its own.
    const ADDRESSES: [&[&str]; 4] = [&["10.0.0.1"], &["198.51.100.7", "10.0.0.2"], &["10.0.0.3"], &[]];
    let day = |day: usize| noon(3, 1) + Span::days(day as i64);
    let rows = (0..4).map(|at| Event { addresses: ADDRESSES[at], ..Event::at(day(at)) });
    let folder = archive(&rows.collect::<Vec<_>>(), noon(3, 9));
    let read = |filter: &str| {
        let sql = format!("SELECT date::text AS d FROM events WHERE {filter} ORDER BY d");
        let (out, err) = expect_code(query(&folder, &sql).args(["--format", "csv"]), 0);
        (out.lines().skip(1).collect::<Vec<_>>().join(" "), err.contains(", 0 B read"))
    };
    let found = |days: &str| (days.to_owned(), false);
    assert_eq!(read("source_ip = '10.0.0.1'"), found("2026-03-01"));
    assert_eq!(read("'10.0.0.2' = source_ip AND verb = 'get'"), found("2026-03-02"));
    assert_eq!(read("array_has(source_ips, '198.51.100.7')"), found("2026-03-02"));
    assert_eq!(
        read("array_has(source_ips, '10.0.0.1') OR source_ip = '10.0.0.3'"),
        found("2026-03-01 2026-03-03")
    );
    assert_eq!(read("source_ip <> '10.0.0.1'"), found("2026-03-02 2026-03-03"));
    assert_eq!(read("source_ip IS NULL"), found("2026-03-04"));
    assert_eq!(read("source_ip = '198.51.100.7'"), found(""));
    for absent in ["10.0.0.0", "0", "9", "é"] {
        let filter = format!("source_ip = '{absent}' AND date < '2026-03-04'");
        assert_eq!(read(&filter), (String::new(), true), "{absent}");
    }
}

#[test]
fn filters_on_views_reach_the_files() {
    for view in [
        "secret_access",
        "exec_sessions",
        "rbac_changes",
        "auth_failures",
        "pod_changes",
        "configmap_changes",
        "network_policy_changes",
    ] {
        let question = format!(
            "SELECT actor FROM {view} WHERE stage_timestamp >= '2026-03-02' AND stage_timestamp < '2026-03-03' AND date = DATE '2026-03-02'"
        );
        assert_eq!(files(&YEAR, &question), (1, 365), "{view}");
    }
}

#[test]
fn dates_choose_files_exactly_whatever_the_form_of_the_filter() {
    for (filter, kept) in [
        ("date = '2026-03-02'", 1),
        ("date >= DATE '2026-03-02' AND date < DATE '2026-03-09'", 7),
        ("date IN ('2026-01-01', '2026-12-31')", 2),
        ("extract(month FROM date) = 2", 28),
        ("date::text LIKE '2026-11-%'", 30),
        ("date < '2026-01-01'", 0),
        ("date <> '2026-01-01'", 364),
        ("NOT (date > '2026-01-03')", 3),
    ] {
        let (_, err) = expect_code(&mut query(&YEAR, &format!("SELECT name FROM events WHERE {filter}")), 0);
        if kept == 0 {
            assert!(err.starts_with("0 rows"), "{filter}: {err}");
        } else {
            assert_eq!(
                files(&YEAR, &format!("SELECT name FROM events WHERE {filter}")),
                (kept, 365),
                "{filter}"
            );
        }
    }
}

#[test]
fn rows_filed_under_their_arrival_are_found_by_their_own_time() {
    let question = "SELECT user_name, date FROM events WHERE stage_timestamp < '2000-01-01'";
    assert_eq!(csv(&YEAR, question), "user_name,date\ntime-traveller,2026-12-31\n");
    assert_eq!(opened(&YEAR, question), ["2026-12-31"]);
}

#[test]
fn counts_and_spans_are_answered_without_opening_a_file() {
    for (question, answer) in [
        ("SELECT count(*) FROM events", "8761"),
        ("SELECT count(*) FROM events WHERE date = '2026-03-02'", "24"),
        ("SELECT max(stage_timestamp) FROM events", "2026-12-31T23:30:00Z"),
        ("SELECT min(stage_timestamp) FROM events WHERE date = '2026-03-02'", "2026-03-02T00:30:00Z"),
    ] {
        assert_eq!(csv(&YEAR, question).lines().nth(1), Some(answer), "{question}");
        let (plan, _) = expect_code(&mut query(&YEAR, &format!("EXPLAIN {question}")), 0);
        assert!(!plan.contains("DataSourceExec: file_groups"), "{question}: {plan}");
    }
}

#[test]
fn whatever_is_not_reading_is_refused() {
    let outside = tempfile::tempdir().expect("a temporary folder");
    let target = outside.path().join("out.parquet");
    let secret = write(outside.path(), "secret.csv", b"a,b\n1,2\n");
    let (target, secret) = (target.display(), secret.display());
    let hostile = [
        "INSERT INTO events VALUES (1)".to_owned(),
        "INSERT INTO events SELECT * FROM events".to_owned(),
        "INSERT OVERWRITE events SELECT * FROM events".to_owned(),
        "UPDATE events SET verb = 'get'".to_owned(),
        "DELETE FROM events".to_owned(),
        "TRUNCATE TABLE events".to_owned(),
        "MERGE INTO events USING alerts ON true WHEN MATCHED THEN DELETE".to_owned(),
        "DROP TABLE events".to_owned(),
        "DROP VIEW secret_access".to_owned(),
        "DROP SCHEMA archive CASCADE".to_owned(),
        "CREATE TABLE t AS SELECT * FROM events".to_owned(),
        "CREATE TABLE t (a INT)".to_owned(),
        "CREATE VIEW v AS SELECT 1".to_owned(),
        "CREATE OR REPLACE VIEW secret_access AS SELECT 1".to_owned(),
        "CREATE SCHEMA s".to_owned(),
        "CREATE DATABASE d".to_owned(),
        "CREATE FUNCTION f() RETURNS INT LANGUAGE SQL AS 'SELECT 1'".to_owned(),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{secret}'"),
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://bucket/x'".to_owned(),
        format!("COPY events TO '{target}'"),
        format!("COPY (SELECT * FROM events) TO '{target}' STORED AS PARQUET"),
        format!("EXPLAIN ANALYZE COPY events TO '{target}'"),
        "EXPLAIN ANALYZE INSERT INTO events SELECT * FROM events".to_owned(),
        "WITH gone AS (DELETE FROM events RETURNING *) SELECT * FROM gone".to_owned(),
        "SELECT * INTO t FROM events".to_owned(),
        "SELECT * FROM events FOR UPDATE".to_owned(),
        format!("SELECT * FROM '{secret}'"),
        format!("SELECT * FROM \"{secret}\""),
        "SELECT * FROM '/etc/passwd'".to_owned(),
        "SELECT * FROM 'file:///etc/passwd'".to_owned(),
        "SELECT * FROM 's3://bucket/events.parquet'".to_owned(),
        "SELECT * FROM 'x.parquet'".to_owned(),
        format!("SELECT * FROM read_csv('{secret}')"),
        format!("SELECT * FROM read_parquet('{target}')"),
        "SELECT * FROM parquet_metadata('x.parquet')".to_owned(),
        "SELECT * FROM glob('/etc/*')".to_owned(),
        "SELECT pg_read_file('/etc/passwd')".to_owned(),
        "SELECT 1 WHERE EXISTS (SELECT * FROM '/etc/passwd')".to_owned(),
        "SET datafusion.execution.target_partitions = 1".to_owned(),
        "SET datafusion.runtime.memory_limit = '100G'".to_owned(),
        "RESET datafusion.execution.target_partitions".to_owned(),
        "USE information_schema".to_owned(),
        "PREPARE p AS SELECT 1".to_owned(),
        "EXECUTE p".to_owned(),
        "BEGIN".to_owned(),
        "COMMIT".to_owned(),
        "GRANT SELECT ON events TO mallory".to_owned(),
        "LOAD DATA LOCAL INPATH '/etc/passwd' INTO TABLE events".to_owned(),
        "ATTACH DATABASE 'x.db' AS x".to_owned(),
        "VACUUM".to_owned(),
        "CALL f()".to_owned(),
        "SELECT 1; DROP TABLE events".to_owned(),
    ];
    let files_before = every_file(YEAR.path());
    for sql in hostile {
        let (out, err) = expect_code(&mut query(&YEAR, &sql), 1);
        assert_eq!(out, "", "{sql}");
        assert!(
            err.contains("read-only") || err.contains("expected: ") || err.contains("statements"),
            "{sql}: {err}"
        );
    }
    assert_eq!(every_file(YEAR.path()), files_before);
    assert_eq!(every_file(outside.path()).len(), 1);
}

fn every_file(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(every_file(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn errors_say_what_to_do() {
    for (sql, message, hint) in [
        ("SELECT usr_name FROM events", "there is no column \"usr_name\"", "did you mean user_name?"),
        ("SELECT objectRef.resource FROM events", "there is no column", "the column is resource"),
        ("SELECT \"user\".\"username\" FROM events", "there is no column", "the column is user_name"),
        ("SELECT * FROM events WHERE verb = \"get\"", "there is no column \"get\"", "single quotes"),
        ("SELECT * FROM event", "there is no table \"event\"", "did you mean events?"),
        ("SELECT coun(*) FROM events", "there is no function \"coun\"", "did you mean count?"),
        ("SELECT *\nFROM events\nWHRE verb = 'get'", "line 3: WHRE", ""),
        ("", "no SQL statement", "strongroom query"),
        ("DROP TABLE events", "this archive is read-only: DROP TABLE is refused", "SELECT"),
        ("SET x = 1", "SET", "--memory-limit"),
    ] {
        let (_, err) = expect_code(&mut query(&YEAR, sql), 1);
        assert!(err.contains(message), "{sql}: {err}");
        assert!(err.split("hint: ").nth(1).unwrap_or_default().contains(hint), "{sql}: {err}");
    }
    // This error comes from a row and not from the statement. It hides the value, which may be
    // private.
    let (_, err) = expect_code(&mut query(&YEAR, "SELECT arrow_cast(name, 'Int64') FROM events"), 1);
    assert!(err.contains("cannot cast string … to value of Int64") && err.contains("try_cast"), "{err}");
    assert!(!err.contains("web-0"), "{err}");
}

#[test]
fn functions_do_not_make_more_than_the_memory_limit() {
    for (sql, function) in [
        ("SELECT length(repeat('a', 2147483647))", "repeat()"),
        ("SELECT sum(length(repeat(user_name, 10000000))) FROM events", "repeat()"),
        ("SELECT lpad(user_name, 2000000000) FROM events", "lpad()"),
        ("SELECT array_length(range(0, 1000000000))", "range()"),
        ("SELECT replace(repeat(user_name, 10000), 'e', repeat('x', 60000)) FROM events", "replace()"),
        (
            "SELECT regexp_replace(repeat(user_name, 1000), '', repeat('x', 60000), 'g') FROM events",
            "regexp_replace()",
        ),
        (
            "SELECT array_to_string(array_repeat(name, 100000), repeat('x', 60000)) FROM events",
            "array_to_string()",
        ),
    ] {
        let mut command = query(&YEAR, sql);
        let (_, err) = expect_code(command.args(["--memory-limit", "64MiB"]), 2);
        assert!(err.contains(function) && err.contains("--memory-limit"), "{sql}: {err}");
    }
    // A text that doubles with each level is refused, whether it comes from a column or a constant.
    for first in ["user_name", "'seventeen letters'"] {
        let doubled = (0..24).fold(format!("SELECT {first} AS a0 FROM events"), |inner, at| {
            format!("SELECT a{at} || a{at} AS a{} FROM ({inner})", at + 1)
        });
        let mut command = query(&YEAR, &format!("SELECT sum(length(a24)) FROM ({doubled})"));
        let (_, err) = expect_code(command.args(["--memory-limit", "64MiB"]), 2);
        assert!(err.contains("||") && err.contains("--memory-limit"), "{err}");
    }
    // A list that is made for one row is allowed. A list that would be repeated for each row is
    // not.
    let list = "SELECT count(*) FROM (SELECT unnest(range(0, 400000)))";
    assert_eq!(csv(&YEAR, list).lines().nth(1), Some("400000"));
    let repeated = "SELECT array_length(array_append(range(0, 400000), length(name))) FROM events";
    let (_, err) = expect_code(query(&YEAR, repeated).args(["--memory-limit", "64MiB"]), 2);
    assert!(err.contains("repeated for each row") && err.contains("--memory-limit"), "{err}");
    // The bounded operator has its usual meaning.
    let meaning = "SELECT 'a' || 1 || 'b' AS text, 'a' || NULL AS none, ['x'] || ['y'] AS list, verb || '!' FROM events LIMIT 1";
    let answer = csv(&YEAR, meaning);
    let mut lines = answer.lines();
    assert!(lines.next().is_some_and(|head| head.starts_with("text,none,list,")), "{answer}");
    assert!(lines.next().is_some_and(|row| row.starts_with("a1b,,") && row.ends_with('!')), "{answer}");
    // Texts within the limit are made. If all texts of a batch do not fit at once, the batch is
    // computed in slices.
    let lengths =
        |count: u32| csv(&YEAR, &format!("SELECT sum(length(repeat(user_name, {count}))) FROM events"));
    let number =
        |text: String| text.lines().nth(1).and_then(|line| line.parse::<u64>().ok()).expect("a number");
    assert_eq!(number(lengths(200)), 200 * number(lengths(1)));
}

#[test]
fn listings_show_the_archives_names_and_no_others() {
    let tables = ["activity", "alerts", "events", "rejects"];
    let views = [
        "auth_failures",
        "configmap_changes",
        "exec_sessions",
        "network_policy_changes",
        "pod_changes",
        "rbac_changes",
        "secret_access",
        "unfinished_requests",
    ];
    let lines = |answer: &str| answer.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let shown = csv(&YEAR, "SHOW TABLES");
    assert_eq!(shown.lines().next(), Some("name,kind,about"));
    let expected: Vec<String> = tables
        .iter()
        .map(|name| format!("{name},table"))
        .chain(views.iter().map(|name| format!("{name},view")))
        .collect();
    let kinds: Vec<String> =
        lines(&shown).iter().map(|line| line.split(',').take(2).collect::<Vec<_>>().join(",")).collect();
    assert_eq!(kinds, expected);
    // The prompt and the help list the same names.
    let mut at_prompt: Vec<String> = script(&YEAR, "\\d\n")
        .0
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(","))
        .collect();
    at_prompt.sort_by_key(|line| expected.iter().position(|expected| expected == line));
    assert_eq!(at_prompt, expected);
    let (help, _) = expect_code(strongroom().args(["query", "--help"]), 0);
    let mut names: Vec<&str> = tables.into_iter().chain(views).collect();
    assert!(names.iter().all(|name| help.contains(name)), "{help}");
    names.sort_unstable();
    for list in ["tables", "columns"] {
        let sql = format!("SELECT DISTINCT table_name FROM information_schema.{list} ORDER BY 1");
        assert_eq!(lines(&csv(&YEAR, &sql)), names, "{list}");
    }
    assert_eq!(csv(&YEAR, "SHOW TABLES LIKE 'secret%'").lines().count(), 2);
    assert_eq!(csv(&YEAR, "SHOW TABLES WHERE kind = 'view'").lines().count(), views.len() + 1);

    for name in &names {
        let described = csv(&YEAR, &format!("DESCRIBE {name}"));
        assert_eq!(described.lines().next(), Some("column_name,data_type,is_nullable"));
        let columns: Vec<String> =
            lines(&described).iter().filter_map(|line| Some(line.split(',').next()?.to_owned())).collect();
        let selected = csv(&YEAR, &format!("SELECT * FROM {name} LIMIT 0"));
        assert_eq!(columns.join(","), selected.trim_end(), "{name}");
        for same in ["DESC", "SHOW COLUMNS FROM", "SHOW COLUMNS IN"] {
            assert_eq!(csv(&YEAR, &format!("{same} {name}")), described, "{same} {name}");
        }
        assert_eq!(script(&YEAR, &format!("\\f csv\n\\d {name}\n")).0, described);
        // A type is written in a form that a cast in SQL accepts.
        let types: HashSet<String> =
            lines(&described).iter().filter_map(|line| Some(line.split(',').nth(1)?.to_owned())).collect();
        for data_type in types {
            csv(&YEAR, &format!("SELECT NULL::{data_type} AS n"));
        }
    }
    assert_eq!(csv(&YEAR, "SHOW COLUMNS FROM events LIKE 'user%name'").lines().count(), 2);
    let functions = csv(&YEAR, "SHOW FUNCTIONS LIKE 'date_trunc'");
    assert!(functions.starts_with("name,kind,syntax,description\ndate_trunc,scalar,"), "{functions}");
    let (_, err) = expect_code(&mut query(&YEAR, "DESCRIBE event"), 1);
    assert!(err.contains("there is no table \"event\"") && err.contains("did you mean events?"), "{err}");
    for sql in ["SHOW ALL", "SHOW datafusion.execution.batch_size", "DESCRIBE information_schema.df_settings"]
    {
        expect_code(&mut query(&YEAR, sql), 1);
    }
}

#[test]
fn archives_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for location in [folder.path().join("nothing"), folder.path().to_owned()] {
        let (_, err) = expect_code(strongroom().args(["query", "SELECT 1", "--archive"]).arg(&location), 1);
        assert!(err.contains(&format!("{} is not an archive", location.display())), "{err}");
        assert!(err.contains("hint: "), "{err}");
    }
    let (_, err) = expect_code(strongroom().args(["query", "SELECT 1", "--archive", "s3://bucket/x"]), 1);
    assert!(err.contains("s3://bucket/x"), "{err}");
    expect_code(strongroom().args(["query", "SELECT 1"]), 64);
}

#[test]
fn archives_are_found_by_path_url_and_environment() {
    let location = YEAR.path().join("archive");
    let url = format!("file://{}", location.display());
    let mut by_environment = strongroom();
    by_environment.env("STRONGROOM_ARCHIVE", &location).args(["query", "SELECT count(*) AS n FROM events"]);
    let mut by_url = strongroom();
    by_url.args(["query", "SELECT count(*) AS n FROM events", "--archive", &url]);
    for mut command in [by_environment, by_url] {
        assert_eq!(expect_code(command.args(["--format", "csv"]), 0).0, "n\n8761\n");
    }
}

#[test]
fn an_empty_archive_answers_with_no_rows() {
    let folder = archive(&[], noon(3, 2));
    for table in [
        "events",
        "rejects",
        "alerts",
        "secret_access",
        "exec_sessions",
        "rbac_changes",
        "auth_failures",
        "pod_changes",
        "configmap_changes",
        "network_policy_changes",
        "unfinished_requests",
    ] {
        assert_eq!(csv(&folder, &format!("SELECT count(*) AS n FROM {table}")), "n\n0\n", "{table}");
        assert_eq!(
            csv(&folder, &format!("SELECT cluster, source FROM {table}")),
            "cluster,source\n",
            "{table}"
        );
    }
    assert_eq!(csv(&folder, "SELECT kind, body FROM activity"), "kind,body\n");
    assert_eq!(
        expect_code(query(&folder, "SELECT verb FROM events").args(["--format", "json-array"]), 0).0,
        "[]"
    );
    assert_eq!(expect_code(query(&folder, "SELECT verb FROM events").args(["--format", "json"]), 0).0, "");
}

/// Three rows with values that formats often get wrong: nulls, quotes, lists, JSON, non-ASCII, a
/// terminal's escape.
static ODDITIES: LazyLock<TempDir> = LazyLock::new(|| {
    let mut rows = vec![
        Event { agent: "say \"hi\", é\u{1b}[31m\n", ..Event::at(noon(3, 1)) },
        Event {
            impersonated: Some("bob"),
            namespace: None,
            name: None,
            addresses: &[],
            request: Some(r#"{"spec":{"replicas":3},"kind":"Scale"}"#),
            ..Event::at(noon(3, 2))
        },
        Event { addresses: &["192.0.2.1"], code: 0, ..Event::at(noon(3, 3)) },
    ];
    rows[2].user = "carol";
    archive(&rows, noon(3, 4))
});

const ODD_COLUMNS: &str = "SELECT stage_timestamp, actor, source_ip, source_ips, namespace, user_agent, response_code, date FROM events ORDER BY stage_timestamp";

#[test]
fn csv_quotes_what_needs_quotes() {
    assert_eq!(
        csv(&ODDITIES, ODD_COLUMNS),
        "stage_timestamp,actor,source_ip,source_ips,namespace,user_agent,response_code,date\n\
         2026-03-01T12:00:00Z,alice,10.0.0.7,\"[\"\"203.0.113.9\"\",\"\"10.0.0.7\"\"]\",shop,\"say \"\"hi\"\", é\u{1b}[31m\n\",200,2026-03-01\n\
         2026-03-02T12:00:00Z,bob,,[],,kubectl/v1.33,200,2026-03-02\n\
         2026-03-03T12:00:00Z,carol,192.0.2.1,\"[\"\"192.0.2.1\"\"]\",shop,kubectl/v1.33,,2026-03-03\n"
    );
}

#[test]
fn json_has_every_key_on_every_line() {
    let (out, _) = expect_code(query(&ODDITIES, ODD_COLUMNS).args(["--format", "json"]), 0);
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["source_ips"], serde_json::json!(["203.0.113.9", "10.0.0.7"]));
    assert_eq!(lines[0]["user_agent"], "say \"hi\", é\u{1b}[31m\n");
    assert_eq!(lines[1]["actor"], "bob");
    assert!(lines[1]["source_ip"].is_null() && lines[1].get("source_ip").is_some());
    assert!(lines[2]["response_code"].is_null());
    assert_eq!(lines[2]["stage_timestamp"], "2026-03-03T12:00:00Z");
    let (out, _) = expect_code(query(&ODDITIES, ODD_COLUMNS).args(["--format", "json-array"]), 0);
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&out).expect("an array"), lines);
}

fn check_batches(batches: &[RecordBatch]) {
    let all = datafusion::arrow::compute::concat_batches(&batches[0].schema(), batches).expect("one schema");
    assert_eq!(all.num_rows(), 3);
    let column = |name: &str| all.column_by_name(name).unwrap_or_else(|| panic!("{name}")).clone();
    assert_eq!(column("actor").data_type(), &DataType::Utf8);
    let actors: Vec<Option<String>> =
        column("actor").as_string::<i32>().iter().map(|actor| actor.map(str::to_owned)).collect();
    assert_eq!(actors, ["alice", "bob", "carol"].map(|actor| Some(actor.to_owned())));
    assert!(column("namespace").is_null(1) && column("source_ip").is_null(1));
    let addresses = column("source_ips").as_list::<i32>().value(0);
    assert_eq!(
        addresses.as_string::<i32>().iter().collect::<Vec<_>>(),
        [Some("203.0.113.9"), Some("10.0.0.7")]
    );
    assert_eq!(column("response_code").as_primitive::<Int32Type>().value(0), 200);
    assert_eq!(column("stage_timestamp").data_type(), &strongroom_schemas::table::timestamp());
}

#[test]
fn parquet_and_arrow_are_read_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    // The format follows from the file's name.
    for name in ["a.parquet", "a.arrow"] {
        expect_code(query(&ODDITIES, ODD_COLUMNS).arg("--output").arg(path(name)), 0);
    }
    let file = std::fs::File::open(path("a.parquet")).expect("the file");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("a reader");
    check_batches(&reader.map(|batch| batch.expect("a batch")).collect::<Vec<_>>());
    let file = std::fs::File::open(path("a.arrow")).expect("the file");
    let reader = FileReader::try_new(file, None).expect("an Arrow file");
    check_batches(&reader.map(|batch| batch.expect("a batch")).collect::<Vec<_>>());
    // Standard output gets the stream form.
    let out = output(query(&ODDITIES, ODD_COLUMNS).args(["--format", "arrow"])).stdout;
    let reader = StreamReader::try_new(out.as_slice(), None).expect("an Arrow stream");
    check_batches(&reader.map(|batch| batch.expect("a batch")).collect::<Vec<_>>());
    let out = output(query(&ODDITIES, ODD_COLUMNS).args(["--format", "parquet"])).stdout;
    assert!(out.starts_with(b"PAR1") && out.ends_with(b"PAR1"));
    assert_eq!(every_file(folder.path()).len(), 2, "no temporary file is left");
}

#[test]
fn json_is_asked_with_operators_and_functions() {
    for (expression, value) in [
        ("request_object->'spec'", r#"{"replicas":3}"#),
        ("request_object->'spec'->'replicas'", "3"),
        ("request_object->'spec'->>'replicas'", "3"),
        ("request_object->'kind'", r#""Scale""#),
        ("request_object->>'kind'", "Scale"),
        ("request_object#>array['spec','replicas']", "3"),
        ("request_object#>>array['spec','replicas']", "3"),
        ("json_get(request_object, 'spec')", r#"{"replicas":3}"#),
        ("json_get_json(request_object, 'spec')", r#"{"replicas":3}"#),
        ("json_get_str(request_object, 'kind')", "Scale"),
        ("json_as_text(request_object, 'spec', 'replicas')", "3"),
    ] {
        let sql = format!("SELECT stage, {expression} AS v FROM events ORDER BY stage_timestamp");
        let quoted = match value.contains('"') {
            true => format!("\"{}\"", value.replace('"', "\"\"")),
            false => value.to_owned(),
        };
        let done = "ResponseComplete";
        assert_eq!(csv(&ODDITIES, &sql), format!("stage,v\n{done},\n{done},{quoted}\n{done},\n"), "{sql}");
        let asked =
            |format: &str| output(query(&ODDITIES, &sql).args(["--quiet", "--format", format])).stdout;
        let table = String::from_utf8(asked("table")).expect("UTF-8");
        assert_eq!(table.lines().nth(3), Some(format!("{done} │ {value}").as_str()), "{sql}");
        let json = String::from_utf8(asked("json")).expect("UTF-8");
        let json: Vec<serde_json::Value> =
            json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(json[1], serde_json::json!({ "stage": done, "v": value }), "{sql}");
        assert!(json[0]["v"].is_null(), "{sql}");
        let array: Vec<serde_json::Value> = serde_json::from_slice(&asked("json-array")).expect("an array");
        assert_eq!(array, json, "{sql}");
        let arrow = asked("arrow");
        let arrow = StreamReader::try_new(arrow.as_slice(), None).expect("an Arrow stream");
        let arrow: Vec<RecordBatch> = arrow.map(|batch| batch.expect("a batch")).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.parquet");
        expect_code(query(&ODDITIES, &sql).arg("--output").arg(&path), 0);
        let file = std::fs::File::open(path).expect("the file");
        let parquet =
            ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("a reader");
        for batches in [arrow, parquet.map(|batch| batch.expect("a batch")).collect()] {
            let all = datafusion::arrow::compute::concat_batches(&batches[0].schema(), &batches)
                .expect("one schema");
            let values: Vec<Option<&str>> = all.column(1).as_string::<i32>().iter().collect();
            assert_eq!(values, [None, Some(value), None], "{sql}");
        }
    }
    // Numbers, booleans and lengths are proper values; JSON is compared, sorted and grouped.
    for (sql, answer) in [
        (
            "SELECT (request_object->'spec'->'replicas')::int + 1 AS n FROM events WHERE json_contains(request_object, 'spec')",
            "n\n4\n",
        ),
        (
            "SELECT json_length(request_object->'spec') AS n FROM events WHERE request_object->>'kind' = 'Scale'",
            "n\n1\n",
        ),
        ("SELECT count(*) AS n FROM events WHERE (request_object->'spec'->'replicas')::int > 2", "n\n1\n"),
        (
            "SELECT count(*) AS n FROM events WHERE json_get_int(request_object, 'spec', 'replicas') = 3",
            "n\n1\n",
        ),
        (
            "SELECT request_object->'kind' AS k, count(*) AS n FROM events GROUP BY 1 ORDER BY 1 NULLS LAST",
            "k,n\n\"\"\"Scale\"\"\",1\n,2\n",
        ),
        (
            "SELECT DISTINCT request_object->'spec' AS s FROM events ORDER BY s NULLS FIRST LIMIT 1",
            "s\n\"\"\n",
        ),
    ] {
        assert_eq!(csv(&ODDITIES, sql), answer, "{sql}");
    }
    let (_, err) = expect_code(
        query(&ODDITIES, "SELECT request_object->'spec'->>'replicas' AS replicas FROM events").args(["-x"]),
        0,
    );
    assert!(err.starts_with("3 rows in "), "{err}");
}

#[test]
fn every_column_of_events_fits_every_format() {
    for format in ["table", "csv", "json", "json-array", "parquet", "arrow"] {
        let out = output(query(&ODDITIES, "SELECT * FROM events").args(["--format", format]));
        assert!(
            out.status.success() && !out.stdout.is_empty(),
            "{format}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
}

#[test]
fn tables_are_aligned_and_free_of_escapes() {
    let sql = "SELECT user_agent, response_code, namespace FROM events ORDER BY stage_timestamp";
    let (out, err) = expect_code(&mut query(&ODDITIES, sql), 0);
    let lines: Vec<&str> = out.lines().collect();
    let expected = [
        "user_agent              │ response_code │ namespace",
        "────────────────────────┼───────────────┼──────────",
        "say \"hi\", é\\u{1b}[31m\\n │           200 │ shop",
        "kubectl/v1.33           │           200 │ NULL",
        "kubectl/v1.33           │          NULL │ shop",
    ];
    assert_eq!(lines, expected);
    assert!(err.starts_with("3 rows in "), "{err}");
    let (out, _) = expect_code(query(&ODDITIES, sql).args(["--expanded", "--quiet"]), 0);
    assert!(out.contains("─[ row 3 ]─\nuser_agent    │ kubectl/v1.33\nresponse_code │ NULL\n"), "{out}");
}

#[test]
fn a_failed_answer_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write(folder.path(), "answer.csv", b"before");
    // This query fails after its first rows were written.
    let sql = "SELECT 1 / (CASE WHEN stage_timestamp = '2026-03-03T12:00:00Z' THEN 0 ELSE 1 END) FROM events ORDER BY 1";
    expect_code(query(&ODDITIES, sql).arg("--output").arg(&path), 1);
    assert_eq!(std::fs::read(&path).expect("the file"), b"before");
    assert_eq!(every_file(folder.path()), std::slice::from_ref(&path));
    expect_code(query(&ODDITIES, "SELECT 1 AS one").arg("--output").arg(&path), 0);
    assert_eq!(std::fs::read(&path).expect("the file"), b"one\n1\n");
    expect_code(query(&ODDITIES, "SELECT 1").arg("--output").arg(folder.path().join("no/such/file")), 1);
}

#[test]
fn statements_come_from_files_and_standard_input() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write(folder.path(), "q.sql", b"-- how many?\nSELECT count(*) AS n\nFROM events;\n");
    let mut from_file = strongroom();
    from_file.arg("query").arg("--archive").arg(YEAR.path().join("archive")).arg("-f").arg(&path);
    assert_eq!(expect_code(from_file.args(["--format", "csv"]), 0).0, "n\n8761\n");
    for dash in [&["-"][..], &[]] {
        let mut child = strongroom()
            .arg("query")
            .args(dash)
            .arg("--archive")
            .arg(YEAR.path().join("archive"))
            .args(["--format", "csv"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        child.stdin.take().expect("a pipe").write_all(b"SELECT 2 AS two").expect("the pipe");
        assert_eq!(child.wait_with_output().expect("an end").stdout, b"two\n2\n");
    }
    expect_code(
        strongroom()
            .args(["query", "--archive"])
            .arg(YEAR.path().join("archive"))
            .args(["-f", "/no/such.sql"]),
        1,
    );
}

#[test]
fn a_statement_may_begin_with_a_comment() {
    for sql in [
        "-- how many?\nSELECT 1 AS one",
        "--\nSELECT 1 AS one",
        "-- x=1\nSELECT 1 AS one",
        "/* -- */ SELECT 1 AS one",
    ] {
        assert_eq!(csv(&YEAR, sql), "one\n1\n", "{sql}");
    }
    // A hyphen and a space start a statement, so `- 1` is an error in the SQL. An unknown flag is
    // an error in the command line.
    let (_, err) = expect_code(&mut query(&YEAR, "- 1"), 1);
    assert!(err.contains("line 1: - 1"), "{err}");
    let (_, err) = expect_code(&mut query(&YEAR, "--quite"), 64);
    assert!(err.contains("--quite"), "{err}");
    expect_code(query(&YEAR, "SELECT 1").arg("SELECT 2"), 64);
}

/// Waits until a process has a handler for interrupts. Before that, an interrupt would kill it. On
/// a system without /proc, waits for a fixed time.
fn wait_for_its_handler(child: &Child) {
    let status = format!("/proc/{}/status", child.id());
    let until = Instant::now() + PATIENCE;
    while let Ok(text) = std::fs::read_to_string(&status) {
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        // SIGINT is number 2.
        if caught & (1 << 1) != 0 {
            return;
        }
        assert!(Instant::now() < until, "no handler within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_secs(1));
}

/// Runs a query that would take hours, then interrupts it. Returns how long stopping took, and the
/// exit code.
fn interrupt(mut command: Command) -> (Duration, Option<i32>) {
    let mut child: Child =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
    wait_for_its_handler(&child);
    // The query gets time to be in the middle of its work.
    std::thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().expect("a state").is_none(), "the query has not ended by itself");
    let begun = Instant::now();
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let status = child.wait().expect("an end");
    (begun.elapsed(), status.code())
}

#[test]
fn an_interrupt_stops_the_question() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let spill = folder.path().join("spill");
    let path = folder.path().join("answer.csv");
    for sql in [
        // The queries: joins that never end, a single-threaded source, and a sort that spills until
        // it is stopped.
        "SELECT count(*) FROM events a, events b, events c WHERE a.audit_id < b.audit_id OR b.audit_id < c.audit_id",
        "SELECT max(md5(value::text)) FROM generate_series(1, 100000000000)",
        "SELECT value, md5(value::text) FROM generate_series(1, 100000000000) ORDER BY 2",
    ] {
        let mut command = query(&YEAR, sql);
        command.arg("--temp-dir").arg(&spill).arg("--output").arg(&path).args(["--memory-limit", "64MiB"]);
        let (stopped_in, code) = interrupt(command);
        assert_eq!(code, Some(130), "{sql}");
        assert!(stopped_in < STOPPED_WITHIN, "{sql}: {stopped_in:?}");
        assert!(!path.exists(), "{sql}");
    }
    assert!(every_file(folder.path()).is_empty(), "{:?}", every_file(folder.path()));
}

#[test]
fn a_sort_beyond_the_memory_limit_spills() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // 1,000,000 rows of some 80 bytes are far more than a sort can hold in memory under this limit.
    let sql = "SELECT count(*) AS n, max(h) AS m FROM (SELECT h, row_number() OVER (ORDER BY h) AS r FROM \
               (SELECT md5(value::text) || md5((value + 1)::text) AS h FROM generate_series(1, 1000000))) WHERE r > 0";
    let mut command = query(&YEAR, sql);
    command
        .args(["--format", "csv", "--memory-limit", "128MiB"])
        .arg("--temp-dir")
        .arg(folder.path().join("spill"));
    let (out, err) = expect_code(&mut command, 0);
    assert!(out.starts_with("n,m\n1000000,ffff"), "{out}");
    assert!(err.contains(" spilled"), "{err}");
    assert!(every_file(folder.path()).is_empty());
}

/// Whole events are sorted in another order than the stored one, under memory limits from a
/// fortieth of their size upwards.
#[test]
fn whole_events_are_sorted_within_little_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write(folder.path(), "audit.log", &log(60_000, 5));
    let location = folder.path().join("archive");
    expect_code(&mut ingest(&location, &[&path]), 0);
    for limit in ["24MiB", "32MiB", "48MiB", "64MiB"] {
        for (order, threads) in [("audit_id", "2"), ("user_name, request_uri DESC, audit_id", "4")] {
            let answer = folder.path().join("answer.csv");
            let sql = format!("SELECT * FROM events ORDER BY {order}");
            let mut command = query(&folder, &sql);
            command.args(["--memory-limit", limit, "--threads", threads]).arg("--output").arg(&answer);
            command.arg("--temp-dir").arg(folder.path().join("spill"));
            let (_, err) = expect_code(&mut command, 0);
            assert!(err.starts_with("60,000 rows in ") && err.contains(" spilled"), "{limit}: {err}");
            assert!(every_file(&folder.path().join("spill")).is_empty());
        }
    }
}

#[test]
fn what_cannot_spill_says_what_to_do() {
    let sql =
        "SELECT length(array_to_string(array_agg(md5(value::text)), '')) FROM generate_series(1, 3000000)";
    let (out, err) = expect_code(query(&YEAR, sql).args(["--memory-limit", "24MiB"]), 2);
    assert_eq!(out, "");
    assert!(err.contains("the answer needs more memory than the limit of 24 MiB"), "{err}");
    assert!(err.contains("hint: raise it with --memory-limit") && !err.contains("datafusion"), "{err}");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let mut child = query(&YEAR, "SELECT * FROM events")
        .args(["--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// An archive with one event for each case that a view must show, and for each case that it must
/// leave out.
static STORIES: LazyLock<TempDir> = LazyLock::new(|| {
    let mut minute = 0;
    let mut at = || {
        minute += 1;
        Event::at(noon(3, 2) + Span::minutes(minute))
    };
    let exec_uri = "/api/v1/namespaces/shop/pods/web-0/exec?command=sh&command=-c&command=cat+%2Fetc%2Fpasswd&container=web&stdin=true&tty=false";
    let binding = r#"{"kind":"ClusterRoleBinding","metadata":{"name":"oops"},"subjects":[{"kind":"User","name":"mallory"}],"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"}}"#;
    let exec = Event { verb: "create", subresource: Some("exec"), uri: exec_uri, ..Event::default() };
    let rbac = Event {
        verb: "create",
        group: Some("rbac.authorization.k8s.io"),
        resource: "clusterrolebindings",
        namespace: None,
        name: None,
        code: 201,
        request: Some(binding),
        ..Event::default()
    };
    let with = |base: Event, change: &Event| Event {
        verb: change.verb,
        group: change.group,
        subresource: change.subresource,
        uri: if change.uri.is_empty() { base.uri } else { change.uri },
        request: change.request,
        ..base
    };
    let rows = vec![
        // Access to Secrets: one is read, all are listed, a read by impersonation is refused; and
        // near misses.
        Event { audit_id: "secret-get".into(), resource: "secrets", name: Some("tls"), ..at() },
        Event {
            audit_id: "secret-list".into(),
            verb: "list",
            resource: "secrets",
            namespace: None,
            name: None,
            ..at()
        },
        Event {
            audit_id: "secret-refused".into(),
            resource: "secrets",
            name: Some("tls"),
            impersonated: Some("eve"),
            code: 403,
            decision: Some("forbid"),
            ..at()
        },
        Event {
            audit_id: "secret-early".into(),
            resource: "secrets",
            stage: "RequestReceived",
            code: 0,
            ..at()
        },
        Event { audit_id: "other-group".into(), resource: "secrets", group: Some("example.com"), ..at() },
        Event { audit_id: "config-map".into(), resource: "configmaps", ..at() },
        // Sessions: one that starts and ends, one that is refused, one through the node's proxy;
        // and a plain proxy request.
        Event { audit_id: "exec".into(), stage: "ResponseStarted", code: 101, ..with(at(), &exec) },
        Event { audit_id: "exec".into(), code: 101, ..with(at(), &exec) },
        Event { audit_id: "exec-refused".into(), code: 403, decision: Some("forbid"), ..with(at(), &exec) },
        Event {
            audit_id: "node-exec".into(),
            resource: "nodes",
            subresource: Some("proxy"),
            name: Some("node-1"),
            namespace: None,
            uri: "/api/v1/nodes/node-1/proxy/run/shop/web-0/web?cmd=id",
            ..at()
        },
        Event {
            audit_id: "node-stats".into(),
            resource: "nodes",
            subresource: Some("proxy"),
            name: Some("node-1"),
            uri: "/api/v1/nodes/node-1/proxy/stats",
            ..at()
        },
        // Changes of RBAC: a binding, a binding that fails, a read, and the deletion of a role.
        Event {
            audit_id: "binding".into(),
            resource: "clusterrolebindings",
            namespace: None,
            name: None,
            code: 201,
            ..with(at(), &rbac)
        },
        Event {
            audit_id: "binding-refused".into(),
            resource: "clusterrolebindings",
            namespace: None,
            name: None,
            code: 403,
            decision: Some("allow"),
            ..with(at(), &rbac)
        },
        Event {
            audit_id: "binding-read".into(),
            resource: "clusterrolebindings",
            group: Some("rbac.authorization.k8s.io"),
            ..at()
        },
        Event {
            audit_id: "role-deleted".into(),
            verb: "delete",
            resource: "roles",
            group: Some("rbac.authorization.k8s.io"),
            name: Some("reader"),
            ..at()
        },
        // Failed requests, in addition to those above.
        Event {
            audit_id: "no-token".into(),
            user: "",
            code: 401,
            decision: None,
            resource: "",
            namespace: None,
            name: None,
            uri: "/version",
            ..at()
        },
        Event { audit_id: "not-found".into(), code: 404, ..at() },
    ];
    archive(&rows, noon(3, 3))
});

#[test]
fn secret_access_is_every_request_for_secrets() {
    assert_eq!(
        csv(
            &STORIES,
            "SELECT audit_id, actor, user_name, source_ip, scope, succeeded FROM secret_access ORDER BY stage_timestamp"
        ),
        "audit_id,actor,user_name,source_ip,scope,succeeded\n\
         secret-get,alice,alice,10.0.0.7,one,true\n\
         secret-list,alice,alice,10.0.0.7,cluster,true\n\
         secret-refused,eve,alice,10.0.0.7,one,false\n"
    );
}

#[test]
fn exec_sessions_show_commands_and_phases() {
    assert_eq!(
        csv(
            &STORIES,
            "SELECT audit_id, resource, name, container, command, stdin, tty, phase FROM exec_sessions ORDER BY stage_timestamp"
        ),
        "audit_id,resource,name,container,command,stdin,tty,phase\n\
         exec,pods,web-0,web,sh -c 'cat /etc/passwd',true,false,started\n\
         exec,pods,web-0,web,sh -c 'cat /etc/passwd',true,false,ended\n\
         exec-refused,pods,web-0,web,sh -c 'cat /etc/passwd',true,false,refused\n\
         node-exec,nodes,node-1,,id,,,ended\n"
    );
}

#[test]
fn rbac_changes_show_who_was_granted_what() {
    assert_eq!(
        csv(
            &STORIES,
            "SELECT audit_id, verb, resource, name, role_kind, role_name, json_get_str(subjects, 0, 'name') AS subject, succeeded FROM rbac_changes ORDER BY stage_timestamp"
        ),
        "audit_id,verb,resource,name,role_kind,role_name,subject,succeeded\n\
         binding,create,clusterrolebindings,oops,ClusterRole,cluster-admin,mallory,true\n\
         binding-refused,create,clusterrolebindings,oops,ClusterRole,cluster-admin,mallory,false\n\
         role-deleted,delete,roles,reader,,,,true\n"
    );
}

#[test]
fn auth_failures_tell_their_kinds_apart() {
    assert_eq!(
        csv(&STORIES, "SELECT audit_id, failure FROM auth_failures ORDER BY stage_timestamp"),
        "audit_id,failure\n\
         secret-refused,forbidden\n\
         exec-refused,forbidden\n\
         binding-refused,not admitted\n\
         no-token,unauthenticated\n"
    );
}

/// Views of changes show writes. They leave out reads, and requests of which only the arrival is
/// recorded. A request is unfinished if none of its later stages is in the archive.
#[test]
fn changes_and_what_did_not_end_have_views() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let location = folder.path().join("archive");
    let event = |id: &str, stage: &str, verb: &str, reference: &str, second: u32, rest: &str| {
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"{id}","stage":"{stage}","requestURI":"/{id}","verb":"{verb}","user":{{"username":"alice"}},"sourceIPs":["10.0.0.7"],"objectRef":{{{reference}}},{rest}"requestReceivedTimestamp":"2026-03-02T12:00:{second:02}.000001Z","stageTimestamp":"2026-03-02T12:00:{second:02}.000001Z"}}"#
        )
    };
    let ok = r#""responseStatus":{"metadata":{},"code":200},"#;
    let pod = r#""resource":"pods","namespace":"shop","name":"web-0","apiVersion":"v1""#;
    let status =
        r#""resource":"pods","namespace":"shop","name":"web-0","apiVersion":"v1","subresource":"status""#;
    let exec =
        r#""resource":"pods","namespace":"shop","name":"web-0","apiVersion":"v1","subresource":"exec""#;
    let job = r#""resource":"cronjobs","namespace":"shop","apiGroup":"batch","apiVersion":"v1""#;
    let config = r#""resource":"configmaps","namespace":"shop","name":"c","apiVersion":"v1""#;
    let policy = r#""resource":"networkpolicies","namespace":"shop","name":"n","apiGroup":"networking.k8s.io","apiVersion":"v1""#;
    let body = |object: &str| format!(r#"{ok}"requestObject":{object},"#);
    let template = r#"{"metadata":{"name":"nightly"},"spec":{"jobTemplate":{"spec":{"template":{"spec":{"serviceAccountName":"etl","containers":[{"name":"a","image":"i"}]}}}}}}"#;
    let denied = r#""responseStatus":{"metadata":{},"code":302},"annotations":{"authentication.openshift.io/decision":"deny","authentication.openshift.io/username":"bob"},"#;
    let allowed = denied.replace("deny", "allow");
    let (whole, arrived) = ("ResponseComplete", "RequestReceived");
    let lines = [
        event("pod-deleted", whole, "delete", pod, 1, ok),
        event("pod-read", whole, "get", pod, 2, ok),
        event("pod-status", whole, "patch", status, 3, ok),
        event("job-made", whole, "create", job, 4, &body(template)),
        event("config-changed", whole, "update", config, 5, &body(r#"{"data":{"a":"b"}}"#)),
        event("config-read", whole, "list", config, 6, ok),
        event(
            "policy-opened",
            whole,
            "patch",
            policy,
            7,
            &body(r#"{"spec":{"podSelector":{},"ingress":[{}]}}"#),
        ),
        event("policy-read", whole, "watch", policy, 8, ok),
        event("lost", arrived, "patch", pod, 9, ""),
        event("ended", arrived, "patch", pod, 10, ""),
        event("ended", whole, "patch", pod, 10, ok),
        // Another request with the same id does not finish this one.
        event("borrowed", arrived, "patch", pod, 11, ""),
        event("borrowed", whole, "patch", pod, 12, ok),
        event("watching", arrived, "watch", pod, 13, ""),
        event("in-a-pod", arrived, "create", exec, 14, ""),
        event("login-denied", whole, "get", "", 15, denied),
        event("login-allowed", whole, "get", "", 16, &allowed),
    ];
    let path = write(folder.path(), "audit.log", (lines.join("\n") + "\n").as_bytes());
    expect_code(&mut ingest(&location, &[&path]), 0);
    let answer = |sql: &str| csv(&folder, &format!("{sql} ORDER BY stage_timestamp"));
    assert_eq!(
        answer(
            "SELECT audit_id, resource, name, service_account, json_get_str(containers, 0, 'image') AS image, succeeded FROM pod_changes"
        ),
        "audit_id,resource,name,service_account,image,succeeded\n\
         pod-deleted,pods,web-0,,,true\n\
         job-made,cronjobs,nightly,etl,i,true\n\
         ended,pods,web-0,,,true\n\
         borrowed,pods,web-0,,,true\n"
    );
    assert_eq!(
        answer("SELECT audit_id, json_get_str(data, 'a') AS a FROM configmap_changes"),
        "audit_id,a\nconfig-changed,b\n"
    );
    assert_eq!(
        answer("SELECT audit_id, applies_to, ingress FROM network_policy_changes"),
        "audit_id,applies_to,ingress\npolicy-opened,{},[{}]\n"
    );
    assert_eq!(answer("SELECT audit_id FROM unfinished_requests"), "audit_id\nlost\nborrowed\n");
    assert_eq!(
        answer(
            "SELECT audit_id FROM unfinished_requests WHERE request_received_timestamp < '2026-03-02T12:00:11Z'"
        ),
        "audit_id\nlost\n"
    );
    assert_eq!(
        answer("SELECT audit_id, failure, login_name FROM auth_failures"),
        "audit_id,failure,login_name\nlogin-denied,login,bob\n"
    );
}

#[test]
fn columns_named_like_keywords_need_no_quotes() {
    assert_eq!(
        csv(
            &STORIES,
            "SELECT verb, cluster, level FROM events WHERE cluster = 'prod' AND name = 'reader' GROUP BY verb, cluster, level ORDER BY cluster"
        ),
        "verb,cluster,level\ndelete,prod,Request\n"
    );
}

fn script(folder: &TempDir, input: &str) -> (String, String, Option<i32>) {
    let state = tempfile::tempdir().expect("a temporary folder");
    let mut child = strongroom()
        .args(["sql", "--archive"])
        .arg(folder.path().join("archive"))
        .env("XDG_STATE_HOME", state.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // The write may fail: a script that ends early closes the pipe.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("an end");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[test]
fn scripts_run_statement_by_statement() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let included = write(folder.path(), "i.sql", b"select 'included'\n  as i;");
    let target = folder.path().join("o.txt");
    let input = format!(
        "\\f csv\nselect count(*) as n\nfrom events; select ';' as s;\n\\i {}\n\\o {}\nselect 'in the file' as f;\n\\o\n\\dv\n\\d alerts\nselect 'last' as l",
        included.display(),
        target.display()
    );
    let (out, err, code) = script(&STORIES, &input);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.starts_with("n\n17\ns\n;\ni\nincluded\nauth_failures")
            || out.starts_with("n\n17\ns\n;\ni\nincluded\nsecret_access"),
        "{out}"
    );
    assert!(out.contains("column_name,data_type,is_nullable\nalert_id,"), "{out}");
    assert!(out.ends_with("l\nlast\n"), "{out}");
    assert_eq!(std::fs::read_to_string(&target).expect("the file"), "f\nin the file\n");
}

#[test]
fn a_session_sees_what_was_sealed_since() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let location = folder.path().join("archive");
    let seal = |name: &str, events: u64| {
        let path = write(folder.path(), name, &log(events, events));
        expect_code(&mut ingest(&location, &[&path]), 0);
    };
    seal("a.log", 300);
    let mut child = strongroom()
        .args(["sql", "--archive"])
        .arg(&location)
        .env("XDG_STATE_HOME", folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut questions = child.stdin.take().expect("a pipe");
    let mut answers = std::io::BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut ask = |sql: &str| -> i64 {
        writeln!(questions, "\\f csv\n{sql};").expect("the session reads");
        let mut answer = answers.by_ref().map(|line| line.expect("a line"));
        assert_eq!(answer.next().as_deref(), Some("n"));
        answer.next().expect("a number").parse().expect("a number")
    };
    let events = "SELECT count(*) AS n FROM events";
    let first = ask(events);
    assert_eq!(ask(events), first);
    assert_eq!(ask("SELECT count(DISTINCT source) AS n FROM events"), 1);
    seal("b.log", 200);
    assert_eq!(ask(events), number(&location, "SELECT count(*) FROM events"));
    assert!(ask(events) > first);
    assert_eq!(ask("SELECT count(DISTINCT source) AS n FROM events"), 2);
    // Both tables in one query are read in the same state of the archive.
    assert_eq!(ask("SELECT count(*) - (SELECT count(*) FROM events) AS n FROM events"), 0);
    drop(questions);
    assert!(child.wait().expect("an end").success());
}

#[test]
fn a_script_ends_at_its_first_error() {
    let (out, err, code) = script(&STORIES, "select 1 as a;\nselect nope from events;\nselect 2 as b;\n");
    assert_eq!(code, Some(1));
    assert!(out.contains('a') && !out.contains('b'), "{out}");
    assert!(err.contains("there is no column \"nope\""), "{err}");
    let (_, err, code) = script(&STORIES, "\\nonsense\n");
    assert_eq!(code, Some(1));
    assert!(err.contains("\\?"), "{err}");
    let (out, _, code) = script(&STORIES, "\\q\nselect 1;");
    assert_eq!((out.as_str(), code), ("", Some(0)));
}

/// Queries over an ingested log have the same answers as counting in the lines of the log.
#[test]
fn answers_agree_with_the_log() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bytes = log(20_000, 11);
    let path = write(folder.path(), "audit.log", &bytes);
    let location = folder.path().join("archive");
    expect_code(&mut ingest(&location, &[&path]), 0);
    let lines: Vec<serde_json::Value> = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect();
    let text = |line: &serde_json::Value, pointer: &str| {
        line.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    let count =
        |wanted: &dyn Fn(&serde_json::Value) -> bool| lines.iter().filter(|line| wanted(line)).count() as i64;

    let secrets = count(&|line| {
        text(line, "/objectRef/resource") == "secrets"
            && text(line, "/objectRef/apiGroup").is_empty()
            && text(line, "/stage") != "RequestReceived"
    });
    assert!(secrets > 0);
    assert_eq!(number(&location, "SELECT count(*) FROM secret_access"), secrets);
    let failures = count(&|line| {
        matches!(line.pointer("/responseStatus/code").and_then(serde_json::Value::as_i64), Some(401 | 403))
    });
    assert!(failures > 0);
    assert_eq!(number(&location, "SELECT count(*) FROM events WHERE response_code IN (401, 403)"), failures);
    let actors: HashSet<String> = lines
        .iter()
        .map(|line| match text(line, "/impersonatedUser/username") {
            name if name.is_empty() => text(line, "/user/username"),
            name => name,
        })
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(number(&location, "SELECT count(DISTINCT actor) FROM events"), actors.len() as i64);
    let addresses: HashSet<String> = lines
        .iter()
        .filter_map(|line| line.pointer("/sourceIPs")?.as_array()?.last()?.as_str().map(str::to_owned))
        .collect();
    assert_eq!(number(&location, "SELECT count(DISTINCT source_ip) FROM events"), addresses.len() as i64);
    for address in addresses.iter().take(50) {
        let expected = count(&|line| {
            let last = line.pointer("/sourceIPs").and_then(|ips| ips.as_array()?.last()?.as_str());
            last == Some(address)
        });
        let sql = format!("SELECT count(*) FROM events WHERE source_ip = '{address}'");
        assert_eq!(number(&location, &sql), expected, "{address}");
    }
    for (verb, expected) in ["get", "list", "watch", "create", "delete"]
        .map(|verb| (verb, count(&|line| text(line, "/verb") == verb)))
    {
        assert_eq!(
            number(&location, &format!("SELECT count(*) FROM events WHERE verb = '{verb}'")),
            expected,
            "{verb}"
        );
    }
    // One request is found by its id, as alerts name it. Bloom filters must not hide it.
    for line in lines.iter().step_by(997) {
        let id = text(line, "/auditID");
        let expected = count(&|other| text(other, "/auditID") == id);
        assert_eq!(
            number(&location, &format!("SELECT count(*) FROM events WHERE audit_id = '{id}'")),
            expected,
            "{id}"
        );
    }
    assert_eq!(number(&location, "SELECT count(*) FROM events WHERE audit_id = 'no-such-id'"), 0);
    let (out, _) = expect_code(
        strongroom()
            .args([
                "query",
                "--format",
                "csv",
                "SELECT source_offset FROM events ORDER BY source_offset",
                "--archive",
            ])
            .arg(&location),
        0,
    );
    assert_eq!(out.lines().count() - 1, lines.len());
}
