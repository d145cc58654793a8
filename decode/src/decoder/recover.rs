//! Recovers events from a line that is not a single event.
//!
//! A line may be torn, cut, glued to the next one, a list, or several documents. Invariants:
//! - Every byte of the line is in an event, a reject or a frame, in the order of the line.
//! - A client can send text that looks like an event, so only two kinds of events are believed:
//!   events that follow each other from the line's first byte, and, after a tear, the one event that
//!   ends where the line does.
//! - The work is linear in the line, except for the search after tears, which
//!   [`RECOVERY_BYTES_MAX`] bounds. No state.

use strongroom_lines::frame::LineKind;
use strongroom_lines::wrapper::{self, Damaged, Record};
use strongroom_lines::{Dialect, Reason, Refusal, list_items};

use super::{Cut, Decoder, Piece};

/// Maximum number of bytes of one line that are parsed in search of a whole event after a tear,
/// where a writer stopped in the middle of another event.
const RECOVERY_BYTES_MAX: usize = 64 << 20;
/// Maximum number of open brackets in a torn text. If there are more, an event after that text is
/// not believed.
const TORN_DEPTH_MAX: usize = 1 << 20;

impl Decoder {
    /// Recovers what can be recovered of a line that was refused. If it is made of the parts of two
    /// events, because the last part of the first one is missing, they are taken apart.
    pub(super) fn refused_line(&mut self, whole: &Piece<'_>, refusal: Refusal) {
        if refusal.reason == Reason::NulByte && self.gelf_frames(whole) {
            return;
        }
        let Some(at) = wrapper::second_event(whole.line, self.config.depth_max) else {
            return self.recover(whole, refusal);
        };
        let (first, second) = (&whole.line[..at - 1], &whole.line[at..]);
        self.recover(&Piece { line: first, end: first.len(), newline: true, ..*whole }, refusal);
        let lines_before = 1 + memchr::memchr_iter(b'\n', first).count();
        let second = Piece {
            line: second,
            number: whole.number + i64::try_from(lines_before).unwrap_or(i64::MAX),
            offset: whole.offset + at as i64,
            start: 0,
            end: second.len(),
            newline: whole.newline,
        };
        self.one_line(&second);
    }

    /// Decodes a text like a line of its own.
    fn one_line(&mut self, line: &Piece<'_>) {
        let outcome = self
            .event(&line.line[line.start..], &line.place(line.start, 0), Cut::Refused)
            .map(|()| Dialect::Plain)
            .or_else(|refusal| self.lone_record(line, refusal, LineKind::Whole));
        match outcome {
            Ok(dialect) => self.dialects.add(dialect),
            Err(refusal) => self.recover(line, refusal),
        }
    }

    /// Decodes the objects at the beginning of a line, each of which ends with a NUL byte as in
    /// GELF over TCP, and then the rest of the line. A NUL is frame. Returns `false` if the line
    /// does not begin with such an object. JSON has no NUL, so an object in a client's text is
    /// never taken for one of these.
    fn gelf_frames(&mut self, whole: &Piece<'_>) -> bool {
        let line = whole.line;
        let count_max = wrapper::SHORT_ITEMS_MAX + line.len() / wrapper::ITEM_BYTES_MIN;
        // The object before may have been read before its NUL came. This line then begins with that
        // NUL.
        let mut at = whole.start + usize::from(line.get(whole.start) == Some(&0));
        let mut frames = Vec::new();
        while let Some(length) = memchr::memchr(0, &line[at..]).filter(|_| frames.len() < count_max) {
            let frame = &line[at..at + length];
            if !frame.starts_with(b"{") || document_end(frame) != Some(length) {
                break;
            }
            frames.push((at, at + length));
            at += length + 1;
        }
        // Several zeros in a row were left by a crash.
        if frames.is_empty() || line.get(at) == Some(&0) {
            return false;
        }
        if at < line.len() {
            frames.push((at, line.len()));
        }
        let mut from = 0;
        for (start, end) in frames {
            self.one_line(&Piece {
                line: &line[from..end],
                offset: whole.offset + from as i64,
                start: start - from,
                end: end - from,
                newline: end < line.len() || whole.newline,
                ..*whole
            });
            // The NUL before the next object belongs to that object's frame.
            from = end;
        }
        self.extend_last(&line[from..]);
        true
    }

