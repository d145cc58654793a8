//! Extracts lines from what clouds push: messages of Pub/Sub (GKE) and deliveries of Firehose
//! (EKS).
//!
//! Invariants:
//! - The text of a message or record, decoded from base64 and gzip, is kept as it is, followed by a
//!   newline if it does not end with one. What surrounds it is not kept.
//! - Nothing that an authenticated sender pushes is lost: a record that cannot be unpacked is kept
//!   packed, as one line. That line becomes a row of `rejects`, where people notice it.
//! - A body is taken as a whole or not at all: a refused body leaves no line.
//! - The text is at most as long as a body may be, and all memory is reserved before it is used.
//!
//! No state. If a crash prevents a body from being stored, the sender sends it again.

use std::borrow::Cow;
use std::fmt;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use strongroom_lines::body::{self, BodyError};

/// Longest id of a delivery that is remembered.
pub const ID_BYTES_MAX: usize = 256;
/// Bytes that are decompressed at a time.
const STEP_BYTES: usize = 64 << 10;

/// The lines of a push.
#[derive(Debug, PartialEq, Eq)]
pub struct Pushed {
    pub text: Vec<u8>,
    pub lines: u32,
    /// Whether a part of the push was not what the route expects. Such a part is kept as a line.
    pub is_odd: bool,
    /// The sender's id of the message or request. If the sender sends it again, it has the same id.
    pub id: Option<String>,
}

/// Why a push cannot be kept. The error contains no byte of the push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    Body(BodyError),
    NotADelivery,
    BadGzip,
    TooLong,
    /// Not enough memory is free at the moment.
    Busy,
}

/// A string, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Text<'b>(#[serde(borrow)] Cow<'b, str>);

#[derive(Deserialize)]
struct Push<'b> {
    #[serde(borrow)]
    message: Message<'b>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'b> {
    #[serde(borrow)]
    data: Option<Text<'b>>,
    message_id: Option<String>,
}

/// Returns the text of a Pub/Sub message. A subscription that does not wrap messages sends only the
/// text.
pub fn pubsub(mut body: Vec<u8>, line_bytes_max: usize) -> Result<Pushed, PushError> {
    let push = serde_json::from_slice::<Push<'_>>(&body).ok().map(|push| push.message);
    let is_wrapped = push.is_some();
    let decoded = push.and_then(|message| {
        let data = message.data.map(|data| STANDARD.decode(data.0.as_bytes())).transpose().ok()?;
        Some((data.unwrap_or_default(), message.message_id))
    });
    let Some((mut text, id)) = decoded else {
        let lines = body::into_lines(&mut body, line_bytes_max).map_err(PushError::Body)?;
        let is_odd = lines.is_odd && (is_wrapped || serde_json::from_slice::<IgnoredAny>(&body).is_err());
        return Ok(Pushed { text: body, lines: lines.count, is_odd, id: None });
    };
    // A message with attributes and no text contains nothing to keep.
    if text.trim_ascii().is_empty() {
        text.clear();
    }
    let id = id.filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
    let mut pushed = Pushed { text, lines: 0, is_odd: false, id };
    end_line(&mut pushed.text, 0);
    pushed.count()
}

/// Returns the text of a delivery of Firehose. The body and each record may be compressed.
/// `reserve` is called before more memory is used, with the number of bytes that will then be in
/// use.
pub fn firehose(
    mut body: Vec<u8>,
    is_packed: bool,
    bytes_max: usize,
    reserve: &mut dyn FnMut(usize) -> bool,
) -> Result<Pushed, PushError> {
    if is_packed {
        let packed = body;
        let mut unpacked = Growing { text: Vec::new(), base: packed.len(), bytes_max, reserve };
        match unpacked.gunzip(&packed) {
            Ok(()) => body = unpacked.text,
            Err(Gunzip::Broken) => return Err(PushError::BadGzip),
            Err(Gunzip::Push(error)) => return Err(error),
        }
    }
    // Beside the body, at most one of its records is in memory, decoded from base64. It is shorter
    // than the body.
    let out = Growing { text: Vec::new(), base: body.len() * 2, bytes_max, reserve };
    let mut delivery = Delivery { out, is_odd: false, error: None, id: None };
    let mut deserializer = serde_json::Deserializer::from_slice(&body);
    let read = deserializer.deserialize_map(&mut delivery).and_then(|()| deserializer.end());
    if let Some(error) = delivery.error {
        return Err(error);
    }
    read.map_err(|_| PushError::NotADelivery)?;
    let Delivery { out, is_odd, id, .. } = delivery;
    Pushed { text: out.text, lines: 0, is_odd, id }.count()
}

