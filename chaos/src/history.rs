//! What clients asked, and what they were told.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::linearizable::Operation;
use crate::lock;
use crate::model::{BankAnswer, BankCall, RegisterAnswer, RegisterCall};

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Something of one key.
    Key(u64, RegisterCall),
    /// Something of accounts.
    Bank(BankCall),
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Of a key.
    Key(RegisterAnswer),
    /// Of accounts.
    Bank(BankAnswer),
}

/// One operation of one client. Times are nanoseconds since the history began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The client.
    pub client: u64,
    /// What it asked for.
    pub call: Call,
    /// When.
    pub invoked: u64,
    /// When it was told what. Nothing if it never learned the outcome.
    pub returned: Option<(u64, Answer)>,
}

/// Something that happened to the cluster meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When, like the times of [`Record`].
    pub time: u64,
    /// What.
    pub text: String,
}

/// All that happened, in the order of invocations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The seed that the schedule and the clients were drawn from.
    pub seed: u64,
    /// The scenario.
    pub scenario: String,
    /// What happened to the cluster.
    pub notes: Vec<Note>,
    /// What clients did.
    pub records: Vec<Record>,
}

impl History {
    /// The operations on each key.
    pub fn keys(&self) -> BTreeMap<u64, Vec<Operation<RegisterCall, RegisterAnswer>>> {
        let mut keys = BTreeMap::<_, Vec<_>>::new();
        for record in &self.records {
            let Call::Key(key, call) = record.call else { continue };
            let returned = record.returned.and_then(|(time, answer)| match answer {
                Answer::Key(answer) => Some((time, answer)),
                Answer::Bank(_) => None,
            });
            keys.entry(key).or_default().push(Operation { call, invoked: record.invoked, returned });
        }
        keys
    }

    /// The operations on accounts that `is_meant` names.
    pub fn bank(&self, is_meant: impl Fn(&BankCall) -> bool) -> Vec<Operation<BankCall, BankAnswer>> {
        let bank = self.records.iter().filter_map(|record| {
            let Call::Bank(call) = record.call else { return None };
            let returned = record.returned.and_then(|(time, answer)| match answer {
                Answer::Bank(answer) => Some((time, answer)),
                Answer::Key(_) => None,
            });
            is_meant(&call).then_some(Operation { call, invoked: record.invoked, returned })
        });
        bank.collect()
    }

    /// Writes it to a file, as JSON.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        let file = io::BufWriter::new(std::fs::File::create(file)?);
        serde_json::to_writer(file, self).map_err(io::Error::from)
    }

    /// Reads it back.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no history.
    pub fn load(file: &Path) -> io::Result<History> {
        let file = io::BufReader::new(std::fs::File::open(file)?);
        serde_json::from_reader(file).map_err(io::Error::from)
    }
}

/// Writes down what concurrent clients do; clones write into one history.
///
/// The clock is read before an operation is sent and after its answer came, so that the times written down enclose it.
#[derive(Clone, Debug)]
pub struct Recorder {
    start: Instant,
    written: Arc<Mutex<(Vec<Note>, Vec<Record>)>>,
}

/// An operation that was sent. Without an answer, its outcome stays unknown.
#[derive(Debug)]
#[must_use]
pub struct Sent {
    recorder: Recorder,
    place: usize,
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder { start: Instant::now(), written: Arc::default() }
    }
}

impl Recorder {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// `client` is about to ask for `call`.
    pub fn send(&self, client: u64, call: Call) -> Sent {
        let records = &mut lock(&self.written).1;
        records.push(Record { client, call, invoked: self.now(), returned: None });
        Sent { recorder: self.clone(), place: records.len() - 1 }
    }

    /// Something happened to the cluster.
    pub fn note(&self, text: impl Into<String>) {
        let time = self.now();
        lock(&self.written).0.push(Note { time, text: text.into() });
    }

    /// How many operations were answered.
    pub fn answered(&self) -> usize {
        lock(&self.written).1.iter().filter(|record| record.returned.is_some()).count()
    }

    /// What is written so far.
    pub fn history(&self, seed: u64, scenario: &str) -> History {
        let (notes, records) = lock(&self.written).clone();
        History { seed, scenario: scenario.to_owned(), notes, records }
    }
}

impl Sent {
    /// The client was told `answer`.
    pub fn answered(self, answer: Answer) {
        let time = self.recorder.now();
        lock(&self.recorder.written).1[self.place].returned = Some((time, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Call = Call::Key(3, RegisterCall::Get);
    const NOTHING: Answer = Answer::Key(RegisterAnswer::Before(None));

    #[test]
    fn times_enclose_what_overlaps() {
        let recorder = Recorder::default();
        let slow = recorder.send(0, GET);
        let fast = recorder.send(1, Call::Bank(BankCall::Balance(9)));
        fast.answered(Answer::Bank(BankAnswer::Balance(4)));
        recorder.note("a fault");
        slow.answered(NOTHING);
        let _ = recorder.send(2, GET);
        let history = recorder.history(17, "none");
        let end = |index: usize| history.records[index].returned.map(|(time, _)| time);
        assert!(history.records[0].invoked <= history.records[1].invoked);
        assert!(end(1) <= Some(history.notes[0].time) && Some(history.notes[0].time) <= end(0));
        assert_eq!(end(2), None);
        assert_eq!(recorder.answered(), 2);
        assert_eq!(history.keys()[&3].len(), 2);
        assert_eq!(history.bank(|_| true).len(), 1);
        assert_eq!(history.bank(|_| false).len(), 0);
    }

    #[test]
    fn a_saved_history_is_read_back() {
        let recorder = Recorder::default();
        recorder.send(0, GET).answered(NOTHING);
        let transfer = BankCall::Transfer { from: 1, to: 2, amount: u64::MAX };
        let _ = recorder.send(1, Call::Bank(transfer));
        recorder.note("leader killed");
        let history = recorder.history(u64::MAX, "leader");
        let file = tempfile::NamedTempFile::new().expect("a file");
        history.save(file.path()).expect("written");
        assert_eq!(History::load(file.path()).expect("read"), history);
    }

    #[test]
    fn clients_write_at_the_same_time() {
        let recorder = Recorder::default();
        std::thread::scope(|scope| {
            for client in 0..8 {
                let recorder = recorder.clone();
                scope.spawn(move || (0..500).for_each(|_| recorder.send(client, GET).answered(NOTHING)));
            }
        });
        let history = recorder.history(0, "");
        assert_eq!(recorder.answered(), 8 * 500);
        assert!(history.records.is_sorted_by_key(|record| record.invoked));
        for client in 0..8 {
            let own = history.records.iter().filter(|record| record.client == client);
            let ends: Vec<_> =
                own.map(|record| record.returned.map(|(time, _)| (record.invoked, time))).collect();
            assert!(ends.iter().flatten().all(|(invoked, returned)| invoked <= returned));
            assert!(ends.is_sorted());
        }
    }
}