    /// Takes `line[from..end]` as an event whose text is cut, and which may be in layers. Returns
    /// `false` if it is not one.
    pub(super) fn cut_event(&mut self, whole: &Piece<'_>, from: usize, end: usize) -> bool {
        let start = from.max(whole.start);
        let bytes = &whole.line[start..end];
        if let Some(head) = wrapper::export_head(bytes)
            && self.event(&bytes[head..], &whole.place(start + head, from), Cut::Taken).is_ok()
        {
            self.dialects.add(Dialect::TimeAndEvent);
            return true;
        }
        let place = whole.place(start, from);
        let dialect = self
            .event(bytes, &place, Cut::Taken)
            .map(|()| Dialect::Plain)
            .or_else(|refusal| self.in_layers(bytes, refusal, &place, Cut::Taken));
        dialect.map(|dialect| self.dialects.add(dialect)).is_ok()
    }

    /// Recovers events from a line that is not a single event: it may be an `EventList`, or contain
    /// whole events beside broken text.
    ///
    /// A client can send text that looks like an event: a body may contain one. So only two kinds
    /// of events are believed: events that follow each other from the line's first byte, and, after
    /// a tear, the one event that ends where the line does. The line may be a piece of a longer one
    /// that was cut before or after a client's text. So the event after a tear is not believed if
    /// the torn text before it could continue with a value. A document is not believed either if
    /// the text after it continues or closes another text. Members of a list or a wrapper, and
    /// documents on a line, are judged one by one, so that a refused member does not affect the
    /// others. What is left may be the beginning of an event. It is a cut event if it names a
    /// request and who made it; its text ends where the next event begins.
    pub(super) fn recover(&mut self, whole: &Piece<'_>, refusal: Refusal) {
        // Encoding and depth of a line are checked first. If the line is refused because of them,
        // nothing else is known of it yet, and a single member may be the cause.
        let too_deep = refusal.reason == Reason::TooDeep;
        let may_be_list = too_deep || matches!(refusal.reason, Reason::NotAnAuditEvent | Reason::InvalidUtf8);
        if may_be_list && self.event_list(whole, 0, (whole.start, whole.end)) {
            return;
        }
        let mut records_left = wrapper::SHORT_ITEMS_MAX + whole.line.len() / wrapper::ITEM_BYTES_MIN;
        if wrapper::is_array(&whole.line[whole.start..whole.end])
            && self.wrapped(whole, 0, (whole.start, whole.end), &mut records_left).is_ok()
        {
            return;
        }
        if refusal.reason == Reason::Wrapped {
            let extent = (whole.start, whole.end);
            if let Err(refusal) = self.wrapped(whole, 0, extent, &mut records_left)
                && !self.inner_list(whole, extent, 0, &mut records_left)
            {
                self.reject(whole, 0, whole.end, &refusal);
            }
            return;
        }
        if too_deep && self.wrapped(whole, 0, (whole.start, whole.end), &mut records_left).is_ok() {
            return;
        }
        if refusal.reason != Reason::UntrustedOrigin
            && self.inner_list(whole, (whole.start, whole.end), 0, &mut records_left)
        {
            return;
        }
        let broken = matches!(
            refusal.reason,
            Reason::BrokenJson | Reason::InvalidUtf8 | Reason::NulByte | Reason::TruncatedByCloud
        );
        if !broken && !too_deep {
            return self.reject(whole, 0, whole.end, &refusal);
        }
        let bytes = whole.line;
        let mut at = whole.start;
        let mut is_inside = false;
        while let Some(length) = document_end(&bytes[at..])
            // The line as a whole was refused already.
            && (at > whole.start || at + length < whole.end)
        {
            is_inside = continues_text(&bytes[at + length..whole.end]);
            if is_inside || !self.document(whole, (at, at + length), &mut records_left) {
                break;
            }
            at += length;
        }
        let from = if at == whole.start { 0 } else { at };
        if is_inside {
            let inside =
                format!("a piece of a longer text: byte {from} of the line begins a value inside it");
            return self.reject(whole, from, whole.end, &Refusal::new(Reason::TornLine, inside));
        }
        let is_whole = |(head, end): &(usize, usize)| {
            let event =
                wrapper::bare_event(&bytes[*head..*end], self.config.depth_max, &self.reading.writers);
            event.is_ok_and(|event| !event.is_cut())
        };
        let may_be_torn = whole.newline && is_event_torn(&bytes[at..]);
        let last = may_be_torn.then(|| last_event(bytes, at)).flatten().filter(is_whole);
        let cut_end = last.map_or(whole.end, |(head, _)| head);
        if from < cut_end
            && !self.damaged_list(whole, from, (at, cut_end), &mut records_left)
            && !self.cut_event(whole, from, cut_end)
        {
            let refusal = match last {
                Some((head, _)) => {
                    let torn = format!("torn before a whole event at byte {head} of the line");
                    Refusal::new(Reason::TornLine, torn)
                }
                None if from == 0 => refusal,
                None => {
                    let broken = format!("broken after a whole event, from byte {from} of the line");
                    Refusal::new(Reason::TornLine, broken)
                }
            };
            self.reject(whole, from, cut_end, &refusal);
        }
        if let Some((head, end)) = last {
            match self.event(&bytes[head..end], &whole.place(head, head), Cut::Refused) {
                Ok(()) => {
                    self.dialects.add(Dialect::Plain);
                    self.rows.extend_frame_after(&bytes[end..whole.end]);
                }
                Err(refusal) => self.reject(whole, head, whole.end, &refusal),
            }
        }
    }

