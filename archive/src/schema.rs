//! The columns of the three tables. docs/archive.md shows them; a test compares.

/// Version of the tables, in each file. A reader that knows it knows the columns.
pub const FORMAT: &str = "1";

/// One row for each block.
pub const BLOCKS: &str = "message blocks {
  REQUIRED INT32 height;
  REQUIRED BYTE_ARRAY hash (STRING);
  REQUIRED BYTE_ARRAY previous_hash (STRING);
  REQUIRED BYTE_ARRAY merkle_root (STRING);
  REQUIRED INT64 time (TIMESTAMP(MILLIS,true));
  REQUIRED INT32 version;
  REQUIRED INT64 bits;
  REQUIRED INT64 nonce;
  REQUIRED INT32 tx_count;
  REQUIRED INT64 size;
  REQUIRED INT64 weight;
  REQUIRED INT64 fees;
}";

/// One row for each transaction, in the order of the chain.
pub const TRANSACTIONS: &str = "message transactions {
  REQUIRED INT32 height;
  REQUIRED INT32 position;
  REQUIRED BYTE_ARRAY txid (STRING);
  REQUIRED BYTE_ARRAY wtxid (STRING);
  REQUIRED BOOLEAN is_coinbase;
  REQUIRED INT32 version;
  REQUIRED INT64 locktime;
  REQUIRED INT64 size;
  REQUIRED INT64 weight;
  REQUIRED INT32 input_count;
  REQUIRED INT32 output_count;
  OPTIONAL INT64 input_value;
  REQUIRED INT64 output_value;
  OPTIONAL INT64 fee;
}";

/// One row for each input that spends an output, and for each output; of a transaction its
/// inputs come first.
pub const ADDRESS_EVENTS: &str = "message address_events {
  REQUIRED INT32 height;
  REQUIRED INT32 position;
  REQUIRED BYTE_ARRAY txid (STRING);
  REQUIRED BYTE_ARRAY kind (STRING);
  REQUIRED INT64 index;
  REQUIRED BYTE_ARRAY scripthash (STRING);
  OPTIONAL BYTE_ARRAY address (STRING);
  REQUIRED INT64 delta;
  OPTIONAL BYTE_ARRAY spent_txid (STRING);
  OPTIONAL INT64 spent_vout;
  OPTIONAL INT32 spent_height;
}";
