//! Tests of retention and drops: at whatever step a command dies, the same command finishes the
//! work, and nothing is removed that must be kept.

mod activity;
#[path = "../../archive/src/tests/rows.rs"]
mod rows;

use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray as _;
use chrono::{DateTime, Datelike as _, Duration, Months, NaiveDate, TimeZone as _, Utc};
use proptest::prelude::*;
use strongroom_archive::fail::Step;
use strongroom_archive::records::holds::Holds;
use strongroom_archive::records::text::retention_end;
use strongroom_archive::{Archive, LogError, Records, encode, encode_records};
use strongroom_proof::verify::{self, Watch, verify};
use strongroom_schemas::record::leaf_hash;
use strongroom_schemas::{Period, Table, VolumeId, events};
use strongroom_store::{durable, layout};
use strongroom_tlog::{PrivateKey, Signer};

use self::rows::{PARTITION, Shape, batch, counts, create, folder, options, position, read_all, step, tree};
use crate::drop::drop_with;
use crate::extend::extend_with;
use crate::hold::{place, refresh, release};
use crate::{DropRequest, IssueKind, RetentionError, Scope, Status, Work, policy, status};

const OTHER: &str = "file/ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";
/// Age of the old volume of these tests, in years.
const AGO: i32 = 8;

struct NoRecords;

impl Records for NoRecords {
    fn each(&self, _: &RecordBatch, _: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        Ok(())
    }

    fn compare(
        &self,
        _: Table,
        _: &RecordBatch,
        _: u32,
        _: &mut dyn FnMut(&[u8]),
        _: &mut dyn FnMut(usize, &dyn std::fmt::Display),
    ) -> Result<(), String> {
        Ok(())
    }
}

impl Watch for NoRecords {}

fn old_year() -> i32 {
    Utc::now().year() - AGO
}

fn long_ago() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(old_year(), 3, 2, 13, 0, 0).single().expect("a time")
}

fn signer() -> Arc<Signer> {
    Arc::new(Signer::Key(PrivateKey::generate("test").expect("randomness")))
}

/// Returns the kinds of the findings, without those that are caused by the made-up rows of these
/// tests.
fn kinds(archive: &Archive) -> Vec<&'static str> {
    let options = verify::Options { threads: 2, ..verify::Options::default() };
    let report = verify(archive, &options, &NoRecords, &NoRecords).expect("readable");
    let kinds: Vec<&str> = report.findings.iter().map(|finding| finding.kind.as_str()).collect();
    kinds
        .into_iter()
        .filter(|kind| !["rows_missing", "rows_extra", "counts", "record_changed"].contains(kind))
        .collect()
}

fn look(archive: &Archive) -> Status {
    status(archive, Arc::new(|_, _| ())).expect("readable")
}

fn work(archive: &Archive, dies_at: Option<usize>) -> Work {
    let work = Work::of(archive, Arc::new(|_, _| ()));
    if let Some(nth) = dies_at {
        work.fail_points.arm(Step::Retention, nth, io::ErrorKind::StorageFull);
    }
    work
}

fn run<T: Send + 'static, F>(
    archive: &Archive,
    dies_at: Option<usize>,
    what: impl FnOnce(Work) -> F + Send + 'static,
) -> Result<T, RetentionError>
where
    F: Future<Output = Result<T, RetentionError>> + Send + 'static,
{
    work(archive, dies_at).run(what)
}

fn drop_it(archive: &Archive, year: i32, dies_at: Option<usize>) -> Result<u64, RetentionError> {
    run(archive, dies_at, move |work| async move {
        let volume = VolumeId { table: Table::Events, period: Period::of_year(year) };
        let drop = DropRequest { volume, reason: "past its time".to_owned(), is_clock_checked: false };
        Ok(drop_with(&work, &drop).await?.removed)
    })
}

fn place_it(archive: &Archive, name: &'static str, scope: Scope) -> Result<u64, RetentionError> {
    run(archive, None, move |work| async move { Ok(place(&work, name, "a case", &scope).await?.files) })
}

