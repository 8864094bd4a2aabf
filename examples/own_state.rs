//! An application with a state of its own: a journal that writes every batch to a file, as one record, before it counts.
//!
//! The state is durable, so it says `IN_PLACE = false`: operations never touch it directly, and each batch reaches it
//! through one `commit`. A commit that fails leaves file and memory as they were, and stops the executor with the cause.
//!
//! `cargo run --example own_state`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use atlas_smr_execution::app::{Application, ApplicationData, ScalableApp};
use atlas_smr_execution::batch::{NodeId, SeqNo, UpdateBatch};
use atlas_smr_execution::error::{BoxError, StateError};
use atlas_smr_execution::executor::{MultiThreadedMonExecutor, TMonolithicStateExecutor};
use atlas_smr_execution::reply::{ReplyNode, RequestType, UpdateReply};
use atlas_smr_execution::state::{CRUDState, Changes, Crew, MonolithicState};

type Map = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// A map in memory, and the file that it can be rebuilt from. A snapshot shares the map until the next commit.
struct Journal {
    map: Arc<Map>,
    file: Option<File>,
}

fn place(column: &str, key: &[u8]) -> (String, Vec<u8>) {
    (column.to_owned(), key.to_vec())
}

impl CRUDState for Journal {
    const IN_PLACE: bool = false;

    fn read(&self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.map.get(&place(column, key)).cloned()
    }

    fn create(&mut self, column: &str, key: &[u8], value: &[u8]) -> bool {
        let absent = !self.map.contains_key(&place(column, key));
        if absent {
            self.update(column, key, value);
        }
        absent
    }

    fn update(&mut self, column: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        Arc::make_mut(&mut self.map).insert(place(column, key), value.to_vec())
    }

    fn delete(&mut self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        Arc::make_mut(&mut self.map).remove(&place(column, key))
    }

    /// One record per batch: written and synced first, then applied.
    fn commit(&mut self, seq: SeqNo, changes: &Changes<'_>, _: &mut dyn Crew) -> Result<(), StateError> {
        if let Some(file) = &mut self.file {
            let mut record = format!("batch {seq}\n");
            for change in changes.iter() {
                let value = change.value.map_or_else(|| "removed".to_owned(), |v| format!("{v:?}"));
                record += &format!("  {} {:?} {value}\n", change.column, change.key);
            }
            let before = file.metadata()?.len();
            if let Err(error) = file.write_all(record.as_bytes()).and_then(|()| file.sync_data()) {
                // Nothing of the batch may stay: neither here nor, below, in memory.
                file.set_len(before)?;
                return Err(error.into());
            }
        }
        let map = Arc::make_mut(&mut self.map);
        for change in changes.iter() {
            match change.value {
                Some(value) => map.insert(place(change.column, change.key), value.to_vec()),
                None => map.remove(&place(change.column, change.key)),
            };
        }
        Ok(())
    }
}

impl MonolithicState for Journal {
    fn snapshot(&self) -> Self {
        Journal { map: Arc::clone(&self.map), file: None }
    }

    fn serialize<W: Write>(&self, mut writer: W) -> Result<(), StateError> {
        for ((column, key), value) in self.map.iter() {
            for field in [column.as_bytes(), key, value] {
                writer.write_all(&(field.len() as u64).to_le_bytes())?;
                writer.write_all(field)?;
            }
        }
        Ok(())
    }

    fn deserialize<R: Read>(mut reader: R) -> Result<Self, StateError> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        let mut rest = &bytes[..];
        let mut map = Map::new();
        while !rest.is_empty() {
            let column = String::from_utf8(field(&mut rest)?)
                .map_err(|error| StateError::Malformed { what: error.to_string() })?;
            map.insert((column, field(&mut rest)?), field(&mut rest)?);
        }
        Ok(Journal { map: Arc::new(map), file: None })
    }
}

/// Takes a length and as many bytes from the front of `rest`.
fn field(rest: &mut &[u8]) -> Result<Vec<u8>, StateError> {
    let cut_short = || StateError::CutShort { missing: "the end of a field".to_owned() };
    let (length, after) = rest.split_first_chunk().ok_or_else(cut_short)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut_short())?;
    let (bytes, after) = after.split_at_checked(length).ok_or_else(cut_short)?;
    *rest = after;
    Ok(bytes.to_vec())
}

/// Stock keeping: take some of an article, if there is enough of it.
#[derive(Clone, Copy)]
struct Take {
    article: u8,
    amount: u8,
}

struct Stock;

impl ApplicationData for Stock {
    type Request = Take;
    type Reply = Option<u8>;
}

fn take(state: &mut impl CRUDState, request: Take) -> Option<u8> {
    let key = [request.article];
    let left = state.read_with("stock", &key, |value| value.map_or(10, |value| value[0]));
    let left = left.checked_sub(request.amount)?;
    state.put("stock", &key, &[left]);
    Some(left)
}

impl Application<Journal> for Stock {
    type AppData = Stock;

    fn initial_state() -> Result<Journal, BoxError> {
        Ok(Journal { map: Arc::default(), file: None })
    }

    fn unordered_execution(&self, state: &Journal, request: Take) -> Option<u8> {
        state.read_with("stock", &[request.article], |value| value.map(|value| value[0]))
    }

    fn update(&self, state: &mut Journal, request: Take) -> Option<u8> {
        take(state, request)
    }
}

impl ScalableApp<Journal> for Stock {
    fn speculatively_execute(&self, state: &mut impl CRUDState, request: Take) -> Option<u8> {
        take(state, request)
    }
}

struct Console;

impl ReplyNode<Option<u8>> for Console {
    fn send(&self, _: RequestType, reply: UpdateReply<Option<u8>>, _: bool) -> Result<(), BoxError> {
        match reply.payload() {
            Some(left) => println!("operation {}: done, {left} left", reply.operation_id()),
            None => println!("operation {}: not enough left", reply.operation_id()),
        }
        Ok(())
    }
}

fn main() -> Result<(), BoxError> {
    type Executor = MultiThreadedMonExecutor<Stock, Journal, Console>;
    let (handle, work) = Executor::init_handle();
    let path = std::env::temp_dir().join(format!("own_state-{}.journal", std::process::id()));
    let state = Journal { map: Arc::default(), file: Some(File::create(&path)?) };
    let (_install, checkpoints) = Executor::init(work, Some((state, Vec::new())), Stock, Arc::new(Console))?;

    let mut batch = UpdateBatch::new(SeqNo(1));
    for (id, (article, amount)) in [(1, 4), (2, 3), (1, 5), (1, 2)].into_iter().enumerate() {
        batch.add(NodeId(1), SeqNo(1), SeqNo(id as u64), Take { article, amount });
    }
    handle.queue_update_and_get_appstate(batch)?;

    let checkpoint = checkpoints.recv()?;
    let mut bytes = Vec::new();
    checkpoint.state().serialize(&mut bytes)?;
    let copy = Journal::deserialize(&bytes[..])?;
    println!("checkpoint of batch {}: {} articles", checkpoint.sequence_number(), copy.map.len());
    handle.join()?;
    print!("the journal:\n{}", std::fs::read_to_string(&path)?);
    std::fs::remove_file(path)?;
    Ok(())
}
