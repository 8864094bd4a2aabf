//! The clients and the judge, on stores that are right and on stores that are broken, each in one way: what the judge
//! says of the cluster is worth something only if it finds these.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::history::{Answer, Call, History, Recorder};
use chaos::judge::{Fault, judge};
use chaos::linearizable::Model;
use chaos::model::{BankCall, Register, RegisterAnswer, RegisterCall, transact};
use chaos::workload::{AUDITOR, CLIENTS, Client, Outcome, Pace, Store, funds};

/// How a store is broken. Once in 20 operations or so.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    /// Answers that get lost on the way: no flaw of the store.
    LosesAnswers,
    /// Reads that see the store as it was a while ago.
    StaleReads,
    /// Writes that are acknowledged, and not executed.
    LosesWrites,
    /// Transfers that are executed twice.
    Repeats,
    /// Transfers of which the second half is forgotten.
    HalfTransfers,
}

#[derive(Clone, Default)]
struct Cells {
    keys: BTreeMap<u64, Option<u64>>,
    accounts: BTreeMap<u64, u64>,
}

struct Shared {
    now: Cells,
    earlier: Cells,
    count: u64,
}

struct Fake {
    flaw: Flaw,
    shared: Arc<Mutex<Shared>>,
}

fn execute(cells: &mut Cells, call: Call) -> Answer {
    match call {
        Call::Key(key, call) => {
            let cell = cells.keys.entry(key).or_default();
            let before = *cell;
            *cell = Register.step(cell, &call, None).expect("any answer is right");
            Answer::Key(RegisterAnswer::Before(before))
        }
        Call::Bank(call) => {
            let (after, right) = transact(&cells.accounts, &call);
            cells.accounts = after;
            Answer::Bank(right)
        }
    }
}

impl Store for Fake {
    async fn ask(&mut self, call: Call, _: Duration) -> Outcome {
        tokio::task::yield_now().await;
        let (answer, is_chosen) = self.execute(call);
        tokio::task::yield_now().await;
        if self.flaw == Flaw::LosesAnswers && is_chosen {
            Outcome::Unknown
        } else {
            Outcome::Answered(answer)
        }
    }
}

impl Fake {
    /// The answer, and whether this is an operation that goes wrong.
    fn execute(&self, call: Call) -> (Answer, bool) {
        let mut shared = self.shared.lock().expect("whole");
        let shared = &mut *shared;
        shared.count += 1;
        if shared.count.is_multiple_of(50) {
            shared.earlier = shared.now.clone();
        }
        let is_write = matches!(call, Call::Key(_, RegisterCall::Put(_) | RegisterCall::Delete))
            || matches!(call, Call::Bank(BankCall::Transfer { .. }));
        let is_chosen = shared.count.is_multiple_of(19);
        let before = shared.now.clone();
        let answer = match self.flaw {
            Flaw::StaleReads if is_chosen && !is_write => execute(&mut shared.earlier.clone(), call),
            Flaw::LosesWrites if is_chosen && is_write => execute(&mut before.clone(), call),
            _ => execute(&mut shared.now, call),
        };
        if let Call::Bank(BankCall::Transfer { to, .. }) = call {
            if self.flaw == Flaw::Repeats && is_chosen {
                execute(&mut shared.now, call);
            }
            if self.flaw == Flaw::HalfTransfers && is_chosen {
                shared.now.accounts.insert(to, before.accounts[&to]);
            }
        }
        (answer, is_chosen)
    }
}

async fn history(flaw: Flaw) -> History {
    let now = Cells { accounts: funds(), ..Cells::default() };
    let shared = Arc::new(Mutex::new(Shared { earlier: now.clone(), now, count: 0 }));
    let fake = || Fake { flaw, shared: Arc::clone(&shared) };
    let recorder = Recorder::default();
    let pace = Pace { pause: Duration::from_micros(200), ..Pace::default() };
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            tokio::spawn(Client::new(client, fake(), recorder.clone(), 5, pace).run(Arc::clone(&stop)))
        })
        .collect();
    while recorder.answered() < 4_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no panic").expect("all understood");
    }
    let whole = Fake { flaw: Flaw::None, shared };
    Client::new(AUDITOR, whole, recorder.clone(), 5, pace).audit().await.expect("all understood");
    recorder.history(5, "fake")
}

async fn faults(flaw: Flaw) -> Vec<Fault> {
    judge(&history(flaw).await, Duration::from_secs(30))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_right_passes() {
    assert_eq!(faults(Flaw::None).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_get_lost_are_no_fault_of_the_store() {
    assert_eq!(faults(Flaw::LosesAnswers).await, []);
}

fn is_about(fault: &Fault, name: &str) -> bool {
    matches!(fault, Fault::NotLinearizable { object, .. } if object.starts_with(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_reads_are_found() {
    let faults = faults(Flaw::StaleReads).await;
    assert!(faults.iter().any(|fault| is_about(fault, "key")), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_writes_are_found() {
    let faults = faults(Flaw::LosesWrites).await;
    assert!(faults.iter().any(|fault| is_about(fault, "key")), "{faults:?}");
    assert!(faults.iter().any(|fault| matches!(fault, Fault::Lost { .. })), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_transfers_are_found() {
    let faults = faults(Flaw::Repeats).await;
    assert!(faults.iter().any(|fault| matches!(fault, Fault::Twice { .. })), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_that_stop_halfway_are_found() {
    let faults = faults(Flaw::HalfTransfers).await;
    assert!(faults.iter().any(|fault| matches!(fault, Fault::Sum { .. })), "{faults:?}");
    assert!(faults.iter().any(|fault| matches!(fault, Fault::Purse { .. })), "{faults:?}");
}

#[tokio::test]
async fn a_missing_reading_is_a_fault() {
    let mut history = history(Flaw::None).await;
    history.records.retain(|record| record.client != AUDITOR);
    let faults = judge(&history, Duration::from_secs(30));
    assert!(faults.iter().all(|fault| matches!(fault, Fault::NotAudited { .. })), "{faults:?}");
    assert_eq!(faults.len(), funds().len());
}