fn rows_of(
    archive: &Archive,
    clock: fn() -> DateTime<Utc>,
    partition: &'static str,
    from: i64,
    time: DateTime<Utc>,
) {
    let mut writer = archive.writer_with(options(clock), || {}).expect("the lock is free");
    let first_time = time.timestamp_micros();
    let shape =
        Shape { rows: 20, partition, first_offset: from, first_time, null_percent: 0, ..Shape::default() };
    for table in [Table::Events, Table::Alerts] {
        let rows = batch(table, &shape);
        let encoded = match table {
            Table::Events => encode_records(rows, &[leaf_hash(b"made up"); 20], time),
            _ => encode(table, rows, time),
        };
        let encoded = encoded.expect("encoded");
        encoded.into_iter().for_each(|group| writer.append(group).expect("appended"));
    }
    let previous = (from > 0).then(|| position(from));
    writer.seal(&[step(partition, previous, from + 20_000)], counts(20)).expect("sealed");
}

/// Sets the times in the commits of one volume of a table to `time`: the volume of the year of
/// `time`.
fn dated(archive: &Archive, table: Table, time: DateTime<Utc>) {
    let volume = layout::volume(archive.root(), VolumeId { table, period: Period::of_year(time.year()) });
    for name in durable::names(&layout::delta_log(&volume)).expect("names") {
        let path = layout::delta_log(&volume).join(name);
        let text = std::fs::read_to_string(&path).expect("text");
        let start = text.find("\"timestamp\":").expect("a time") + "\"timestamp\":".len();
        let end = start + text[start..].find([',', '}']).expect("the end of the value");
        let text = format!("{}{}{}", &text[..start], time.timestamp_millis(), &text[end..]);
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, text).expect("written");
    }
}

/// Makes an archive with volumes of an old year and of the present year, a source that continues
/// from the old year to the present one, and a source that is only in the old year.
fn aged(folder: &Path) -> (Archive, Arc<Signer>) {
    let (archive, signer) = (create(folder), signer());
    rows_of(&archive, long_ago, PARTITION, 0, long_ago());
    rows_of(&archive, long_ago, OTHER, 0, long_ago());
    // The library dates commits with the machine's clock.
    Table::ALL.into_iter().for_each(|table| dated(&archive, table, long_ago()));
    let archive = archive.signed_by(Arc::clone(&signer));
    rows_of(&archive, Utc::now, PARTITION, 20_000, Utc::now());
    archive.sign_logs().expect("signed");
    (archive, signer)
}

#[test]
fn a_drop_that_dies_anywhere_is_finished_by_the_next() {
    let mut deaths = 0;
    for nth in 0.. {
        let folder = folder();
        let (archive, _) = aged(folder.path());
        assert_eq!(kinds(&archive), [""; 0]);
        let files = || {
            tree(archive.root())
                .iter()
                .filter(|path| path.starts_with(format!("events/{}", old_year())))
                .count()
        };
        let before = files();
        assert!(look(&archive).volumes.iter().any(|volume| volume.is_past));
        let died = drop_it(&archive, old_year(), Some(nth));
        let (after, is_recorded) =
            (files(), archive.root().join(format!("_dropped/events-{}", old_year())).exists());
        assert!(is_recorded || after == before, "removed without a record");
        let status = look(&archive);
        if died.is_ok() {
            assert_eq!((after, status.issues.len()), (0, 0));
            break;
        }
        deaths += 1;
        // Readers see all of the volume or nothing; `status` and `verify` report that some of it
        // remains.
        let rows = archive.snapshot(Table::Events).expect("readable").rows();
        assert_eq!(rows, if is_recorded { 20 } else { 60 });
        let expected: &[&str] = if is_recorded { &["drop_unfinished"] } else { &[] };
        assert_eq!(kinds(&archive), expected, "{nth}");
        assert_eq!(status.issues.iter().map(|issue| issue.kind.as_str()).collect::<Vec<_>>(), expected);
        drop_it(&archive, old_year(), None).expect("finished");
        assert_eq!((files(), kinds(&archive).len()), (0, 0), "{nth}");
        assert!(matches!(drop_it(&archive, old_year(), None), Ok(0)), "nothing is left to do");
    }
    assert!(deaths >= 9, "it died {deaths} times");
}

