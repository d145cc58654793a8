//! Rows that have a form, a mark or faults: what they render to, and what is refused.
//!
//! Method: the vectors that every reader of `docs/format.md` shares; serialisers that know nothing
//! of forms, whose bytes a hand-written template must give; and archives of such rows, and of rows
//! that were redacted, which are exported and verified.

mod dialects;
mod redacted;
mod sealed;

use arrow_array::RecordBatch;
use dialects::{DIALECTS, Dialect, Event, batch, event, row};
use proptest::prelude::*;
use serde_json::Value as Json;
use strongroom_archive::Records as _;
use strongroom_decode::render::{Renderer, RowFault};
use strongroom_ingest::export::EventRecords;
use strongroom_schemas::Table;
use strongroom_schemas::events::index;
use strongroom_schemas::form::{FORM_ITEMS_BYTES_MAX, MAPPED};
use strongroom_schemas::format::EVENTS_FORMAT;

fn vectors() -> Json {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/forms.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// Returns the row of a vector. Columns that the vector leaves out are null.
fn row_of(case: &Json) -> RecordBatch {
    let mut row = case["columns"].as_object().expect("an object").clone();
    for name in ["form", "form_values", "raw", "shape"] {
        row.insert(name.to_owned(), case[name].clone());
    }
    batch(&[row])
}

fn rendered(rows: &RecordBatch) -> Result<Vec<u8>, RowFault> {
    let mut record = Vec::new();
    Renderer::new(rows).expect("a batch of events").record(0, &mut record).map(|()| record)
}

#[test]
fn records_of_the_vectors() {
    for case in vectors()["records"].as_array().expect("a list") {
        let record = rendered(&row_of(case)).unwrap_or_else(|fault| panic!("{}: {fault:?}", case["name"]));
        assert_eq!(base64(&record), case["record"].as_str().expect("text"), "{}", case["name"]);
    }
}

#[test]
fn what_the_vectors_refuse() {
    for case in vectors()["refused"].as_array().expect("a list") {
        let fault = rendered(&row_of(case)).expect_err(case["name"].as_str().expect("text"));
        assert_eq!(fault.as_str(), case["fault"].as_str().expect("text"), "{}", case["name"]);
    }
}

#[test]
fn a_row_that_is_wrong_is_named_and_counts_as_an_empty_record() {
    let mut rows = Vec::new();
    for (form, extra) in [
        (r#"{"auditID":${audit_id}}"#, serde_json::json!({})),
        (r#"{"auditID":${audit_id},"verb":"delete"}"#, serde_json::json!({})),
        (r#"{"auditID":${audit_id}}"#, serde_json::json!({"redaction": "{}", "faults": ["odd"]})),
        (r#"{"auditID":${audit_id}}"#, serde_json::json!({"form": null, "form_values": ["x"]})),
    ] {
        let mut row = serde_json::json!({"audit_id": "x", "form": form});
        row.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        rows.push(row.as_object().expect("an object").clone());
    }
    let rows = batch(&rows);
    let (mut lengths, mut wrong) = (Vec::new(), Vec::new());
    EventRecords
        .compare(
            Table::Events,
            &rows,
            EVENTS_FORMAT,
            &mut |record| lengths.push(record.len()),
            &mut |row, detail| {
                wrong.push((row, detail.to_string()));
            },
        )
        .expect("columns of events");
    assert_eq!(lengths.iter().map(|length| *length > 0).collect::<Vec<_>>(), [true, false, true, true]);
    assert_eq!(
        wrong,
        [
            (1, "its form does not give a record: named".to_owned()),
            (2, "its redaction is not a redaction mark".to_owned()),
            (2, "its faults are not a list of faults".to_owned()),
            (2, "not what its record says: faults".to_owned()),
            (3, "it has form_values without a form".to_owned()),
        ]
    );
    let error = EventRecords.each(&rows, &mut |_| ()).expect_err("a row without a record");
    assert_eq!(error, "row 1 of a batch does not give a record: named");
}

#[test]
fn rows_from_before_there_were_forms_have_none() {
    let row = serde_json::json!({"audit_id": "x", "level": "Metadata"});
    let rows = batch(&[row.as_object().expect("an object").clone()]);
    let old = rows.project(&(0..index::FORM).collect::<Vec<_>>()).expect("the first columns");
    let record = rendered(&rows).expect("the null form");
    assert_eq!(rendered(&old), Ok(record));
    let renderer = Renderer::new(&old).expect("an old batch of events");
    assert!(!renderer.is_redacted(0));
    assert_eq!(renderer.wrong_marks(0).count(), 0);
    let less = rows.project(&(0..index::FRAME_AFTER).collect::<Vec<_>>()).expect("the first columns");
    assert!(Renderer::new(&less).is_err());
}

#[test]
fn items_have_a_bound_together() {
    let rows = |bytes: usize| {
        let row = serde_json::json!({
            "audit_id": "x",
            "form": r#"{"auditID":${audit_id},"a":["${}","${}"]}"#,
            "form_values": ["x".repeat(bytes - 10), "x".repeat(10)],
        });
        batch(&[row.as_object().expect("an object").clone()])
    };
    assert!(rendered(&rows(FORM_ITEMS_BYTES_MAX)).is_ok());
    assert_eq!(rendered(&rows(FORM_ITEMS_BYTES_MAX + 1)), Err(RowFault::Item));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_template_of_a_serialiser_gives_its_bytes(event in event(), varying in "[a-z0-9 ]{0,8}", number in any::<i32>()) {
        for dialect in DIALECTS {
            let (columns, record) = row(dialect, &event, &varying, number);
            let rows = batch(&[columns]);
            let found = rendered(&rows);
            prop_assert_eq!(found.as_deref().map(String::from_utf8_lossy), Ok(String::from_utf8_lossy(&record)), "{:?}", dialect);
            let mut own = Vec::new();
            let renderer = Renderer::new(&rows).expect("a batch of events");
            prop_assert_eq!(renderer.event_of_form(0, &mut own), Ok(true));
            match dialect {
                Dialect::Nested => {
                    let outer: Json = serde_json::from_slice(&record).expect("JSON");
                    let message = outer["message"].as_str().expect("text");
                    let log = message.split_once(" F ").expect("a prefix").1;
                    let log: Json = serde_json::from_str(log).expect("JSON");
                    prop_assert_eq!(log["log"].as_str().map(str::trim_end).map(str::as_bytes), Some(&own[..]));
                }
                _ => prop_assert_eq!(own, record),
            }
        }
    }

    /// For any text as a form, nothing panics, and a rendered record has the columns' values at
    /// their members.
    #[test]
    fn damaged_forms_are_refused_or_harmless(event in event(), at in any::<prop::sample::Index>(), with in "[\"{}$:,<>\\\\a-z\\[\\]]{0,3}", cut in 0_usize..4) {
        for dialect in DIALECTS {
            let (mut columns, _) = row(dialect, &event, "x", 1);
            let mut form: Vec<char> = columns["form"].as_str().expect("text").chars().collect();
            let at = at.index(form.len());
            let end = (at + cut).min(form.len());
            form.splice(at..end, with.chars());
            columns["form"] = form.into_iter().collect::<String>().into();
            let Ok(record) = rendered(&batch(&[columns])) else { continue };
            // A nested wrapper is left out here: its event is a string.
            if let Ok(Json::Object(members)) = serde_json::from_slice(&record)
                && let Some(verb) = members.get("verb")
            {
                prop_assert_eq!(verb.as_str(), verb_of(&event), "{:?}", String::from_utf8_lossy(&record));
            }
        }
    }
}

fn verb_of(event: &Event) -> Option<&str> {
    let at = MAPPED.iter().position(|mapped| mapped.name == "verb").expect("a column");
    event.text(at)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().enumerate().fold(0_u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for place in 0..4 {
            let digit = char::from(DIGITS[(word >> (18 - 6 * place) & 63) as usize]);
            out.push(if place <= chunk.len() { digit } else { '=' });
        }
    }
    out
}
