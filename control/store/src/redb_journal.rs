//! The store's file: redb, one table of entries and one of facts about the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};

use crate::journal::{Change, Journal, JournalError, Loaded};
use crate::{Entry, Revision};

/// Key → created (8 bytes, little endian), modified (8), checksum of key and value (8), value.
const ENTRIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("entries");
const FACTS: TableDefinition<'static, &str, u64> = TableDefinition::new("facts");
const REVISION: &str = "revision";
const FORMAT: &str = "format";
/// Raised when the layout changes, so that an older binary refuses what it cannot read.
const FORMAT_NOW: u64 = 1;
const HEADER_BYTES: usize = 24;
/// Pages redb keeps; reads are served from our own memory, so this only serves commits.
const CACHE_BYTES: usize = 2 * 1024 * 1024;

/// Why a store's file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process: stop that cluster first, or choose another data directory", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not a store, or its content does not add up.
    #[error("{} is damaged ({detail}): restore it from a backup, or start afresh without it (`meshgate up --fresh`)", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not add up.
        detail: String,
    },
    /// It was written by a newer version.
    #[error("{} has format {found}, this version reads {FORMAT_NOW}: use the newer meshgate that wrote it", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The operating system refused.
    #[error("{} cannot be opened: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The writer's thread could not be started.
    #[error("the store's writer thread cannot be started: {source}")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
}

/// The open file.
#[derive(Debug)]
pub(crate) struct RedbJournal {
    path: PathBuf,
    /// `None` after a failure, until it was opened again: redb refuses all work after an I/O error.
    database: Option<Database>,
}

impl RedbJournal {
    pub(crate) fn open(path: &Path) -> Result<(RedbJournal, Loaded), OpenError> {
        let database = open_database(path)?;
        let loaded = load(&database, path)?;
        let journal = RedbJournal {
            path: path.to_path_buf(),
            database: Some(database),
        };
        Ok((journal, loaded))
    }
}

impl Journal for RedbJournal {
    fn commit(&mut self, revision: Revision, changes: &[Change]) -> Result<(), JournalError> {
        let Some(database) = &self.database else {
            return Err(JournalError(format!("{} is not open", self.path.display())));
        };
        let outcome = write_batch(database, revision, changes);
        outcome.map_err(|error| {
            // Closed at once: its lock and its view of the file are worthless now.
            self.database = None;
            JournalError(format!("{}: {error}", self.path.display()))
        })
    }

    fn recover(&mut self) -> Result<Revision, JournalError> {
        self.database = None;
        let database =
            open_database(&self.path).map_err(|error| JournalError(error.to_string()))?;
        let held = held_revision(&database).map_err(|error| JournalError(error.to_string()))?;
        // A database that opens may still have no room; only a commit proves that writes work again.
        write_batch(&database, held, &[]).map_err(|error| JournalError(error.to_string()))?;
        self.database = Some(database);
        Ok(held)
    }
}

fn open_database(path: &Path) -> Result<Database, OpenError> {
    let opened = Database::builder().set_cache_size(CACHE_BYTES).create(path);
    opened.map_err(|error| {
        let path = path.to_path_buf();
        match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
            DatabaseError::Storage(StorageError::Io(source)) if !says_damaged(&source) => {
                OpenError::Io { path, source }
            }
            other => OpenError::Damaged {
                path,
                detail: other.to_string(),
            },
        }
    })
}

/// redb reports a file that is no database, or a cut one, as these kinds of I/O error.
fn says_damaged(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

fn write_batch(
    database: &Database,
    revision: Revision,
    changes: &[Change],
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut record = Vec::new();
        for change in changes {
            match change {
                Change::Put(entry) => {
                    encode(entry, &mut record);
                    entries.insert(&*entry.key, record.as_slice())?;
                }
                Change::Delete(key) => {
                    entries.remove(&**key)?;
                }
            }
        }
        let mut facts = transaction.open_table(FACTS)?;
        facts.insert(REVISION, revision)?;
        facts.insert(FORMAT, FORMAT_NOW)?;
    }
    // redb's default durability: commit returns after fsync.
    transaction.commit()?;
    Ok(())
}

fn held_revision(database: &Database) -> Result<Revision, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(FACTS) {
        Ok(facts) => Ok(facts.get(REVISION)?.map_or(0, |revision| revision.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(0),
        Err(other) => Err(other.into()),
    }
}

fn load(database: &Database, path: &Path) -> Result<Loaded, OpenError> {
    let damaged = |detail: String| OpenError::Damaged {
        path: path.to_path_buf(),
        detail,
    };
    let outcome = read_all(database).map_err(|error| damaged(error.to_string()))?;
    let Some((format, revision, records)) = outcome else {
        return Ok(Loaded::default());
    };
    if format > FORMAT_NOW {
        return Err(OpenError::Newer {
            path: path.to_path_buf(),
            found: format,
        });
    }
    let mut entries = Vec::with_capacity(records.len());
    for (key, record) in records {
        let entry = decode(&key, &record)
            .ok_or_else(|| damaged(format!("the record of {key} fails its checksum")))?;
        if entry.modified > revision {
            return Err(damaged(format!(
                "{key} is newer than the store's revision {revision}"
            )));
        }
        entries.push(Arc::new(entry));
    }
    Ok(Loaded { revision, entries })
}

type Records = Vec<(String, Vec<u8>)>;

/// Format, revision and all records; `None` for a new file.
fn read_all(database: &Database) -> Result<Option<(u64, Revision, Records)>, redb::Error> {
    let transaction = database.begin_read()?;
    let facts = match transaction.open_table(FACTS) {
        Ok(facts) => facts,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(other) => return Err(other.into()),
    };
    let fact = |name| -> Result<u64, redb::Error> {
        Ok(facts.get(name)?.map_or(0, |value| value.value()))
    };
    let (format, revision) = (fact(FORMAT)?, fact(REVISION)?);
    let mut records = Vec::new();
    for item in transaction.open_table(ENTRIES)?.iter()? {
        let (key, value) = item?;
        records.push((key.value().to_owned(), value.value().to_vec()));
    }
    Ok(Some((format, revision, records)))
}

fn encode(entry: &Entry, record: &mut Vec<u8>) {
    record.clear();
    record.extend_from_slice(&entry.created.to_le_bytes());
    record.extend_from_slice(&entry.modified.to_le_bytes());
    record.extend_from_slice(&checksum(&entry.key, entry.modified, &entry.value).to_le_bytes());
    record.extend_from_slice(&entry.value);
}

fn decode(key: &str, record: &[u8]) -> Option<Entry> {
    let (header, value) = record.split_at_checked(HEADER_BYTES)?;
    let number = |at: usize| -> Option<u64> {
        Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?))
    };
    let (created, modified, sum) = (number(0)?, number(8)?, number(16)?);
    (sum == checksum(key, modified, value)).then(|| Entry {
        key: key.into(),
        value: Bytes::copy_from_slice(value),
        created,
        modified,
    })
}

/// FNV-1a over words: redb checks its pages only when it repairs, and a flipped bit must not pass for an object.
fn checksum(key: &str, modified: Revision, value: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut sum = 0xcbf2_9ce4_8422_2325 ^ modified;
    for bytes in [key.as_bytes(), value] {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word = u64::from_le_bytes(chunk.try_into().expect("chunks_exact yields 8 bytes"));
            sum = (sum ^ word).wrapping_mul(PRIME);
            sum ^= sum >> 29;
        }
        for &byte in chunks.remainder() {
            sum = (sum ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        sum = (sum ^ bytes.len() as u64).wrapping_mul(PRIME);
    }
    sum
}