#[test]
fn what_comes_behind_a_dropped_volume_goes_on() {
    let folder = folder();
    let (archive, signer) = aged(folder.path());
    drop_it(&archive, old_year(), None).expect("dropped");
    // Sources continue where they were, including the source that is only in the dropped volume.
    let mut writer = archive.writer().expect("the lock is free");
    assert_eq!(writer.position(Table::Events, OTHER).expect("readable"), Some(position(20_000)));
    assert_eq!(writer.position(Table::Events, PARTITION).expect("readable"), Some(position(40_000)));
    drop(writer);
    rows_of(&archive, Utc::now, OTHER, 20_000, Utc::now());
    assert_eq!(kinds(&archive), [""; 0]);
    let sources = archive.sources().expect("sources");
    let begin = |partition: &str| {
        sources.iter().find(|source| source.partition == partition).map(|source| source.dropped_before)
    };
    assert_eq!((begin(PARTITION), begin(OTHER)), (Some(20_000), Some(20_000)));
    // The record of a key rotation does not name the log of the dropped volume, and the drop record
    // stays valid. The volumes of the other tables from that year still exist.
    let next = self::signer();
    archive.rotate_key(Arc::clone(&next)).expect("rotated");
    assert_eq!(kinds(&archive), [""; 0]);
    assert_eq!(look(&archive).dropped.len(), 1);
    let other = archive.signed_by(signer);
    let refused = run(&other, None, |work| async move {
        let volume = VolumeId { table: Table::Alerts, period: Period::of_year(old_year()) };
        drop_with(&work, &DropRequest { volume, reason: "r".to_owned(), is_clock_checked: false }).await
    });
    assert!(matches!(refused, Err(RetentionError::Log(LogError::KeyNotCurrent { .. }))), "{refused:?}");
}

#[test]
fn a_drop_is_refused_wherever_it_must_be() {
    let folder = folder();
    let (archive, signer) = aged(folder.path());
    let reasons = |year| match drop_it(&archive, year, None) {
        Err(RetentionError::NotDropped { reasons, .. }) => reasons.join("; "),
        other => panic!("{other:?}"),
    };
    let before = tree(archive.root());
    assert!(reasons(Utc::now().year()).contains("from the present year"));
    assert!(reasons(Utc::now().year()).contains("it is kept until"));
    assert!(matches!(drop_it(&archive, 2015, None), Err(RetentionError::NoVolume { .. })));
    let keyless = create(folder.path());
    assert!(matches!(drop_it(&keyless, old_year(), None), Err(RetentionError::KeyNeeded)));
    let stranger = archive.clone().signed_by(self::signer());
    let refused = drop_it(&stranger, old_year(), None);
    assert!(matches!(refused, Err(RetentionError::Log(LogError::KeyNotCurrent { .. }))));
    assert_eq!(tree(archive.root()), before, "nothing was touched");

    // More years were promised.
    run(&archive, None, |work| async move { extend_with(&work, AGO as u32 + 2, "a new law").await })
        .expect("extended");
    assert!(reasons(old_year()).contains("10 years are promised"));

    // A commit is missing, or was changed since it was signed.
    let folder = self::folder();
    let (archive, _) = aged(folder.path());
    let commit = layout::commit(
        &layout::volume(
            archive.root(),
            VolumeId { table: Table::Events, period: Period::of_year(old_year()) },
        ),
        1,
    );
    let text = std::fs::read_to_string(&commit).expect("text");
    std::fs::remove_file(&commit).expect("removed");
    assert!(drop_it(&archive, old_year(), None).is_err());
    std::fs::write(&commit, text.replace("numRecords", "numrecords")).expect("written");
    std::fs::remove_dir_all(
        layout::volume(
            archive.root(),
            VolumeId { table: Table::Events, period: Period::of_year(old_year()) },
        )
        .join("_tlog/tile"),
    )
    .expect("removed");
    assert!(matches!(drop_it(&archive, old_year(), None), Err(RetentionError::Log(LogError::Forked { .. }))));
    let _ = signer;
}

