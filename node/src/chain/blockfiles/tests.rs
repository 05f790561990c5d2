use std::io::Write;

use pulse_primitives::bitcoin::{Block, Network, consensus::serialize, constants::genesis_block};

use super::*;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
const XOR: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// A directory with block files as the kernel would write them.
pub struct Fixture {
    pub dir: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("xor.dat"), XOR).unwrap();
        Self { dir }
    }

    fn write_at(&self, name: &str, offset: u64, plain: &[u8]) -> u64 {
        let mut bytes = plain.to_vec();
        unmask(&mut bytes, XOR, offset);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.dir.path().join(name))
            .unwrap();
        file.write_all_at(&bytes, offset).unwrap();
        offset + plain.len() as u64
    }

    pub fn block(&self, file: &str, offset: u64, block: &Block) -> u64 {
        let bytes = serialize(block);
        let mut frame = MAGIC.to_vec();
        frame
            .write_all(&u32::try_from(bytes.len()).unwrap().to_le_bytes())
            .unwrap();
        frame.extend(bytes);
        self.write_at(file, offset, &frame)
    }

    fn undo(&self, file: &str, offset: u64, prev: &BlockHash, undo: &[u8]) -> u64 {
        let mut frame = MAGIC.to_vec();
        frame.extend(u32::try_from(undo.len()).unwrap().to_le_bytes());
        frame.extend(undo);
        let mut hashed = prev.as_byte_array().to_vec();
        hashed.extend(undo);
        frame.extend(sha256d::Hash::hash(&hashed).to_byte_array());
        self.write_at(file, offset, &frame)
    }

    pub fn open(&self) -> BlockFiles {
        BlockFiles::open(self.dir.path(), MAGIC).unwrap()
    }
}

pub fn block(nonce: u32) -> Block {
    let mut block = genesis_block(Network::Regtest);
    block.header.nonce = nonce;
    block
}

fn read_whole(files: &BlockFiles, position: &BlockPosition) -> Vec<u8> {
    files.read_block(position, 0, position.block_len).unwrap()
}

#[test]
fn blocks_are_found_across_files_and_read_without_the_mask() {
    let fixture = Fixture::new();
    let end = fixture.block("blk00000.dat", 0, &block(1));
    fixture.block("blk00000.dat", end, &block(2));
    fixture.block("blk00001.dat", 0, &block(3));
    let files = fixture.open();
    for nonce in [1, 2, 3] {
        let wanted = block(nonce);
        let (position, _) = files
            .find(&wanted.block_hash(), &BlockHash::all_zeros(), true, |_| {
                true
            })
            .unwrap();
        assert_eq!(read_whole(&files, &position), serialize(&wanted));
        let tail = files
            .read_block(&position, 80, position.block_len - 80)
            .unwrap();
        assert_eq!(tail, serialize(&wanted)[80..]);
    }
    let missing = files.find(
        &block(4).block_hash(),
        &BlockHash::all_zeros(),
        true,
        |_| true,
    );
    assert!(matches!(missing, Err(BlockSourceError::NotStored { .. })));
}

#[test]
fn a_frame_written_over_a_stale_one_is_found_and_the_old_position_is_stale() {
    let fixture = Fixture::new();
    let end = fixture.block("blk00000.dat", 0, &block(1));
    fixture.block("blk00000.dat", end, &block(2));
    let files = fixture.open();
    let no_hash = BlockHash::all_zeros();
    let (old, _) = files
        .find(&block(2).block_hash(), &no_hash, true, |_| true)
        .unwrap();
    // The kernel starts again from an older offset, in another order.
    let end = fixture.block("blk00000.dat", 0, &block(2));
    files.note_stored(&block(2).block_hash());
    fixture.block("blk00000.dat", end, &block(3));
    files.note_stored(&block(3).block_hash());
    assert_ne!(read_whole(&files, &old), serialize(&block(2)));
    let (new, _) = files
        .find(&block(2).block_hash(), &no_hash, true, |_| true)
        .unwrap();
    assert_eq!(read_whole(&files, &new), serialize(&block(2)));
    let (three, _) = files
        .find(&block(3).block_hash(), &no_hash, true, |_| true)
        .unwrap();
    assert_eq!(read_whole(&files, &three), serialize(&block(3)));
}

#[test]
fn undo_data_is_found_by_its_checksum_in_any_order() {
    let fixture = Fixture::new();
    let mut block_end = 0;
    let mut undo_end = 0;
    let prev = |n: u8| BlockHash::from_byte_array([n; 32]);
    for n in 1..=4u8 {
        block_end = fixture.block("blk00000.dat", block_end, &block(n.into()));
        undo_end = fixture.undo("rev00000.dat", undo_end, &prev(n), &[0, n]);
    }
    let files = fixture.open();
    for n in [1, 2, 4, 3, 1] {
        let (position, undo) = files
            .find(&block(n.into()).block_hash(), &prev(n), false, |_| true)
            .unwrap();
        assert_eq!(undo, [0, n]);
        assert_eq!(files.read_undo(&position, 0, 2).unwrap(), [0, n]);
    }
}

#[test]
fn damaged_undo_data_is_reported_not_returned() {
    let fixture = Fixture::new();
    fixture.block("blk00000.dat", 0, &block(1));
    let prev = BlockHash::from_byte_array([9; 32]);
    fixture.undo("rev00000.dat", 0, &prev, &[0, 1, 2, 3]);
    fixture.write_at("rev00000.dat", 9, &[0xff]);
    let found = fixture
        .open()
        .find(&block(1).block_hash(), &prev, false, |_| true);
    assert!(matches!(found, Err(BlockSourceError::UndoMissing { .. })));
}

#[test]
fn reads_outside_the_payload_are_stale() {
    let fixture = Fixture::new();
    fixture.block("blk00000.dat", 0, &block(1));
    let files = fixture.open();
    let (position, _) = files
        .find(
            &block(1).block_hash(),
            &BlockHash::all_zeros(),
            true,
            |_| true,
        )
        .unwrap();
    for (offset, len) in [
        (0, position.block_len + 1),
        (u32::MAX, 2),
        (position.block_len, 1),
    ] {
        let read = files.read_block(&position, offset, len);
        assert!(matches!(read, Err(BlockSourceError::Stale { .. })));
    }
    let gone = BlockPosition {
        file: 7,
        ..position
    };
    let read = files.read_block(&gone, 0, 80);
    assert!(matches!(read, Err(BlockSourceError::Stale { .. })));
}

#[test]
fn a_new_folder_gets_a_mask_and_any_other_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    // What a start that was cut short leaves, and a lock of the kernel.
    for hidden in [".lock", ".xor.dat.tmp"] {
        fs::write(dir.path().join(hidden), b"x").unwrap();
    }
    super::prepare(dir.path()).unwrap();
    let mask = fs::read(dir.path().join("xor.dat")).unwrap();
    assert_eq!(mask.len(), 8);
    assert_ne!(mask, [0; 8]);
    super::prepare(dir.path()).unwrap();
    assert_eq!(fs::read(dir.path().join("xor.dat")).unwrap(), mask);

    // Block files without a mask are not masked.
    let old = tempfile::tempdir().unwrap();
    fs::write(old.path().join("blk00000.dat"), b"x").unwrap();
    super::prepare(old.path()).unwrap();
    assert!(!old.path().join("xor.dat").exists());
}