impl Pushed {
    fn count(mut self) -> Result<Pushed, PushError> {
        let lines = memchr::memchr_iter(b'\n', &self.text).count();
        self.lines = u32::try_from(lines).map_err(|_| PushError::TooLong)?;
        Ok(self)
    }
}

/// Appends a newline to the text that begins at `from`, unless the text is empty or has one
/// already.
fn end_line(text: &mut Vec<u8>, from: usize) {
    if text.len() > from && text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
}

/// A text that grows up to a bound.
struct Growing<'r> {
    text: Vec<u8>,
    /// Number of other bytes in use.
    base: usize,
    bytes_max: usize,
    reserve: &'r mut dyn FnMut(usize) -> bool,
}

enum Gunzip {
    /// The bytes are not gzip, or end too early.
    Broken,
    Push(PushError),
}

impl Growing<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), PushError> {
        // One byte more, for a newline.
        let needed = self.text.len() + bytes.len() + 1;
        if needed > self.bytes_max + 1 {
            return Err(PushError::TooLong);
        }
        if needed > self.text.capacity() {
            let capacity = (self.text.capacity() * 2).clamp(needed, (self.bytes_max + 1).max(needed));
            if !(self.reserve)(self.base + capacity) {
                return Err(PushError::Busy);
            }
            self.text.reserve_exact(capacity - self.text.len());
        }
        self.text.extend_from_slice(bytes);
        Ok(())
    }

    /// Unpacks `packed` and appends the result. If `packed` is broken, nothing is appended. If the
    /// result is too long, or there is no memory for it, a part of it stays; the caller then
    /// refuses the whole delivery.
    fn gunzip(&mut self, packed: &[u8]) -> Result<(), Gunzip> {
        let from = self.text.len();
        let mut reader = MultiGzDecoder::new(packed);
        let mut step = vec![0; STEP_BYTES];
        loop {
            match reader.read(&mut step) {
                Ok(0) => return Ok(()),
                Ok(read) => self.append(&step[..read]).map_err(Gunzip::Push)?,
                Err(_) => {
                    self.text.truncate(from);
                    return Err(Gunzip::Broken);
                }
            }
        }
    }
}

/// Reads a delivery. Each record is appended to `out` as soon as it is parsed, so that a list of
/// many tiny records is never held in memory as a list.
struct Delivery<'r> {
    out: Growing<'r>,
    is_odd: bool,
    /// Why reading stopped, if the delivery itself is not at fault.
    error: Option<PushError>,
    id: Option<String>,
}

impl Delivery<'_> {
    fn record(&mut self, data: &str) -> Result<(), PushError> {
        let from = self.out.text.len();
        let decoded = STANDARD.decode(data).ok();
        let unpacked = match &decoded {
            None => Err(Gunzip::Broken),
            Some(bytes) if bytes.starts_with(&[0x1f, 0x8b]) => self.out.gunzip(bytes),
            Some(bytes) if bytes.trim_ascii().is_empty() => Ok(()),
            Some(bytes) => self.out.append(bytes).map_err(Gunzip::Push),
        };
        match unpacked {
            Ok(()) => {}
            Err(Gunzip::Push(error)) => return Err(error),
            Err(Gunzip::Broken) => {
                self.is_odd = true;
                let line: Vec<u8> = data.bytes().filter(|byte| *byte != b'\n').collect();
                self.out.append(&line)?;
            }
        }
        end_line(&mut self.out.text, from);
        Ok(())
    }
}