#[test]
fn holds_outlast_retention_overlap_and_take_in_what_comes_later() {
    let folder = folder();
    let (archive, _) = aged(folder.path());
    let during = Scope {
        from: Some(long_ago() - Duration::hours(1)),
        to: Some(long_ago() + Duration::hours(1)),
        ..Scope::default()
    };
    let elsewhere = Scope { to: Some(long_ago() - Duration::days(400)), ..Scope::default() };
    assert_eq!(place_it(&archive, "elsewhere", elsewhere).expect("the hold is placed"), 0);
    assert!(look(&archive).volumes.iter().any(|volume| volume.is_past), "no hold covers the old volume yet");
    // Two files of events and two of alerts are from that period.
    assert_eq!(place_it(&archive, "first", during.clone()).expect("the hold is placed"), 4);
    assert_eq!(place_it(&archive, "first", during.clone()).expect("the second time"), 4);
    assert_eq!(
        place_it(&archive, "second", Scope { to: None, ..during.clone() }).expect("the hold is placed"),
        6
    );
    let other = place_it(&archive, "first", Scope::default());
    assert!(matches!(other, Err(RetentionError::HoldDiffers { .. })));
    let held = |archive: &Archive| match drop_it(archive, old_year(), None) {
        Err(RetentionError::NotDropped { reasons, .. }) => reasons.join("; "),
        other => panic!("{other:?}"),
    };
    assert!(held(&archive).contains("\"first\"") && held(&archive).contains("\"second\""));
    assert_eq!((kinds(&archive), look(&archive).issues), (vec![], vec![]));

    // The hold whose period has no end also covers files that are sealed now: `status` reports
    // them, and a refresh adds them.
    rows_of(&archive, Utc::now, OTHER, 20_000, Utc::now());
    let issues = look(&archive).issues;
    assert_eq!(issues.iter().map(|issue| issue.kind).collect::<Vec<_>>(), [IssueKind::HoldOpen]);
    let covered = run(&archive, None, |work| async move { refresh(&work).await }).expect("refreshed");
    assert_eq!(covered.iter().map(|covered| covered.files).collect::<Vec<_>>(), [0, 4, 8]);
    assert_eq!((kinds(&archive), look(&archive).issues), (vec![], vec![]));

    let let_go = |name: &'static str| {
        run(&archive, None, move |work| async move { release(&work, name, "over").await })
    };
    let_go("first").expect("released");
    assert!(!held(&archive).contains("\"first\"") && held(&archive).contains("\"second\""));
    let_go("second").expect("released");
    let_go("second").expect("the second time");
    assert!(matches!(let_go("third"), Err(RetentionError::HoldUnknown { .. })));
    let used = place_it(&archive, "first", during);
    assert!(matches!(used, Err(RetentionError::HoldReleased { .. })));
    assert_eq!(kinds(&archive), [""; 0]);
    drop_it(&archive, old_year(), None).expect("no hold covers the volume any more");
    assert_eq!(kinds(&archive), [""; 0]);
}

#[test]
fn a_hold_that_dies_anywhere_is_finished_by_the_next() {
    for nth in 0.. {
        let folder = folder();
        let (archive, _) = aged(folder.path());
        let placed =
            run(
                &archive,
                Some(nth),
                |work| async move { place(&work, "case", "r", &Scope::default()).await },
            );
        // Once the record of the hold exists, nothing in its scope can be dropped, whether or not
        // the list was written.
        let is_recorded = archive.root().join("_holds/00000001").exists();
        if is_recorded {
            assert!(
                matches!(drop_it(&archive, old_year(), None), Err(RetentionError::NotDropped { .. })),
                "{nth}"
            );
        }
        assert_eq!(kinds(&archive), [""; 0], "{nth}");
        if placed.is_ok() {
            assert_eq!(nth, 2, "the command writes two objects: a record and a list");
            break;
        }
        place_it(&archive, "case", Scope::default()).expect("finished");
        let holds =
            run(&archive, None, |work| async move { Ok(Holds::load(&work.site).await?) }).expect("readable");
        assert_eq!((holds.records, holds.wrong.is_none()), (1, true));
        assert_eq!(look(&archive).issues, []);
    }
}

