//! For programs that are built with `panic = "abort"`: an operation that says that it never panics, whatever it sees, runs ahead
//! of its turn there, too.

use std::sync::Arc;

use atlas_smr_execution::{app::*, batch::*, error::BoxError, executor::*, reply::*, state::*};

struct Counters;

impl ApplicationData for Counters {
    type Request = String;
    type Reply = Option<u64>;
}

/// The number; `None` if the value is none, where others would panic.
fn number(value: Option<&[u8]>) -> Option<u64> {
    value.map_or(Some(0), |bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)))
}

impl Application<ShardedState> for Counters {
    type AppData = Counters;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, state: &ShardedState, name: String) -> Option<u64> {
        state.read_with("counters", name.as_bytes(), number)
    }

    fn update(&self, state: &mut ShardedState, name: String) -> Option<u64> {
        self.speculatively_execute(state, name)
    }
}

impl ScalableApp<ShardedState> for Counters {
    fn speculatively_execute(&self, state: &mut impl CRUDState, name: String) -> Option<u64> {
        let new = state.read_with("counters", name.as_bytes(), number)?.checked_add(1)?;
        state.put("counters", name.as_bytes(), &new.to_le_bytes());
        Some(new)
    }
}

/// The network: prints what it should send, and panics if it is wrong.
impl ReplyNode<Option<u64>> for Counters {
    fn send(&self, _: RequestType, reply: UpdateReply<Option<u64>>, _: bool) -> Result<(), BoxError> {
        println!("operation {} counts {:?}", reply.operation_id(), reply.payload());
        assert_eq!(*reply.payload(), Some(reply.operation_id().0 / 2 + 1));
        Ok(())
    }
}

fn main() -> Result<(), BoxError> {
    type Executor = MultiThreadedMonExecutor<Counters, ShardedState, Counters>;
    let mut config = ExecutorConfig::default();
    config.allow_panic_abort = true;
    // So few operations would not be run ahead otherwise, nor would they make too many calls.
    (config.mode, config.chunk, config.step_budget) = (ExecutionMode::Speculate, Some(2), 1);
    let (handle, work) = Executor::init_handle_with(&config)?;
    let _channels = Executor::init_with::<ReplicaReplier>(config, work, None, Counters, Arc::new(Counters))?;
    let mut batch = UpdateBatch::new(SeqNo(1));
    for (id, name) in ["apples", "pears", "apples", "pears", "apples", "pears"].into_iter().enumerate() {
        batch.add(NodeId(7), SeqNo(1), SeqNo(id as u64), name.to_owned());
    }
    handle.queue_update(batch)?;
    let metrics = handle.metrics();
    handle.join()?;
    // Where panics unwind, units that make too many calls are abandoned, and run again.
    let counters = metrics.counters();
    println!("{} ran ahead, of which {} were abandoned", counters.speculations, counters.abandoned);
    assert!(counters.speculations > 0 && (counters.abandoned > 0) == cfg!(panic = "unwind"));
    Ok(())
}
