//! Writes and reads Delta checkpoints: classic checkpoints, each in one Parquet file.
//!
//! Invariants. A checkpoint contains its [`State`] and nothing else. It has the same columns as a
//! checkpoint of delta-rs 1.1, including columns that are always null here (`remove`, `sidecar`),
//! because some readers require them. The tags of a file are kept: in a bucket they pin the version
//! of the object.
//!
//! Checkpoints are compressed with zstd, and their values are not stored as dictionaries. So they
//! take a third of the bytes of checkpoints by delta-rs, and most of these bytes are hashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, MapBuilder, MapFieldNames, StringBuilder};
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
    new_null_array,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::{Add, DeltaError, Format, Metadata, Protocol, State};
use strongroom_parquet::{Batches, Fault, quietly};

/// Compression level. A high level is worth its time, because a checkpoint is written once and kept
/// for years.
const ZSTD_LEVEL: i32 = 9;

/// The action in one row of a checkpoint.
#[derive(Clone, Copy)]
enum Action<'s> {
    Protocol(&'s Protocol),
    Metadata(&'s Metadata),
    Txn(&'s str, i64),
    Add(&'s Add),
}

/// Returns the checkpoint of a state, as the bytes of its file.
pub(crate) fn encode(state: &State) -> Result<Vec<u8>, DeltaError> {
    let failed = |detail: String| DeltaError::Checkpoint { version: state.version, detail };
    let batch = batch(state).map_err(|error| failed(error.to_string()))?;
    let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(|error| failed(error.to_string()))?;
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("strongroom version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false);
    for repeated in ["add.tags.key_value.key", "add.partitionValues.key_value.key"] {
        let path = ColumnPath::new(repeated.split('.').map(str::to_owned).collect());
        properties = properties.set_column_dictionary_enabled(path, true);
    }
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties.build()))
        .map_err(|error| failed(error.to_string()))?;
    writer.write(&batch).map_err(|error| failed(error.to_string()))?;
    writer.close().map_err(|error| failed(error.to_string()))?;
    Ok(bytes)
}

/// Returns the number of actions in a checkpoint of this state.
pub(crate) fn actions(state: &State) -> usize {
    2 + state.txns.len() + state.files.len()
}

fn batch(state: &State) -> Result<RecordBatch, ArrowError> {
    let mut rows: Vec<Action<'_>> = Vec::with_capacity(actions(state));
    rows.extend(state.protocol.iter().map(Action::Protocol));
    rows.extend(state.metadata.iter().map(Action::Metadata));
    rows.extend(state.txns.iter().map(|(app_id, version)| Action::Txn(app_id, *version)));
    rows.extend(state.files.iter().map(Action::Add));

    let schema = schema();
    let field = |name: &str| match schema.field_with_name(name)?.data_type() {
        DataType::Struct(fields) => Ok(fields.clone()),
        _ => Err(ArrowError::SchemaError(format!("{name} is not a struct"))),
    };
    let none = |name: &str| {
        Ok::<_, ArrowError>(new_null_array(schema.field_with_name(name)?.data_type(), rows.len()))
    };
    let columns = vec![
        adds(&rows, field("add")?)?,
        none("remove")?,
        metadata(&rows, field("metaData")?)?,
        protocols(&rows, field("protocol")?)?,
        txns(&rows, field("txn")?)?,
        none("domainMetadata")?,
        none("sidecar")?,
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
}

/// Returns the values of one member, for all rows; null in the rows of other actions.
fn texts<'s>(rows: &[Action<'s>], of: impl Fn(Action<'s>) -> Option<&'s str>) -> ArrayRef {
    Arc::new(rows.iter().map(|row| of(*row)).collect::<StringArray>())
}

fn longs<'s>(rows: &[Action<'s>], of: impl Fn(Action<'s>) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.iter().map(|row| of(*row)).collect::<Int64Array>())
}

fn maps<'s, K: AsRef<str> + 's, V: AsText<'s> + 's>(
    rows: &[Action<'s>],
    of: impl Fn(Action<'s>) -> Option<&'s BTreeMap<K, V>>,
) -> Result<ArrayRef, ArrowError> {
    let names =
        MapFieldNames { entry: "key_value".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for row in rows {
        let map = of(*row);
        for (key, value) in map.into_iter().flatten() {
            builder.keys().append_value(key);
            builder.values().append_option(value.as_text());
        }
        builder.append(map.is_some())?;
    }
    Ok(Arc::new(builder.finish()))
}

/// A value of a map, which may be null.
trait AsText<'s> {
    fn as_text(&'s self) -> Option<&'s str>;
}

impl<'s> AsText<'s> for String {
    fn as_text(&'s self) -> Option<&'s str> {
        Some(self)
    }
}

impl<'s> AsText<'s> for Option<String> {
    fn as_text(&'s self) -> Option<&'s str> {
        self.as_deref()
    }
}

fn structs(
    rows: &[Action<'_>],
    fields: Fields,
    columns: Vec<ArrayRef>,
    is_one: impl Fn(Action<'_>) -> bool,
) -> Result<ArrayRef, ArrowError> {
    let validity: NullBuffer = rows.iter().map(|row| is_one(*row)).collect::<Vec<bool>>().into();
    Ok(Arc::new(StructArray::try_new(fields, columns, Some(validity))?))
}

fn adds(rows: &[Action<'_>], fields: Fields) -> Result<ArrayRef, ArrowError> {
    fn add<'s>(row: Action<'s>) -> Option<&'s Add> {
        match row {
            Action::Add(add) => Some(add),
            _ => None,
        }
    }
    let changes = rows.iter().map(|row| add(*row).map(|add| add.data_change)).collect::<BooleanArray>();
    let mut columns = vec![
        texts(rows, |row| add(row).map(|add| add.path.as_str())),
        maps(rows, |row| add(row).map(|add| &add.partition_values))?,
        longs(rows, |row| add(row).map(|add| add.size)),
        longs(rows, |row| add(row).map(|add| add.modification_time)),
        Arc::new(changes),
        texts(rows, |row| add(row).and_then(|add| add.stats.as_deref())),
        maps(rows, |row| add(row).and_then(|add| add.tags.as_ref()))?,
    ];
    let rest = fields.iter().skip(columns.len());
    columns.extend(rest.map(|field| new_null_array(field.data_type(), rows.len())));
    structs(rows, fields, columns, |row| matches!(row, Action::Add(_)))
}

fn metadata(rows: &[Action<'_>], fields: Fields) -> Result<ArrayRef, ArrowError> {
    fn said<'s>(row: Action<'s>) -> Option<&'s Metadata> {
        match row {
            Action::Metadata(metadata) => Some(metadata),
            _ => None,
        }
    }
    let DataType::Struct(format) = fields[3].data_type().clone() else {
        return Err(ArrowError::SchemaError("format is not a struct".to_owned()));
    };
    let providers = texts(rows, |row| said(row).map(|said| said.format.provider.as_str()));
    let options = maps(rows, |row| said(row).map(|said| &said.format.options))?;
    let is_metadata = |row: Action<'_>| matches!(row, Action::Metadata(_));
    let mut partitions = ListBuilder::new(StringBuilder::new()).with_field(element());
    for row in rows {
        let columns = said(*row).map(|said| &said.partition_columns);
        columns.into_iter().flatten().for_each(|column| partitions.values().append_value(column));
        partitions.append(columns.is_some());
    }
    let columns = vec![
        texts(rows, |row| said(row).map(|said| said.id.as_str())),
        texts(rows, |row| said(row).and_then(|said| said.name.as_deref())),
        texts(rows, |row| said(row).and_then(|said| said.description.as_deref())),
        structs(rows, format, vec![providers, options], is_metadata)?,
        texts(rows, |row| said(row).map(|said| said.schema_string.as_str())),
        Arc::new(partitions.finish()),
        longs(rows, |row| said(row).and_then(|said| said.created_time)),
        maps(rows, |row| said(row).map(|said| &said.configuration))?,
    ];
    structs(rows, fields, columns, is_metadata)
}

fn protocols(rows: &[Action<'_>], fields: Fields) -> Result<ArrayRef, ArrowError> {
    let versions = |of: fn(&Protocol) -> u32| -> ArrayRef {
        let values = rows.iter().map(|row| match row {
            Action::Protocol(protocol) => i32::try_from(of(protocol)).ok(),
            _ => None,
        });
        Arc::new(values.collect::<Int32Array>())
    };
    let features = |at: usize| new_null_array(fields[at].data_type(), rows.len());
    let columns = vec![
        versions(|protocol| protocol.min_reader_version),
        versions(|protocol| protocol.min_writer_version),
        features(2),
        features(3),
    ];
    structs(rows, fields.clone(), columns, |row| matches!(row, Action::Protocol(_)))
}

fn txns(rows: &[Action<'_>], fields: Fields) -> Result<ArrayRef, ArrowError> {
    let columns = vec![
        texts(rows, |row| match row {
            Action::Txn(app_id, _) => Some(app_id),
            _ => None,
        }),
        longs(rows, |row| match row {
            Action::Txn(_, version) => Some(version),
            _ => None,
        }),
        new_null_array(fields[2].data_type(), rows.len()),
    ];
    structs(rows, fields, columns, |row| matches!(row, Action::Txn(..)))
}

fn element() -> Field {
    Field::new("element", DataType::Utf8, true)
}

fn schema() -> Schema {
    let needed = |name: &str, of: DataType| Field::new(name, of, false);
    let maybe = |name: &str, of: DataType| Field::new(name, of, true);
    let text = || DataType::Utf8;
    let long = || DataType::Int64;
    let list = || DataType::List(Arc::new(element()));
    let map = || {
        let entry = Fields::from(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Utf8, true),
        ]);
        DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entry), false)), false)
    };
    let group = |fields: Vec<Field>| DataType::Struct(fields.into());
    let vector = || {
        group(vec![
            needed("storageType", text()),
            needed("pathOrInlineDv", text()),
            maybe("offset", DataType::Int32),
            needed("sizeInBytes", DataType::Int32),
            needed("cardinality", long()),
        ])
    };
    let add = vec![
        needed("path", text()),
        needed("partitionValues", map()),
        needed("size", long()),
        needed("modificationTime", long()),
        needed("dataChange", DataType::Boolean),
        maybe("stats", text()),
        maybe("tags", map()),
        maybe("deletionVector", vector()),
        maybe("baseRowId", long()),
        maybe("defaultRowCommitVersion", long()),
        maybe("clusteringProvider", text()),
    ];
    let remove = vec![
        needed("path", text()),
        maybe("deletionTimestamp", long()),
        needed("dataChange", DataType::Boolean),
        maybe("extendedFileMetadata", DataType::Boolean),
        maybe("partitionValues", map()),
        maybe("size", long()),
        maybe("stats", text()),
        maybe("tags", map()),
        maybe("deletionVector", vector()),
        maybe("baseRowId", long()),
        maybe("defaultRowCommitVersion", long()),
    ];
    let metadata = vec![
        needed("id", text()),
        maybe("name", text()),
        maybe("description", text()),
        needed("format", group(vec![needed("provider", text()), needed("options", map())])),
        needed("schemaString", text()),
        needed("partitionColumns", list()),
        maybe("createdTime", long()),
        needed("configuration", map()),
    ];
    let protocol = vec![
        needed("minReaderVersion", DataType::Int32),
        needed("minWriterVersion", DataType::Int32),
        maybe("readerFeatures", list()),
        maybe("writerFeatures", list()),
    ];
    let txn = vec![needed("appId", text()), needed("version", long()), maybe("lastUpdated", long())];
    let domain =
        vec![needed("domain", text()), needed("configuration", text()), needed("removed", DataType::Boolean)];
    let sidecar = vec![
        needed("path", text()),
        needed("sizeInBytes", long()),
        needed("modificationTime", long()),
        maybe("tags", map()),
    ];
    Schema::new(vec![
        maybe("add", group(add)),
        maybe("remove", group(remove)),
        maybe("metaData", group(metadata)),
        maybe("protocol", group(protocol)),
        maybe("txn", group(txn)),
        maybe("domainMetadata", group(domain)),
        maybe("sidecar", group(sidecar)),
    ])
}

/// Reads the state in a checkpoint. Columns are found by name, whatever program wrote them.
pub(super) fn read(bytes: Bytes, version: u64) -> Result<State, DeltaError> {
    let undecodable = |detail: String| DeltaError::Checkpoint { version, detail };
    let mut state = State { version, checkpoint: Some(version), ..State::default() };
    let taken = quietly(|| {
        for batch in Batches::of_checkpoint(bytes).map_err(|error| error.to_string())? {
            let batch = batch.map_err(|error| error.to_string())?;
            take(&batch, &mut state).map_err(|what| format!("{what} is missing"))?;
        }
        Ok(())
    });
    let taken = taken.unwrap_or_else(|| Err(Fault::Panicked.to_string()));
    taken.map_err(undecodable)?;
    Ok(state)
}

fn take(batch: &RecordBatch, state: &mut State) -> Result<(), &'static str> {
    let actions = |name: &str| batch.column_by_name(name).and_then(|column| column.as_struct_opt());
    if let Some(rows) = actions("protocol") {
        let (reader, writer) = (Longs::of(rows, "minReaderVersion"), Longs::of(rows, "minWriterVersion"));
        for row in valid(rows) {
            let version = |column: &Longs, what| {
                column.get(row).and_then(|version| u32::try_from(version).ok()).ok_or(what)
            };
            state.protocol = Some(Protocol {
                min_reader_version: version(&reader, "minReaderVersion")?,
                min_writer_version: version(&writer, "minWriterVersion")?,
            });
        }
    }
    if let Some(rows) = actions("metaData") {
        let texts = |name| Texts::of(rows, name);
        let (ids, names, descriptions) = (texts("id"), texts("name"), texts("description"));
        let (schemas, created) = (texts("schemaString"), Longs::of(rows, "createdTime"));
        let (configurations, partitions) =
            (Maps::of(rows, "configuration"), Lists::of(rows, "partitionColumns"));
        let format = rows.column_by_name("format").and_then(|column| column.as_struct_opt());
        let providers = format.map_or(Texts(None), |format| Texts::of(format, "provider"));
        for row in valid(rows) {
            let configuration = configurations.get(row).unwrap_or_default();
            state.metadata = Some(Metadata {
                id: ids.get(row).ok_or("id")?.to_owned(),
                name: names.get(row).map(str::to_owned),
                description: descriptions.get(row).map(str::to_owned),
                format: Format {
                    provider: providers.get(row).ok_or("format.provider")?.to_owned(),
                    options: BTreeMap::new(),
                },
                schema_string: schemas.get(row).ok_or("schemaString")?.to_owned(),
                partition_columns: partitions.get(row).ok_or("partitionColumns")?,
                configuration: configuration
                    .into_iter()
                    .filter_map(|(key, value)| Some((key, value?)))
                    .collect(),
                created_time: created.get(row),
            });
        }
    }
    if let Some(rows) = actions("txn") {
        let (app_ids, versions) = (Texts::of(rows, "appId"), Longs::of(rows, "version"));
        for row in valid(rows) {
            let app_id = app_ids.get(row).ok_or("appId")?.to_owned();
            state.txns.insert(app_id, versions.get(row).ok_or("version of a txn")?);
        }
    }
    if let Some(rows) = actions("add") {
        let texts = |name| Texts::of(rows, name);
        let longs = |name| Longs::of(rows, name);
        let (paths, stats, sizes, times) =
            (texts("path"), texts("stats"), longs("size"), longs("modificationTime"));
        let (partitions, tags) = (Maps::of(rows, "partitionValues"), Maps::of(rows, "tags"));
        let changes = rows.column_by_name("dataChange").and_then(|column| column.as_boolean_opt());
        let vectors = rows.column_by_name("deletionVector");
        for row in valid(rows) {
            state.files.push(Add {
                path: paths.get(row).ok_or("path")?.to_owned(),
                partition_values: partitions.get(row).ok_or("partitionValues")?,
                size: sizes.get(row).ok_or("size")?,
                modification_time: times.get(row).unwrap_or(0),
                data_change: changes.is_some_and(|changes| changes.is_valid(row) && changes.value(row)),
                stats: stats.get(row).map(str::to_owned),
                tags: tags.get(row),
                deletion_vector: vectors
                    .is_some_and(|vectors| vectors.is_valid(row))
                    .then_some(serde::de::IgnoredAny),
            });
        }
    }
    Ok(())
}

fn valid(actions: &StructArray) -> impl Iterator<Item = usize> {
    (0..actions.len()).filter(|row| actions.is_valid(*row))
}

fn cast(column: &ArrayRef, to: &DataType) -> Option<ArrayRef> {
    arrow_cast::cast(column, to).ok()
}

/// A member that is a string, in whatever Arrow type the Parquet reader returns strings.
pub(crate) struct Texts(Option<StringArray>);

impl Texts {
    pub(crate) fn of(actions: &StructArray, name: &str) -> Texts {
        Texts(actions.column_by_name(name).and_then(Texts::cast))
    }

    fn cast(column: &ArrayRef) -> Option<StringArray> {
        cast(column, &DataType::Utf8)?.as_string_opt::<i32>().cloned()
    }

    pub(crate) fn get(&self, row: usize) -> Option<&str> {
        let column = self.0.as_ref()?;
        column.is_valid(row).then(|| column.value(row))
    }
}

/// A member that is a whole number.
pub(crate) struct Longs(Option<Int64Array>);

impl Longs {
    pub(crate) fn of(actions: &StructArray, name: &str) -> Longs {
        let column = actions.column_by_name(name).and_then(|column| cast(column, &DataType::Int64));
        Longs(column.and_then(|column| column.as_primitive_opt::<Int64Type>().cloned()))
    }

    pub(crate) fn get(&self, row: usize) -> Option<i64> {
        let column = self.0.as_ref()?;
        column.is_valid(row).then(|| column.value(row))
    }
}

/// A member that is a list of strings.
pub(crate) struct Lists {
    rows: Option<ArrayRef>,
    items: Texts,
}

impl Lists {
    pub(crate) fn of(actions: &StructArray, name: &str) -> Lists {
        let rows = actions.column_by_name(name).filter(|column| column.as_list_opt::<i32>().is_some());
        let items = rows.and_then(|rows| Texts::cast(rows.as_list::<i32>().values()));
        Lists { rows: rows.cloned(), items: Texts(items) }
    }

    pub(crate) fn get(&self, row: usize) -> Option<Vec<String>> {
        let rows = self.rows.as_ref()?.as_list::<i32>();
        let range = |row: usize| rows.value_offsets()[row] as usize..rows.value_offsets()[row + 1] as usize;
        rows.is_valid(row)
            .then(|| range(row).filter_map(|at| self.items.get(at)).map(str::to_owned).collect())
    }
}

/// A member that is a map of strings.
pub(crate) struct Maps {
    rows: Option<ArrayRef>,
    keys: Texts,
    values: Texts,
}

impl Maps {
    pub(crate) fn of(actions: &StructArray, name: &str) -> Maps {
        let rows = actions.column_by_name(name).filter(|column| column.as_map_opt().is_some());
        let part = |at: usize| rows.and_then(|rows| Texts::cast(rows.as_map().entries().column(at)));
        Maps { keys: Texts(part(0)), values: Texts(part(1)), rows: rows.cloned() }
    }

    pub(crate) fn get(&self, row: usize) -> Option<BTreeMap<String, Option<String>>> {
        let rows = self.rows.as_ref()?.as_map();
        if !rows.is_valid(row) {
            return None;
        }
        let range = rows.value_offsets()[row] as usize..rows.value_offsets()[row + 1] as usize;
        let entry = |at| Some((self.keys.get(at)?.to_owned(), self.values.get(at).map(str::to_owned)));
        Some(range.filter_map(entry).collect())
    }
}
