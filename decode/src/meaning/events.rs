//! Compares rows of events with their records.
//!
//! Invariant: a row is compared with what the decoder reads from its record alone, whichever
//! program wrote the row.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, TimestampMicrosecondType};
use arrow_array::{Array as _, Int32Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::DataType;
use strongroom_lines::json::Members;
use strongroom_lines::plain::FORMAT_OF_FAULTS;
use strongroom_lines::wrapper::{EventPath, SHAPE_GOOGLE, SHAPE_UNWRAP};
use strongroom_schemas::Table;
use strongroom_schemas::events::{self, index};
use strongroom_schemas::marked;

use super::{Difference, MeaningError, RECORD_BYTES_MAX};
use crate::decoder::{Decoder, DecoderConfig};
use crate::members;
use crate::render::{Lists, Renderer, Strings, WrongColumn};

/// Number of bytes of records that are decoded before their rows are compared.
const CHUNK_BYTES: usize = 64 << 20;

/// Columns of events that the record determines, in the order in which they are named. The last
/// one, `faults`, exists from [`FORMAT_OF_FAULTS`] on.
const COMPARED: &[usize] = &[
    index::LEVEL,
    index::AUDIT_ID,
    index::STAGE,
    index::REQUEST_URI,
    index::VERB,
    index::USER_AGENT,
    index::USER_NAME,
    index::USER_UID,
    index::USER_GROUPS,
    index::USER_EXTRA,
    index::IMPERSONATED_USER_NAME,
    index::IMPERSONATED_USER_GROUPS,
    index::IMPERSONATED_USER_EXTRA,
    index::RESOURCE,
    index::NAMESPACE,
    index::NAME,
    index::OBJECT_UID,
    index::API_GROUP,
    index::API_VERSION,
    index::RESOURCE_VERSION,
    index::SUBRESOURCE,
    index::RESPONSE_STATUS,
    index::RESPONSE_MESSAGE,
    index::RESPONSE_REASON,
    index::RESPONSE_DETAILS,
    index::RESPONSE_CODE,
    index::SOURCE_IPS,
    index::REQUEST_OBJECT,
    index::RESPONSE_OBJECT,
    index::ANNOTATIONS,
    index::AUTHZ_DECISION,
    index::AUTHZ_REASON,
    index::REQUEST_RECEIVED_TIMESTAMP,
    index::STAGE_TIMESTAMP,
    index::FAULTS,
];

/// Compares the rows of `events` with their records. First calls `each` with the record of every
/// row, in order; if the row's form gives no record, `each` gets no bytes. Then calls `differs`, in
/// order, with every row whose columns differ from its record, or whose form or marks are wrong. If
/// a row has a form, only the event is read, and not the bytes around it, because these belong to
/// the form.
///
/// `format` is the `eventsFormat` of the commit that has the rows. Their records are read by the
/// rules of that format, or of the current one if it is newer than that.
///
/// # Errors
/// [`MeaningError::Column`] if the batch is not one of the `events` table.
pub fn compare_events(
    events: &RecordBatch,
    format: u32,
    each: &mut dyn FnMut(&[u8]),
    differs: &mut dyn FnMut(usize, Difference),
) -> Result<(), MeaningError> {
    let rows = EventRows::of(events, format)?;
    let mut decoder = Decoder::new(DecoderConfig::default());
    let (mut record, mut decoded, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut event = Vec::new();
    let mut found = Vec::new();
    decoder.begin_records(format);
    for row in 0..events.num_rows() {
        record.clear();
        let fault = rows.renderer.record(row, &mut record).err();
        if fault.is_some() {
            record.clear();
        }
        each(&record);
        found.extend(rows.renderer.wrong_marks(row).map(|detail| (row, Difference::Mark(detail))));
        if let Some(fault) = fault {
            found.push((row, Difference::Form(fault.as_str())));
            continue;
        }
        if let Some(differs) = rows.renderer.mark(row).and_then(|mark| marked::compare(&mark, &record).err())
        {
            found.push((row, Difference::Redaction(differs)));
        }
        event.clear();
        let is_of_form = rows.renderer.event_of_form(row, &mut event) == Ok(true);
        let said = if is_of_form { &event } else { &record };
        let is_rendered = is_of_form || !rows.renderer.keeps_format(row);
        let unwrap = rows.shape.get(row).and_then(EventPath::of_shape);
        if record.len() <= RECORD_BYTES_MAX && decoder.record_alone(said, is_rendered, unwrap).is_ok() {
            decoded.push(row);
        } else {
            found.push((row, Difference::NoRecord));
        }
        bytes += record.len();
        if bytes >= CHUNK_BYTES {
            rows.compare(&mut decoder, &decoded, &mut found)?;
            decoded.clear();
            bytes = 0;
        }
    }
    rows.compare(&mut decoder, &decoded, &mut found)?;
    found.sort_by_key(|(row, _)| *row);
    for (row, difference) in found {
        differs(row, difference);
    }
    Ok(())
}

/// A batch of events to compare.
struct EventRows<'a> {
    batch: &'a RecordBatch,
    renderer: Renderer<'a>,
    shape: Strings<'a>,
    /// The columns that are compared.
    compared: &'static [usize],
}

impl<'a> EventRows<'a> {
    fn of(batch: &'a RecordBatch, format: u32) -> Result<Self, WrongColumn> {
        let compared = if format < FORMAT_OF_FAULTS { &COMPARED[..COMPARED.len() - 1] } else { COMPARED };
        let shape = Strings::of(batch.column(index::SHAPE))?;
        Ok(EventRows { batch, renderer: Renderer::new(batch)?, shape, compared })
    }

    /// Takes the rows that `decoder` decoded from the records of `rows`, and compares them with the
    /// stored rows, column by column.
    fn compare(
        &self,
        decoder: &mut Decoder,
        rows: &[usize],
        found: &mut Vec<(usize, Difference)>,
    ) -> Result<(), MeaningError> {
        let said = decoder.take_records()?;
        // A bit for each compared column of a row, and one for its shape.
        let mut differing = vec![0_u64; rows.len()];
        for (bit, column) in self.compared.iter().enumerate() {
            let (stored, said) = (self.batch.column(*column), said.column(*column));
            let mut mark = |at: usize| differing[at] |= 1 << bit;
            match said.data_type() {
                DataType::List(_) => {
                    let (stored, said) = (Lists::of(stored)?, Lists::of(said)?);
                    (0..rows.len()).filter(|at| !stored.is_same(rows[*at], &said, *at)).for_each(&mut mark);
                }
                DataType::Int32 => {
                    let wrong = || WrongColumn::of(stored);
                    let stored = stored.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
                    let said = said.as_primitive::<Int32Type>();
                    let of = |array: &Int32Array, at| array.is_valid(at).then(|| array.value(at));
                    (0..rows.len()).filter(|at| of(stored, rows[*at]) != of(said, *at)).for_each(&mut mark);
                }
                DataType::Timestamp(..) => {
                    let wrong = || WrongColumn::of(stored);
                    let stored = stored.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(wrong)?;
                    let said = said.as_primitive::<TimestampMicrosecondType>();
                    let of =
                        |array: &TimestampMicrosecondArray, at| array.is_valid(at).then(|| array.value(at));
                    (0..rows.len()).filter(|at| of(stored, rows[*at]) != of(said, *at)).for_each(&mut mark);
                }
                _ => {
                    let (stored, said) = (Strings::of(stored)?, Strings::of(said)?);
                    (0..rows.len()).filter(|at| stored.get(rows[*at]) != said.get(*at)).for_each(&mut mark);
                }
            }
        }
        let shapes = Strings::of(said.column(index::SHAPE))?;
        let raws = said.column(index::RAW).as_binary::<i32>();
        for (at, row) in rows.iter().enumerate() {
            let said = if self.renderer.has_form(*row) {
                None
            } else if self.renderer.keeps_format(*row) {
                // A record that is kept as received has no shape, with two exceptions: an entry of
                // Google, and a record whose event was found by a path.
                shapes.get(at).filter(|shape| *shape == SHAPE_GOOGLE || shape.starts_with(SHAPE_UNWRAP))
            } else if raws.is_valid(at) {
                // The stored row was rendered from its columns, although the decoder would have
                // kept its record in `raw`.
                std::str::from_utf8(raws.value(at)).ok().and_then(shape_of)
            } else {
                shapes.get(at)
            };
            if self.shape.get(*row) != said {
                differing[at] |= 1 << self.compared.len();
            }
        }
        let schema = Table::Events.file_schema();
        let names: Vec<&'static str> = self
            .compared
            .iter()
            .chain([&index::SHAPE])
            .map(|column| {
                let name = schema.field(*column).name();
                events::COLUMNS.iter().copied().find(|known| known == name).unwrap_or_default()
            })
            .collect();
        for (bits, row) in differing.iter().zip(rows).filter(|(bits, _)| **bits != 0) {
            let columns = names.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
            found.push((*row, Difference::Columns(columns.map(|(_, name)| *name).collect())));
        }
        Ok(())
    }
}

/// Returns the shape of a rendered event: the text between `{` and the first member that has a
/// column, or between `{` and `}` if no member has one. `None` if it is the default shape.
fn shape_of(record: &str) -> Option<&str> {
    let Members(list) = serde_json::from_str(record).ok()?;
    let open = record.find('{')? + 1;
    let mut end = open;
    for (name, value) in &list {
        // Between two members there are white space and a comma.
        let quote = end + record.get(end..)?.find('"')?;
        if members::has_column(name.as_bytes()) {
            return Some(&record[open..quote]).filter(|shape| *shape != events::SHAPE_DEFAULT);
        }
        let text = value.get();
        end = (text.as_ptr() as usize - record.as_ptr() as usize) + text.len();
    }
    record.get(open..record.rfind('}')?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{ListBuilder, StringBuilder};
    use arrow_array::types::{ArrowPrimitiveType, Int64Type};
    use arrow_array::{ArrayRef, BinaryArray, PrimitiveArray, StringArray};
    use serde_json::{Map, Value as Json, json};
    use strongroom_schemas::format::EVENTS_FORMAT;

    use super::*;

    /// A test case: a record, whether it is rendered, and what it says according to
    /// `docs/format.md`. The second verifier has the same list.
    struct Case {
        what: String,
        record: Vec<u8>,
        is_rendered: bool,
        /// The `eventsFormat` of the commit.
        format: u32,
        /// The shape of the row, which may have the path of the event in the record.
        shape: Option<String>,
        says: Option<Map<String, Json>>,
    }

    fn cases() -> Vec<Case> {
        const TEXTS: [&str; 3] = [
            include_str!("../../../tests/data/records/records.json"),
            include_str!("../../../tests/data/records/faults.json"),
            include_str!("../../../tests/data/records/wrapped.json"),
        ];
        let lists = TEXTS.iter().map(|text| serde_json::from_str::<Vec<Json>>(text).expect("a list"));
        let cases: Vec<Json> = lists.flatten().collect();
        let case = |case: &Json| Case {
            what: case["what"].as_str().expect("words").to_owned(),
            record: match case["base64"].as_str() {
                Some(base64) => bytes_of(base64),
                None => case["record"].as_str().expect("a record").as_bytes().to_vec(),
            },
            is_rendered: case["rendered"] == true,
            format: case["format"].as_u64().map_or(EVENTS_FORMAT, |format| format as u32),
            shape: case["shape"].as_str().or(case["says"][events::SHAPE].as_str()).map(ToOwned::to_owned),
            says: case["says"].as_object().cloned(),
        };
        cases.iter().map(case).collect()
    }

    fn bytes_of(base64: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
        for digit in base64.bytes().filter(|digit| *digit != b'=') {
            let value = ALPHABET.iter().position(|known| *known == digit).expect("base64");
            (bits, held) = (bits << 6 | u32::try_from(value).expect("six bits"), held + 6);
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held & 0xff) as u8);
            }
        }
        bytes
    }

    /// Returns a row with the columns `says`, and this `raw`.
    fn row(says: &Map<String, Json>, raw: Option<&[u8]>) -> RecordBatch {
        fn number<T: ArrowPrimitiveType>(value: Option<T::Native>) -> PrimitiveArray<T> {
            [value].into_iter().collect()
        }
        let schema = Table::Events.file_schema();
        let column = |name: &String, data_type: &DataType| -> ArrayRef {
            let value = says.get(name).filter(|value| !value.is_null());
            match data_type {
                DataType::Utf8 => {
                    Arc::new(StringArray::from(vec![value.map(|text| text.as_str().expect("text"))]))
                }
                DataType::Int32 => {
                    let code =
                        value.map(|code| i32::try_from(code.as_i64().expect("a number")).expect("a code"));
                    Arc::new(number::<Int32Type>(code))
                }
                DataType::Int64 => Arc::new(number::<Int64Type>(value.and_then(Json::as_i64))),
                DataType::Timestamp(..) => Arc::new(
                    number::<TimestampMicrosecondType>(value.map(|time| time.as_i64().expect("a time")))
                        .with_timezone("UTC"),
                ),
                DataType::List(_) => {
                    let mut list = ListBuilder::new(StringBuilder::new());
                    for item in value.iter().flat_map(|list| list.as_array().expect("a list")) {
                        list.values().append_option(item.as_str());
                    }
                    list.append(value.is_some());
                    Arc::new(list.finish())
                }
                _ => Arc::new(BinaryArray::from(vec![raw.filter(|_| name == events::RAW)])),
            }
        };
        let columns = schema.fields().iter().map(|field| column(field.name(), field.data_type()));
        RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("a row")
    }

    fn differences(batch: &RecordBatch) -> Vec<(usize, Difference)> {
        differences_of(batch, EVENTS_FORMAT)
    }

    fn differences_of(batch: &RecordBatch, format: u32) -> Vec<(usize, Difference)> {
        let (mut found, mut records) = (Vec::new(), 0);
        compare_events(batch, format, &mut |_| records += 1, &mut |row, how| found.push((row, how)))
            .expect("events");
        assert_eq!(records, batch.num_rows());
        found
    }

    fn other(value: &Json) -> Json {
        match value {
            Json::Number(number) => json!(number.as_i64().expect("a whole number") ^ 1),
            Json::Array(items) => items.iter().cloned().rev().chain([json!("x")]).collect(),
            Json::String(text) => json!(format!("{text}x")),
            _ => json!("x"),
        }
    }

    #[test]
    fn records_say_what_the_format_says() {
        let cases = cases();
        let mut decoder = Decoder::new(DecoderConfig::default());
        for Case { what, record, is_rendered, format, shape, says } in &cases {
            decoder.begin_records(*format);
            let path = || EventPath::of_shape(shape.as_deref()?);
            assert_eq!(decoder.record_alone(record, *is_rendered, path()).is_ok(), says.is_some(), "{what}");
            let decoded = decoder.take_records().expect("columns");
            assert_eq!(decoded.num_rows(), usize::from(says.is_some()), "{what}");
            let Some(says) = says else {
                let shape = shape.iter().map(|shape| (events::SHAPE.to_owned(), json!(shape))).collect();
                let found = (!is_rendered).then(|| differences_of(&row(&shape, Some(record)), *format));
                assert!(found.is_none_or(|found| found == [(0, Difference::NoRecord)]), "{what}");
                continue;
            };
            let stored = row(says, (!is_rendered).then_some(record));
            let rows = EventRows::of(&stored, *format).expect("a row");
            decoder.record_alone(record, *is_rendered, path()).expect("it was one");
            let mut found = Vec::new();
            rows.compare(&mut decoder, &[0], &mut found).expect("columns");
            assert_eq!(found, [], "{what}");
        }
        assert!(cases.len() > 250);
    }

    #[test]
    fn each_column_is_compared() {
        let mut seen = std::collections::BTreeSet::new();
        for Case { what, record, is_rendered, format, says, .. } in cases() {
            let Some(says) = says.filter(|_| !is_rendered) else { continue };
            for name in says.keys() {
                let other = match name.as_str() {
                    events::FAULTS => json!(["/level: too_long"]),
                    _ => other(&says[name]),
                };
                for changed in [other, Json::Null] {
                    if changed == says[name] {
                        continue;
                    }
                    let mut row_says = says.clone();
                    row_says.insert(name.clone(), changed);
                    let found = differences_of(&row(&row_says, Some(&record)), format);
                    // Without its path the record says nothing.
                    if name == events::SHAPE
                        && says[name].as_str().is_some_and(|shape| shape.starts_with(SHAPE_UNWRAP))
                    {
                        assert_eq!(found, [(0, Difference::NoRecord)], "{what}");
                        continue;
                    }
                    let [(0, Difference::Columns(names))] = found.as_slice() else {
                        panic!("{what}: {found:?}")
                    };
                    assert_eq!(names, &[name.as_str()], "{what}");
                    seen.insert(name.clone());
                }
            }
        }
        assert_eq!(seen.len(), COMPARED.len() + 1);
    }

    #[test]
    fn rows_are_named_in_order() {
        let says = json!({ "audit_id": "a", "verb": "get" });
        let says = says.as_object().expect("an object");
        let good = row(says, Some(br#"{"auditID":"a","verb":"get"}"#));
        let other = row(says, Some(br#"{"auditID":"a","verb":"list"}"#));
        let broken = row(says, Some(b"x"));
        let rows = [&good, &broken, &other, &good, &broken];
        let batch = arrow_select::concat::concat_batches(&good.schema(), rows).expect("one schema");
        let found = differences(&batch);
        let expected =
            [(1, Difference::NoRecord), (2, Difference::Columns(vec!["verb"])), (4, Difference::NoRecord)];
        assert_eq!(found, expected);
        assert_eq!(found[1].1.to_string(), "not what its record says: verb");
    }

    #[test]
    fn what_is_spliced_into_a_rendered_record_is_read() {
        let good = json!({
            "level": "Metadata", "audit_id": "a", "user_groups": ["", "g"], "user_extra": "{\"k\":1}", "request_object": "[1, 2]",
            "stage_timestamp": 0, "annotations": "{\"authorization.k8s.io/decision\":\"allow\"}", "authz_decision": "allow",
        });
        let found = |name: &str, value: Json| {
            let mut says = good.as_object().expect("an object").clone();
            says.insert(name.to_owned(), value);
            match differences(&row(&says, None)).pop() {
                None => String::new(),
                Some((_, difference)) => difference.to_string().replace("not what its record says: ", ""),
            }
        };
        let no_record = Difference::NoRecord.to_string();
        assert_eq!(found("name", json!("n")), "");
        assert_eq!(found("shape", json!("")), "");
        assert_eq!(found("shape", json!("\"x\": {\"level\": 1} ,")), "");
        assert_eq!(found("shape", json!(format!("\"x\":\"{}\",", "y".repeat(1000)))), "");
        assert_eq!(found("shape", json!(events::SHAPE_DEFAULT)), "shape");
        assert_eq!(found("shape", json!("\"stage\":\"Panic\",")), "stage, shape");
        assert_eq!(found("shape", json!("\"\\u0073tage\":\"Panic\",")), "stage, shape");
        assert_eq!(found("shape", json!("\"kind\":\"Pod\",")), no_record);
        assert_eq!(found("authz_decision", json!("forbid")), "authz_decision");
        assert_eq!(found("authz_decision", Json::Null), "authz_decision");
        assert_eq!(found("authz_reason", json!("r")), "authz_reason");
        assert_eq!(found("user_groups", json!(["a", null])), "user_groups");
        assert_eq!(found("user_extra", json!(" {}")), "user_extra");
        assert_eq!(found("user_extra", json!("{}}")), no_record);
        assert_eq!(
            found("user_extra", json!("{}},\"verb\":\"x\",\"objectRef\":{\"name\":\"m\"},\"y\":{\"z\":1")),
            "verb, user_extra, name"
        );
        assert_eq!(found("request_object", json!("null")), "request_object");
        assert_eq!(
            found("request_object", json!("1,\"responseObject\":2")),
            "request_object, response_object"
        );
        assert_eq!(found("stage_timestamp", json!(253_402_300_800_000_000_i64)), "stage_timestamp");
        assert_eq!(found("stage_timestamp", json!(i64::MIN)), "stage_timestamp");
        assert_eq!(found("request_received_timestamp", json!(i64::MAX)), "request_received_timestamp");
    }
}
