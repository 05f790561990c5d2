//! A table on its way into one file.
//!
//! rows -> columns in memory -> row group -> `NAME.tmp` -> fsync -> rename to `NAME`
//!
//! # Correctness
//! A file that has its name is whole: it gets it after its bytes are on the disk.
//!
//! # Limits
//! Rows in memory are written out at [`GROUP_ROWS`] or [`GROUP_BYTES`], whichever is first.

use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
    sync::Arc,
};

use parquet::{
    basic::{Compression, Repetition, Type as Physical, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        reader::{FileReader, SerializedFileReader},
        writer::SerializedFileWriter,
    },
    schema::parser::parse_message_type,
};

/// Most rows of a row group.
const GROUP_ROWS: usize = 128 << 10;
/// Bytes of rows at which a row group is written.
const GROUP_BYTES: usize = 32 << 20;

/// What a table can fail of.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The library refused what it was given, or could not write.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Of an `INT32` column.
    Int(i32),
    /// Of an `INT64` column.
    Long(i64),
    /// Of a `BOOLEAN` column.
    Flag(bool),
    /// Of a `STRING` column.
    Text(String),
    /// None, in an `OPTIONAL` column.
    Null,
}

impl From<Option<i64>> for Cell {
    fn from(value: Option<i64>) -> Self {
        value.map_or(Self::Null, Self::Long)
    }
}

#[derive(Debug)]
enum Values {
    Int(Vec<i32>),
    Long(Vec<i64>),
    Flag(Vec<bool>),
    Text(Vec<ByteArray>),
}

#[derive(Debug)]
struct Column {
    values: Values,
    /// 1 where there is a value, 0 where there is none; `None` where there always is one.
    present: Option<Vec<i16>>,
}

/// A table that is being written.
pub struct Table {
    name: PathBuf,
    temporary: PathBuf,
    writer: SerializedFileWriter<BufWriter<File>>,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
    total: u64,
}

impl Table {
    /// Begins the file `name` with the columns of `schema`; `facts` stand in its footer.
    ///
    /// # Errors
    /// [`TableError::Io`].
    pub fn begin(name: &Path, schema: &str, facts: &[(&str, String)]) -> Result<Self, TableError> {
        let schema = Arc::new(parse_message_type(schema)?);
        let columns = schema.get_fields().iter().map(|field| Column {
            values: match field.get_physical_type() {
                Physical::INT32 => Values::Int(Vec::new()),
                Physical::INT64 => Values::Long(Vec::new()),
                Physical::BOOLEAN => Values::Flag(Vec::new()),
                _ => Values::Text(Vec::new()),
            },
            present: (field.get_basic_info().repetition() == Repetition::OPTIONAL).then(Vec::new),
        });
        let columns = columns.collect();
        let facts = facts.iter();
        let facts = facts.map(|(key, value)| KeyValue::new((*key).to_owned(), value.clone()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by("pulse-node".to_owned())
            .set_key_value_metadata(Some(facts.collect()))
            .build();
        let mut temporary = name.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = BufWriter::new(File::create(&temporary)?);
        Ok(Self {
            name: name.to_owned(),
            temporary,
            writer: SerializedFileWriter::new(file, schema, Arc::new(properties))?,
            columns,
            rows: 0,
            bytes: 0,
            total: 0,
        })
    }

    /// Adds a row: one cell for each column, in their order.
    ///
    /// # Errors
    /// [`TableError`] if a row group could not be written.
    ///
    /// # Panics
    /// If a cell is not of its column's type.
    pub fn push<const N: usize>(&mut self, cells: [Cell; N]) -> Result<(), TableError> {
        assert_eq!(N, self.columns.len(), "a row has all columns");
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            self.bytes += column.push(cell);
        }
        self.rows += 1;
        self.total += 1;
        if self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
            self.write_group()?;
        }
        Ok(())
    }

    /// Writes the rest and gives the file its name. Rows and bytes of the file.
    ///
    /// # Errors
    /// [`TableError`]; the file does not get its name then.
    pub fn finish(mut self) -> Result<(u64, u64), TableError> {
        self.write_group()?;
        let file = self.writer.into_inner()?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        fs::rename(&self.temporary, &self.name)?;
        if let Some(folder) = self.name.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok((self.total, bytes))
    }

    fn write_group(&mut self) -> Result<(), TableError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let Some(mut writer) = group.next_column()? else {
                break;
            };
            let present = column.present.as_deref();
            match &column.values {
                Values::Int(values) => writer
                    .typed::<Int32Type>()
                    .write_batch(values, present, None)?,
                Values::Long(values) => writer
                    .typed::<Int64Type>()
                    .write_batch(values, present, None)?,
                Values::Flag(values) => writer
                    .typed::<BoolType>()
                    .write_batch(values, present, None)?,
                Values::Text(values) => writer
                    .typed::<ByteArrayType>()
                    .write_batch(values, present, None)?,
            };
            writer.close()?;
            column.clear();
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

impl Column {
    /// Adds a value; gives about the memory that it takes.
    fn push(&mut self, cell: Cell) -> usize {
        if let Some(present) = &mut self.present {
            present.push(i16::from(cell != Cell::Null));
        }
        match (&mut self.values, cell) {
            (Values::Int(values), Cell::Int(value)) => values.push(value),
            (Values::Long(values), Cell::Long(value)) => values.push(value),
            (Values::Flag(values), Cell::Flag(value)) => values.push(value),
            (Values::Text(values), Cell::Text(value)) => {
                let bytes = value.len() + size_of::<ByteArray>();
                values.push(ByteArray::from(value.into_bytes()));
                return bytes;
            }
            (_, Cell::Null) if self.present.is_some() => {}
            (values, cell) => unreachable!("{cell:?} is no value of {values:?}"),
        }
        8
    }

    fn clear(&mut self) {
        match &mut self.values {
            Values::Int(values) => values.clear(),
            Values::Long(values) => values.clear(),
            Values::Flag(values) => values.clear(),
            Values::Text(values) => values.clear(),
        }
        if let Some(present) = &mut self.present {
            present.clear();
        }
    }
}

/// Whether the file `name` is there, is whole, and says these `facts` of itself.
pub fn is_complete(name: &Path, facts: &[(&str, String)]) -> bool {
    let Ok(reader) = File::open(name)
        .map_err(ParquetError::from)
        .and_then(SerializedFileReader::new)
    else {
        return false;
    };
    let Some(found) = reader.metadata().file_metadata().key_value_metadata() else {
        return false;
    };
    facts.iter().all(|(key, value)| {
        let mut found = found.iter().filter(|pair| pair.key == *key);
        found.any(|pair| pair.value.as_ref() == Some(value))
    })
}