#[test]
fn a_hold_finds_the_rows_it_is_about() {
    let folder = folder();
    let (archive, _) = aged(folder.path());
    let rows = read_all(&archive, Table::Events, OTHER).expect("rows");
    let user =
        rows.column_by_name(events::USER_NAME).expect("a column").as_string::<i32>().value(0).to_owned();
    let scope = |user: Option<&str>, namespace: Option<&str>| Scope {
        user: user.map(str::to_owned),
        namespace: namespace.map(str::to_owned),
        ..Scope::default()
    };
    assert!(place_it(&archive, "user", scope(Some(&user), None)).expect("the hold is placed") >= 1);
    assert_eq!(
        place_it(&archive, "nobody", scope(Some("nobody at all"), None)).expect("the hold is placed"),
        0
    );
    assert_eq!(place_it(&archive, "nowhere", scope(None, Some("no such"))).expect("the hold is placed"), 0);
    // A file that cannot be read is held: it may have records in scope.
    let file = archive.snapshot(Table::Events).expect("readable").files[0].path.clone();
    let bytes = std::fs::metadata(&file).expect("the file is there").len();
    std::fs::remove_file(&file).expect("removed");
    std::fs::write(&file, vec![0; bytes as usize]).expect("written");
    assert_eq!(
        place_it(&archive, "damaged", scope(Some("nobody at all"), None)).expect("the hold is placed"),
        1
    );
    assert!(matches!(place_it(&archive, "a\nb", Scope::default()), Err(RetentionError::Text { .. })));
    let back = Scope { from: Some(Utc::now()), to: Some(long_ago()), ..Scope::default() };
    assert!(matches!(place_it(&archive, "back", back), Err(RetentionError::Span)));
}

#[test]
fn a_promise_only_grows_and_only_under_the_key() {
    let folder = folder();
    let (archive, _) = aged(folder.path());
    let to = |archive: &Archive, years| {
        run(archive, None, move |work| async move { extend_with(&work, years, "a new law").await })
    };
    assert_eq!(policy(&archive).expect("readable").years, 6);
    assert!(matches!(to(&archive, 5), Err(RetentionError::Shorter { asked: 5, promised: 6 })));
    assert!(matches!(to(&archive, 101), Err(RetentionError::Years { asked: 101 })));
    assert!(matches!(to(&create(folder.path()), 7), Err(RetentionError::KeyNeeded)));
    assert!(to(&archive, 7).expect("extended").is_new);
    assert!(!to(&archive, 7).expect("the second time").is_new);
    assert!(to(&archive, 9).expect("extended").is_new);
    assert!(matches!(to(&archive, 8), Err(RetentionError::Shorter { .. })));
    let known = policy(&archive).expect("readable");
    assert_eq!((known.years, known.records.len()), (9, 2));
    assert_eq!(kinds(&archive), [""; 0]);

    // A party without the key promises a hundred years, or removes a promise.
    let record = archive.root().join("_retention/00000003");
    let text = std::fs::read_to_string(archive.root().join("_retention/00000002")).expect("text");
    let forged = text
        .split("\n\n")
        .next()
        .expect("the text of the record")
        .replace("retention 2", "retention 3")
        .replace("years 9", "years 100");
    std::fs::write(&record, forged + "\n").expect("written");
    assert_eq!(kinds(&archive), ["retention_record"]);
    assert!(policy(&archive).is_err());
    assert_eq!(look(&archive).policy.years, 9, "an invalid record promises nothing");
    std::fs::remove_file(&record).expect("removed");
    std::fs::remove_file(archive.root().join("_retention/00000001")).expect("removed");
    assert_eq!(kinds(&archive), ["retention_record"]);
}

