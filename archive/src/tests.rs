use std::{fs, path::Path};

use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::RowAccessor,
};

use crate::{
    schema,
    table::{Cell, Table, is_complete},
};

const SCHEMA: &str = "message t {
  REQUIRED INT32 a;
  REQUIRED INT64 b;
  REQUIRED BOOLEAN c;
  REQUIRED BYTE_ARRAY d (STRING);
  OPTIONAL BYTE_ARRAY e (STRING);
  OPTIONAL INT64 f;
}";

fn facts(last: &str) -> Vec<(&'static str, String)> {
    vec![("pulse.format", "1".to_owned()), ("last", last.to_owned())]
}

fn write(path: &Path, rows: i32) {
    let mut table = Table::begin(path, SCHEMA, &facts("x")).unwrap();
    for n in 0..rows {
        let some = n % 3 == 0;
        let text = |some: bool| match some {
            true => Cell::Text(format!("e{n}")),
            false => Cell::Null,
        };
        table
            .push([
                Cell::Int(n),
                Cell::Long(i64::from(n) << 33),
                Cell::Flag(some),
                Cell::Text(format!("d{n}")),
                text(some),
                Cell::from((!some).then_some(i64::from(-n))),
            ])
            .unwrap();
    }
    assert!(!path.exists(), "it has no name before it is whole");
    let (count, bytes) = table.finish().unwrap();
    assert_eq!(count, u64::try_from(rows).unwrap());
    assert_eq!(bytes, fs::metadata(path).unwrap().len());
}

#[test]
fn rows_of_several_groups_read_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let rows = 300_000;
    write(&path, rows);
    let reader = SerializedFileReader::new(fs::File::open(&path).unwrap()).unwrap();
    assert_eq!(reader.num_row_groups(), 3);
    let mut next = 0;
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        assert_eq!(row.get_int(0).unwrap(), next);
        assert_eq!(row.get_long(1).unwrap(), i64::from(next) << 33);
        let some = next % 3 == 0;
        assert_eq!(row.get_bool(2).unwrap(), some);
        assert_eq!(row.get_string(3).unwrap(), &format!("d{next}"));
        assert_eq!(row.get_string(4).is_ok(), some);
        assert_eq!(row.get_long(5).ok(), (!some).then_some(i64::from(-next)));
        next += 1;
    }
    assert_eq!(next, rows);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn only_a_whole_file_that_says_the_same_counts_as_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    assert!(!is_complete(&path, &facts("x")));
    write(&path, 10);
    assert!(is_complete(&path, &facts("x")));
    assert!(!is_complete(&path, &facts("y")));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(!is_complete(&path, &facts("x")));
}

#[test]
fn the_documentation_shows_the_columns() {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/archive.md"));
    for table in [schema::BLOCKS, schema::TRANSACTIONS, schema::ADDRESS_EVENTS] {
        assert!(text.contains(table), "{table}");
    }
}