    /// Decodes one of several documents on a line. Returns `false` if the document is neither an
    /// event, nor a wrapper, nor too deep.
    fn document(&mut self, whole: &Piece<'_>, extent: (usize, usize), records_left: &mut usize) -> bool {
        let (start, end) = extent;
        let frame_from = if start == whole.start { 0 } else { start };
        let outcome = self
            .event(&whole.line[start..end], &whole.place(start, frame_from), Cut::Refused)
            .map(|()| Dialect::Plain)
            .or_else(|refusal| self.layered(whole, extent, frame_from, refusal));
        match outcome {
            Err(refusal) if refusal.reason == Reason::Wrapped => {
                self.wrapped(whole, frame_from, extent, records_left).is_ok()
                    || self.inner_list(whole, extent, frame_from, records_left)
            }
            Err(refusal) if refusal.reason == Reason::UntrustedOrigin => false,
            Err(refusal) if refusal.reason == Reason::TooDeep => {
                if !self.event_list(whole, frame_from, extent)
                    && self.wrapped(whole, frame_from, extent, records_left).is_err()
                {
                    self.reject(whole, frame_from, end, &refusal);
                }
                true
            }
            Ok(dialect) => {
                self.dialects.add(dialect);
                true
            }
            Err(refusal) if refusal.reason == Reason::InvalidUtf8 => {
                self.damaged_list(whole, frame_from, extent, records_left)
            }
            // The text may be a line of an array of arrays, or one of several documents that were
            // joined. If other text follows it, the array may be a client's.
            Err(_) if wrapper::is_array(&whole.line[start..end]) => {
                let rest = whole.line[end..whole.end].trim_ascii();
                let is_apart = matches!(rest, b"" | b",") || rest.starts_with(b"[") || rest.starts_with(b"{");
                is_apart && self.wrapped(whole, frame_from, extent, records_left).is_ok()
            }
            Err(_) => {
                self.event_list(whole, frame_from, extent)
                    || self.inner_list(whole, extent, frame_from, records_left)
            }
        }
    }

    /// Decodes the items of the `EventList` `line[start..end]`. Returns `false` if it is not one.
    fn event_list(&mut self, whole: &Piece<'_>, from: usize, (start, end): (usize, usize)) -> bool {
        let Some(items) = list_items(&whole.line[start..end]) else { return false };
        if let Err(refusal) = wrapper::short_items(items.iter().map(|item| item.len())) {
            self.reject(whole, from, end, &refusal);
            return true;
        }
        if items.is_empty() {
            let empty = Refusal::new(Reason::EmptyEventList, "an EventList without items");
            self.reject(whole, from, end, &empty);
            return true;
        }
        let extent_of = |item: &&[u8]| whole.extent_of(item);
        let beside = wrapper::Beside::of_items(&whole.line[start..end], &self.reading.writers);
        self.each(whole, (from, end), &items, extent_of, |decoder, item, frame_from| {
            if let Some(beside) = &beside {
                return Err(beside.refusal(item));
            }
            let (start, end) = whole.extent_of(item);
            decoder.event(item, &whole.place(start, frame_from), Cut::Refused)?;
            decoder.dialects.add(Dialect::EventList);
            Ok(end)
        });
        true
    }