#[test]
fn a_drop_record_that_is_forged_hides_nothing() {
    let folder = folder();
    let (archive, signer) = aged(folder.path());
    let year = Utc::now().year();
    let place = |year: i32| archive.root().join(format!("_dropped/events-{year}"));
    drop_it(&archive, old_year(), None).expect("dropped");
    let (good, state) =
        (std::fs::read(place(old_year())).expect("read"), place(old_year()).with_extension("state"));
    let good_state = std::fs::read(&state).expect("read");
    let write = |path: &Path, bytes: &[u8]| {
        let _ = std::fs::remove_file(path);
        std::fs::write(path, bytes).expect("written");
    };
    // An unsigned record does not hide the volume of the present year.
    let text = String::from_utf8(good.clone()).expect("text");
    write(
        &place(year),
        text.replace(&format!("events/{}", old_year()), &format!("events/{year}")).as_bytes(),
    );
    write(&place(year).with_extension("state"), &good_state);
    assert_eq!(archive.snapshot(Table::Events).expect("readable").rows(), 20);
    assert_eq!(kinds(&archive), ["drop_record"]);
    assert!(matches!(drop_it(&archive, year, None), Err(RetentionError::Record { .. })));
    // An insider signs the record with the right key, but too early.
    let early = text
        .split("\n\n")
        .next()
        .expect("the text of the record")
        .replace(&format!("events/{}", old_year()), &format!("events/{year}"))
        + "\n";
    let name = format!("strongroom/{}/dropped", archive.id());
    let line = signer.sign(&name, &early).expect("signed");
    write(&place(year), format!("{early}\n{line}").as_bytes());
    assert_eq!(archive.snapshot(Table::Events).expect("readable").rows(), 20);
    assert_eq!(kinds(&archive), ["drop_record"]);
    for path in [place(year), place(year).with_extension("state")] {
        std::fs::remove_file(path).expect("removed");
    }
    assert_eq!(kinds(&archive), [""; 0]);
    // Change the state, and then a word of the record.
    write(&state, &[&good_state[..], b" "].concat());
    assert_eq!(kinds(&archive), ["drop_record", "volume_missing"]);
    write(&state, &good_state);
    write(&place(old_year()), text.replace("past its time", "past its date").as_bytes());
    assert_eq!(kinds(&archive), ["drop_record", "volume_missing"]);
    // A volume is missing without a drop record, although the record of a key rotation named its
    // log.
    let folder = self::folder();
    let (archive, _) = aged(folder.path());
    archive.rotate_key(self::signer()).expect("rotated");
    assert_eq!(kinds(&archive), [""; 0]);
    std::fs::remove_dir_all(layout::volume(
        archive.root(),
        VolumeId { table: Table::Events, period: Period::of_year(old_year()) },
    ))
    .expect("removed");
    assert!(kinds(&archive).contains(&"volume_missing"));
}

/// Adds calendar years by counting days, one year at a time. This is slow, but shares no mistake
/// with `retention_end`.
fn counted(from: NaiveDate, years: u32) -> NaiveDate {
    let is_leap = |year: i32| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut date = from;
    for _ in 0..years {
        // From March on, the next 29th of February is in the next calendar year.
        let passes = if date.month() > 2 {
            is_leap(date.year() + 1)
        } else {
            is_leap(date.year()) && (date.month(), date.day()) != (2, 29)
        };
        let leap_day = (date.month(), date.day()) == (2, 29);
        date += Duration::days(if leap_day || !passes { 365 } else { 366 });
    }
    date
}

proptest! {
    #[test]
    fn a_retention_is_calendar_years_and_a_day(day in 0i64..40_000, second in 0i64..86_400, years in 1u32..=100) {
        let from = NaiveDate::from_ymd_opt(1990, 1, 1).expect("a day") + Duration::days(day);
        let at = from.and_hms_opt(0, 0, 0).expect("midnight").and_utc() + Duration::seconds(second);
        let end = retention_end(at, years).expect("within the calendar");
        // UTC has no daylight saving time: the time of day stays, on every day of every year.
        prop_assert_eq!(end.time(), at.time());
        let is_leap_day = (from.month(), from.day()) == (2, 29);
        let same_day = NaiveDate::from_ymd_opt(from.year() + years as i32, from.month(), from.day());
        let expected = same_day.unwrap_or_else(|| NaiveDate::from_ymd_opt(from.year() + years as i32, 3, 1).expect("a day"));
        prop_assert_eq!(end.date_naive(), expected + Duration::days(1));
        prop_assert!(end - at >= Duration::days(i64::from(years) * 365 + i64::from(years / 4) - 1));
        if !is_leap_day {
            prop_assert_eq!(counted(from, years) + Duration::days(1), end.date_naive());
        }
        // Neither more years nor a later start makes the end earlier.
        prop_assert!(retention_end(at, years + 1) > Some(end));
        prop_assert!(retention_end(at + Duration::seconds(1), years) >= Some(end));
        prop_assert!(end >= at + Months::new(12 * years));
    }
}

#[test]
fn from_a_leap_day_it_runs_into_march() {
    let at = |y, m, d| Utc.with_ymd_and_hms(y, m, d, 12, 0, 0).single().expect("a time");
    assert_eq!(retention_end(at(2024, 2, 29), 6), Some(at(2030, 3, 2)));
    assert_eq!(retention_end(at(2024, 2, 29), 4), Some(at(2028, 3, 1)));
    assert_eq!(retention_end(at(2096, 2, 29), 4), Some(at(2100, 3, 2)), "2100 is not a leap year");
    assert_eq!(retention_end(at(2026, 2, 28), 6), Some(at(2032, 2, 29)));
}
