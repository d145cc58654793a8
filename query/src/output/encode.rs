//! Writes answers as CSV, JSON, Parquet and Arrow.
//!
//! Invariant: every value is written in full, or the answer fails with the column's name. In
//! Parquet and Arrow, string views and binary views become plain strings and bytes, which every
//! reader knows.

use std::io::Write;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use datafusion::arrow::csv;
use datafusion::arrow::ipc::writer::{FileWriter, StreamWriter};
use datafusion::arrow::json::writer::make_encoder;
use datafusion::arrow::json::{ArrayWriter, EncoderOptions, LineDelimitedWriter, WriterBuilder};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::{Format, next_batch};
use crate::error::{QueryError, Result};
use crate::session::Answer;

pub(super) async fn write(answer: &mut Answer, format: Format, out: &mut (impl Write + Send)) -> Result<u64> {
    let mut encoder = Encoder::new(format, &answer.schema, out)?;
    let mut rows = 0;
    while let Some(batch) = next_batch(answer).await? {
        rows += batch.num_rows() as u64;
        encoder.write(&batch)?;
    }
    encoder.finish()?;
    Ok(rows)
}

enum Encoder<W: Write + Send> {
    Csv { writer: csv::Writer<W>, schema: SchemaRef },
    Json(LineDelimitedWriter<W>),
    JsonArray(ArrayWriter<W>),
    Parquet { writer: Box<ArrowWriter<W>>, schema: SchemaRef },
    ArrowFile { writer: FileWriter<W>, schema: SchemaRef },
    ArrowStream { writer: StreamWriter<W>, schema: SchemaRef },
}

impl<W: Write + Send> Encoder<W> {
    fn new(format: Format, schema: &SchemaRef, out: W) -> Result<Self> {
        let plain = plain_schema(schema);
        let arrow = |source| QueryError::Encode { format: "arrow", source };
        Ok(match format {
            Format::Csv => {
                let schema = flat_schema(schema);
                let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
                // The writer writes the header with its first batch, and an answer may have none.
                writer
                    .write(&RecordBatch::new_empty(Arc::clone(&schema)))
                    .map_err(|source| QueryError::Encode { format: "csv", source })?;
                Encoder::Csv { writer, schema }
            }
            Format::JsonArray => {
                Encoder::JsonArray(WriterBuilder::new().with_explicit_nulls(true).build(out))
            }
            Format::Parquet => {
                let level = ZstdLevel::try_new(3).map_err(QueryError::EncodeParquet)?;
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(level))
                    .set_created_by(concat!("strongroom version ", env!("CARGO_PKG_VERSION")).to_owned())
                    .build();
                let writer = ArrowWriter::try_new(out, Arc::clone(&plain), Some(properties))
                    .map_err(QueryError::EncodeParquet)?;
                Encoder::Parquet { writer: Box::new(writer), schema: plain }
            }
            Format::ArrowFile => {
                Encoder::ArrowFile { writer: FileWriter::try_new(out, &plain).map_err(arrow)?, schema: plain }
            }
            Format::ArrowStream => Encoder::ArrowStream {
                writer: StreamWriter::try_new(out, &plain).map_err(arrow)?,
                schema: plain,
            },
            // `grid` writes the format `Table`, so this arm never gets it. Lines of JSON are the
            // closest format.
            Format::Json | Format::Table => {
                Encoder::Json(WriterBuilder::new().with_explicit_nulls(true).build(out))
            }
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let encode = |format| move |source| QueryError::Encode { format, source };
        match self {
            Encoder::Csv { writer, schema } => {
                flatten(batch, schema).and_then(|batch| writer.write(&batch)).map_err(encode("csv"))
            }
            Encoder::Json(writer) => writer.write(batch).map_err(encode("json")),
            Encoder::JsonArray(writer) => writer.write(batch).map_err(encode("json")),
            Encoder::Parquet { writer, schema } => {
                let batch = to_plain(batch, schema).map_err(encode("parquet"))?;
                writer.write(&batch).map_err(QueryError::EncodeParquet)
            }
            Encoder::ArrowFile { writer, schema } => {
                to_plain(batch, schema).and_then(|batch| writer.write(&batch)).map_err(encode("arrow"))
            }
            Encoder::ArrowStream { writer, schema } => {
                to_plain(batch, schema).and_then(|batch| writer.write(&batch)).map_err(encode("arrow"))
            }
        }
    }

    fn finish(self) -> Result<()> {
        let encode = |format| move |source| QueryError::Encode { format, source };
        match self {
            Encoder::Csv { .. } => Ok(()),
            Encoder::Json(mut writer) => writer.finish().map_err(encode("json")),
            Encoder::JsonArray(mut writer) => writer.finish().map_err(encode("json")),
            Encoder::Parquet { writer, .. } => writer.close().map(drop).map_err(QueryError::EncodeParquet),
            Encoder::ArrowFile { mut writer, .. } => writer.finish().map_err(encode("arrow")),
            Encoder::ArrowStream { mut writer, .. } => writer.finish().map_err(encode("arrow")),
        }
    }
}

/// Returns `schema` with plain strings and bytes in place of Arrow's views, also inside lists.
fn plain_schema(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|field| plain_field(field)).collect::<Vec<_>>()))
}

fn plain_field(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(Arc::new(plain_field(item))),
        DataType::LargeList(item) => DataType::LargeList(Arc::new(plain_field(item))),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| plain_field(field)).collect()),
        other => other.clone(),
    };
    Field::new(field.name(), data_type, field.is_nullable())
}

fn to_plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    convert(batch, schema, |column, field| cast(column, field.data_type()))
}

/// Returns `schema` with strings in place of lists, structs and other nested types.
fn flat_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        if field.data_type().is_nested() {
            Arc::new(Field::new(field.name(), DataType::Utf8, true))
        } else {
            Arc::clone(field)
        }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn flatten(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    convert(batch, schema, |column, _| {
        if column.data_type().is_nested() { json_texts(column) } else { Ok(Arc::clone(column)) }
    })
}

fn json_texts(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let field = Arc::new(Field::new("value", column.data_type().clone(), true));
    let options = EncoderOptions::default();
    let mut encoder = make_encoder(&field, column, &options)?;
    let mut texts = StringBuilder::new();
    let mut text = vec![];
    for row in 0..column.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        texts.append_value(String::from_utf8_lossy(&text));
    }
    Ok(Arc::new(texts.finish()))
}

fn convert(
    batch: &RecordBatch,
    schema: &SchemaRef,
    column: impl Fn(&ArrayRef, &Field) -> Result<ArrayRef, ArrowError>,
) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(values, field)| column(values, field));
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<Vec<_>, _>>()?, &options)
}