impl<'de> Visitor<'de> for &mut Delivery<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a delivery")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_records = false;
        while let Some(name) = map.next_key::<Text<'de>>()? {
            match name.0.as_ref() {
                // JSON readers disagree about which of two members with the same name counts.
                "records" if has_records => return Err(A::Error::duplicate_field("records")),
                "records" => {
                    map.next_value_seed(Records(self))?;
                    has_records = true;
                }
                "requestId" => {
                    let id = map.next_value::<Text<'de>>()?.0;
                    self.id = (!id.is_empty() && id.len() <= ID_BYTES_MAX).then(|| id.into_owned());
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        if has_records { Ok(()) } else { Err(A::Error::missing_field("records")) }
    }
}

struct Records<'d, 'r>(&'d mut Delivery<'r>);

impl<'de> DeserializeSeed<'de> for Records<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Records<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        #[derive(Deserialize)]
        struct Record<'b> {
            #[serde(borrow)]
            data: Text<'b>,
        }
        while let Some(record) = list.next_element::<Record<'de>>()? {
            if let Err(error) = self.0.record(&record.data.0) {
                self.0.error = Some(error);
                return Err(A::Error::custom("the records cannot be kept"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::Write as _;

    use serde_json::{Value, json};

    use super::*;

    const BYTES_MAX: usize = 64 << 10;

    pub fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(text).expect("in memory");
        packed.finish().expect("in memory")
    }

    pub fn delivery(records: &[&[u8]]) -> String {
        let records: Vec<Value> =
            records.iter().map(|record| json!({"data": STANDARD.encode(record)})).collect();
        json!({"requestId": "ed4acda5-034f-9f42-bba1-f29aea6d7d8f", "timestamp": 1_578_090_901_599_i64, "records": records})
            .to_string()
    }

    fn unpack(body: &str) -> Result<(String, Pushed), PushError> {
        let pushed = firehose(body.as_bytes().to_vec(), false, BYTES_MAX, &mut |_| true)?;
        let text = String::from_utf8(pushed.text.clone()).expect("text");
        assert_eq!(text.matches('\n').count(), pushed.lines as usize);
        Ok((text, pushed))
    }

    #[test]
    fn records_of_a_delivery_are_lines() {
        let subscription = br#"{"messageType":"DATA_MESSAGE","logEvents":[]}"#;
        let packed = gzip(subscription);
        let two = [gzip(b"{\"a\":1}\n"), gzip(b"{\"b\":2}")].concat();
        let (text, pushed) =
            unpack(&delivery(&[&packed, b"{\"c\": 3}\n", b"", &two, b"{\"d\":4}\n{\"e\":5}"]))
                .expect("lines");
        let wanted = [
            "{\"messageType\":\"DATA_MESSAGE\",\"logEvents\":[]}",
            "{\"c\": 3}",
            "{\"a\":1}",
            "{\"b\":2}",
            "{\"d\":4}",
            "{\"e\":5}",
        ];
        assert_eq!(text, wanted.join("\n") + "\n");
        assert_eq!((pushed.lines, pushed.is_odd), (6, false));
        assert_eq!(pushed.id.as_deref(), Some("ed4acda5-034f-9f42-bba1-f29aea6d7d8f"));
        assert_eq!(unpack(&delivery(&[])).expect("none").1.lines, 0);
    }

    #[test]
    fn a_compressed_delivery_is_unpacked() {
        let body = delivery(&[b"{\"a\":1}"]);
        let unpack = |body: Vec<u8>| firehose(body, true, BYTES_MAX, &mut |_| true);
        let pushed = unpack(gzip(body.as_bytes())).expect("lines");
        assert_eq!(pushed.text, b"{\"a\":1}\n");
        let cut = gzip(body.as_bytes());
        assert_eq!(unpack(cut[..cut.len() - 9].to_vec()), Err(PushError::BadGzip));
        assert_eq!(unpack(body.into_bytes()), Err(PushError::BadGzip));
    }

    #[test]
    fn a_record_that_cannot_be_unpacked_is_kept_packed() {
        let cut = &gzip(b"{\"a\":1}")[..20];
        let (text, pushed) = unpack(&delivery(&[b"{\"b\":2}", cut])).expect("lines");
        assert_eq!(text, format!("{{\"b\":2}}\n{}\n", STANDARD.encode(cut)));
        assert!(pushed.is_odd);
        let (text, pushed) = unpack(r#"{"records":[{"data":"no \n base64"}]}"#).expect("lines");
        assert_eq!((text.as_str(), pushed.is_odd, pushed.lines), ("no  base64\n", true, 1));
    }

    #[test]
    fn what_is_no_delivery_is_refused() {
        let whole = delivery(&[b"{}"]);
        for body in [
            "",
            "{}",
            "[]",
            "no JSON",
            r#"{"records":{}}"#,
            r#"{"records":[{}]}"#,
            r#"{"records":[{"data":1}]}"#,
            r#"{"records":[],"records":[{"data":""}]}"#,
            &whole[..whole.len() - 1],
            &format!("{whole} {{}}"),
        ] {
            assert_eq!(unpack(body).map(drop), Err(PushError::NotADelivery), "{body}");
        }
    }

    #[test]
    fn bombs_are_refused_and_memory_is_asked_for() {
        let bomb = gzip(&vec![b' '; BYTES_MAX * 20]);
        assert!(bomb.len() < 4_000, "{}", bomb.len());
        assert_eq!(unpack(&delivery(&[&bomb])).map(drop), Err(PushError::TooLong));
        let half = gzip(&vec![b'x'; BYTES_MAX / 2 + 1]);
        assert_eq!(unpack(&delivery(&[&half, &half])).map(drop), Err(PushError::TooLong));
        let body = gzip(delivery(&[&[b'x'; BYTES_MAX]]).as_bytes());
        assert_eq!(firehose(body, true, BYTES_MAX, &mut |_| true), Err(PushError::TooLong));
        let body = delivery(&[&half]).into_bytes();
        let mut asked = 0;
        let mut reserve = |bytes: usize| {
            asked = asked.max(bytes);
            bytes < BYTES_MAX / 2
        };
        assert_eq!(firehose(body, false, BYTES_MAX, &mut reserve), Err(PushError::Busy));
        assert!(asked >= BYTES_MAX / 2);
    }

    #[test]
    fn the_text_of_a_message_is_its_lines() {
        let entry = "{\"insertId\": \"a\", \"protoPayload\":{}}";
        let push = |data: &str| {
            json!({"message": {"attributes": {"logging.googleapis.com/timestamp": "2026-03-02T10:00:00Z"}, "data": data,
                "messageId": "2070443601311540", "message_id": "2070443601311540",
                "publishTime": "2026-03-02T10:00:00Z"}, "subscription": "projects/p/subscriptions/s"})
            .to_string()
        };
        let take = |body: &str| pubsub(body.as_bytes().to_vec(), 1_000);
        let pushed = |text: &str, id: Option<&str>| Pushed {
            text: text.as_bytes().to_vec(),
            lines: u32::try_from(text.matches('\n').count()).expect("a small number"),
            is_odd: false,
            id: id.map(str::to_owned),
        };
        let id = Some("2070443601311540");
        assert_eq!(take(&push(&STANDARD.encode(entry))), Ok(pushed(&format!("{entry}\n"), id)));
        assert_eq!(take(&push(&STANDARD.encode("a\nb\n"))), Ok(pushed("a\nb\n", id)));
        assert_eq!(take(&push("")), Ok(pushed("", id)));
        assert_eq!(take(r#"{"message":{"messageId":"1"}}"#), Ok(pushed("", Some("1"))));
        // Without a wrapper.
        assert_eq!(take(entry), Ok(pushed(&format!("{entry}\n"), None)));
        let odd = push("no base64");
        let kept = take(&odd).expect("a line");
        assert_eq!((kept.text, kept.is_odd), (format!("{odd}\n").into_bytes(), true));
        assert!(take("no JSON").expect("a line").is_odd);
        assert_eq!(take(""), Err(PushError::Body(BodyError::Empty)));
        assert_eq!(take("two\nlines"), Err(PushError::Body(BodyError::NoEvents)));
    }

    #[test]
    fn any_bytes_are_tolerated() {
        proptest::proptest!(|(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), packed: bool)| {
            let _ = pubsub(body.clone(), 100);
            let _ = firehose(body, packed, 100, &mut |_| true);
        });
    }
}
