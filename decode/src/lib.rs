//! Audit log lines to columns and back.

mod canonical;
mod columns;
mod decoder;
mod document;
pub mod frame;
mod json;
pub mod meaning;
mod members;
pub mod plain;
mod reject;
mod rejects;
pub mod render;
mod rows;
mod spell;
pub mod stream;
mod tape;
pub mod time;
mod wrapper;

pub use decoder::{DEPTH_MAX, DecodedBlock, Decoder, DecoderConfig, LINE_BYTES_MAX, decode_bytes};
pub use frame::Block;
pub use reject::{Reason, Refusal};
pub use rejects::reject_batch;
pub use wrapper::{ITEM_BYTES_MIN, SHAPE_GOOGLE, SHORT_ITEMS_MAX, decode_alone};
