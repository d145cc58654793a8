//! Decodes records that were changed before they are written, and finds the event in a record.
//!
//! Invariant: a changed record is read by the code that checks sealed rows, so the columns of its
//! row are what a verifier reads from it. Nothing but buffers is kept between blocks; after a
//! crash, a block is read again.

use std::borrow::Cow;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use strongroom_lines::EventPath;
use strongroom_lines::frame::Origin;
use strongroom_lines::wrapper::SHAPE_GOOGLE;

use crate::decoder::{Decoder, DecoderConfig};
use crate::render::{Renderer, RowFault};

/// The text of a row's event, without the layers around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventText<'t> {
    pub text: Cow<'t, [u8]>,
    /// Whether the text is an entry of Google Cloud Logging, which was mapped to an event.
    pub is_google: bool,
}

/// Decodes records one by one; each thread has its own.
pub struct RecordDecoder {
    /// Decodes the changed records of a block.
    changed: Decoder,
    /// Opens the layers around events.
    opener: Decoder,
    rendered: Vec<u8>,
    has_opened: bool,
}

impl RecordDecoder {
    pub fn new(config: DecoderConfig) -> RecordDecoder {
        RecordDecoder {
            changed: Decoder::new(config.clone()),
            opener: Decoder::new(config),
            rendered: Vec::new(),
            has_opened: false,
        }
    }

    /// Begins the changed records of a block.
    pub fn begin(&mut self, origin: &Origin) {
        self.changed.begin_changed(origin);
    }

    /// Returns the event of a row: what its columns render to, what its form gives without the
    /// wrapper, or what is in the layers of its `raw`. `None` if the row gives no event; every row
    /// that the decoder made gives one.
    pub fn event<'t>(&'t mut self, rows: &'t Renderer<'_>, row: usize) -> Option<EventText<'t>> {
        self.rendered.clear();
        let Some(raw) = rows.raw(row) else {
            let given: Result<bool, RowFault> = rows.event_of_form(row, &mut self.rendered);
            if !given.ok()? {
                rows.columns(row, &mut self.rendered);
            }
            return Some(EventText { text: Cow::Borrowed(&self.rendered), is_google: false });
        };
        let shape = rows.shape(row);
        if !std::mem::replace(&mut self.has_opened, true) {
            self.opener.begin_records(strongroom_schemas::format::EVENTS_FORMAT);
        }
        let opened = self.opener.opened_alone(raw, shape.and_then(EventPath::of_shape)).ok()?;
        let text = opened.map_or(Cow::Borrowed(raw), Cow::Owned);
        Some(EventText { text, is_google: shape == Some(SHAPE_GOOGLE) })
    }

    /// Decodes a changed record. Returns `None` if the record is not an event, and otherwise
    /// whether its columns alone give the record.
    pub fn push(&mut self, record: &[u8]) -> Option<bool> {
        self.changed.record_alone(record, false, None).ok()?;
        Some(self.changed.last_is_rendered())
    }

    /// Returns the rows of the records that were pushed, in order. Their offsets are 0.
    ///
    /// # Errors
    /// Like [`Decoder::decode`]: no error depends on the input.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        if std::mem::take(&mut self.has_opened) {
            self.opener.take_records()?;
        }
        self.changed.take_changed()
    }
}
