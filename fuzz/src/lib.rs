//! What the fuzz targets check, apart from the fuzzer that calls them.
//!
//! The decoder's files are compiled here a second time, directly from `ingest/src`: the whole crate
//! would bring Delta and Parquet, which means minutes of instrumented build that no input ever
//! reaches.

#[path = "../../ingest/src/canonical.rs"]
pub mod canonical;
#[path = "../../ingest/src/columns.rs"]
pub mod columns;
#[allow(dead_code, reason = "what compares sealed rows is not compiled here")]
#[path = "../../ingest/src/decode.rs"]
pub mod decode;
#[path = "../../ingest/src/document.rs"]
pub mod document;
#[path = "../../ingest/src/frame.rs"]
pub mod frame;
#[allow(dead_code, reason = "what compares sealed rows is not compiled here")]
#[path = "../../ingest/src/members.rs"]
pub mod members;
#[path = "../../ingest/src/plain.rs"]
pub mod plain;
#[path = "../../ingest/src/reject.rs"]
pub mod reject;
// Parts that only the pipeline uses are not reached from here.
#[allow(dead_code, reason = "the pipeline is not compiled here")]
#[path = "../../ingest/src/rejects.rs"]
pub mod rejects;
#[allow(dead_code, reason = "what compares sealed rows is not compiled here")]
#[path = "../../ingest/src/render.rs"]
pub mod render;
#[path = "../../ingest/src/rows.rs"]
pub mod rows;
#[path = "../../ingest/src/spell.rs"]
pub mod spell;
#[path = "../../ingest/src/tape.rs"]
pub mod tape;
#[path = "../../ingest/src/time.rs"]
pub mod time;
#[allow(dead_code, reason = "what compares sealed rows is not compiled here")]
#[path = "../../ingest/src/wrapper/mod.rs"]
pub mod wrapper;

pub mod blocks;
pub mod mutate;