    /// Decodes the elements of the damaged list `line[start..end]`. What follows the last whole
    /// element becomes a reject. Returns `false` if there is no such list.
    fn damaged_list(
        &mut self,
        whole: &Piece<'_>,
        frame_from: usize,
        (start, end): (usize, usize),
        records_left: &mut usize,
    ) -> bool {
        let Some(list) = Damaged::of(&whole.line[start..end]) else { return false };
        let Some(records) = list.records(self.config.depth_max, &self.reading.writers) else { return false };
        let Some(left) = records_left.checked_sub(records.len()) else { return false };
        *records_left = left;
        let extent_of = |text: &str| {
            let (from, to) = list.extent_of(text);
            (start + from, start + to)
        };
        let kept = start + list.kept();
        let is_rest_frame = wrapper::is_frame(&whole.line[kept..end]);
        let list_end = if is_rest_frame { end } else { kept };
        let text_of = |record: &Record<'_>| extent_of(record.item);
        self.each(whole, (frame_from, list_end), &records, text_of, |decoder, record, frame_from| {
            let end = decoder.record(whole, record, frame_from, &extent_of)?;
            decoder.dialects.add(record.dialect);
            Ok(end)
        });
        if !is_rest_frame {
            let torn = format!("a list that is broken or cut, from byte {kept} of the line");
            self.reject(whole, kept, end, &Refusal::new(Reason::TornLine, torn));
        }
        true
    }
}

/// Whether `text` may be the beginning of an event whose writer stopped, or the zeros that a crash
/// left. Other text, such as a line of klog, may contain a whole event that a client sent.
fn is_event_torn(text: &[u8]) -> bool {
    text.iter().find(|byte| !matches!(byte, 0 | b' ' | b'\t' | b'\r')) == Some(&b'{')
}

/// Whether `text`, which follows a value, continues or closes a text that the value is in.
fn continues_text(text: &[u8]) -> bool {
    text.iter().find(|byte| !is_white(**byte)).is_some_and(|byte| matches!(byte, b',' | b']' | b'}'))
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Returns the extent of the first text at or after `from` that begins like an event and whose
/// document ends where `line` does, apart from white space. `None` if that event may be nested in
/// the text that begins at `from`, or in an earlier event.
fn last_event(line: &[u8], from: usize) -> Option<(usize, usize)> {
    let text_end = line.trim_ascii_end().len();
    let mut bytes_left = RECOVERY_BYTES_MAX;
    let torn = from + line[from..].iter().position(|byte| *byte == b'{')?;
    // A writer may have stopped more than once. Each event before the last may be around it.
    let mut begun = vec![torn];
    for head in memchr::memmem::find_iter(&line[from..], b"{\"kind\":\"Event") {
        let head = from + head;
        let length = document_end(&line[head..]);
        if length.is_some_and(|length| head + length == text_end) {
            begun.dedup();
            for start in begun.into_iter().filter(|start| *start < head) {
                bytes_left = bytes_left.checked_sub(head - start)?;
                if may_be_nested(&line[start..head], start == torn) {
                    return None;
                }
            }
            return Some((head, text_end));
        }
        bytes_left = bytes_left.checked_sub(length.unwrap_or(line.len() - head))?;
        begun.push(head);
    }
    None
}

/// Whether a value that follows `torn` may be inside the object that `torn` begins with. If that
/// object `is_outermost`, also whether the value may be inside a text around the object.
fn may_be_nested(torn: &[u8], is_outermost: bool) -> bool {
    // For each bracket that is open, whether it is a list's.
    let mut open: Vec<bool> = Vec::new();
    // The last byte that is not white space. A string counts as its closing quote.
    let mut last = b' ';
    let mut at = 0;
    while let Some(byte) = torn.get(at) {
        at += 1;
        if is_white(*byte) {
            continue;
        }
        last = *byte;
        match byte {
            b'"' => match string_end(&torn[at..]) {
                Some(length) => at += length,
                // The text is torn in a string.
                None => return false,
            },
            b'{' | b'[' if open.len() >= TORN_DEPTH_MAX => return true,
            b'{' => open.push(false),
            b'[' => open.push(true),
            // Only the text around the object can continue after it in this way.
            b'}' | b']' | b',' if open.is_empty() => return is_outermost,
            b'}' | b']' => drop(open.pop()),
            _ => {}
        }
    }
    match last {
        b':' | b'[' => true,
        b',' => open.last() != Some(&false),
        _ => false,
    }
}

/// Returns the length of the rest of a string, up to its closing quote.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Returns the length of the JSON document at the start of `bytes`; `None` if there is none. Its
/// strings need not be UTF-8.
fn document_end(bytes: &[u8]) -> Option<usize> {
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<serde::de::IgnoredAny>();
    match documents.next() {
        Some(Ok(_)) => Some(documents.byte_offset()),
        _ => None,
    }
}
