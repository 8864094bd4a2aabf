//! The smallest complete application: named counters on the built-in state, executed on all cores.

use std::sync::Arc;

use atlas_smr_execution::{app::*, batch::*, error::BoxError, executor::*, reply::*, state::*};

struct Counters;

impl ApplicationData for Counters {
    type Request = String;
    type Reply = u64;
}

fn count(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

impl Application<ShardedState> for Counters {
    type AppData = Counters;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, state: &ShardedState, name: String) -> u64 {
        state.read_with("counters", name.as_bytes(), count)
    }

    fn update(&self, state: &mut ShardedState, name: String) -> u64 {
        self.speculatively_execute(state, name)
    }
}

impl ScalableApp<ShardedState> for Counters {
    fn speculatively_execute(&self, state: &mut impl CRUDState, name: String) -> u64 {
        let new = state.read_with("counters", name.as_bytes(), count) + 1;
        state.put("counters", name.as_bytes(), &new.to_le_bytes());
        new
    }
}

/// The network: prints what it should send.
impl ReplyNode<u64> for Counters {
    fn send(&self, _: RequestType, reply: UpdateReply<u64>, _: bool) -> Result<(), BoxError> {
        println!("to client {}: operation {} counts {}", reply.to(), reply.operation_id(), reply.payload());
        Ok(())
    }
}

fn main() -> Result<(), BoxError> {
    type Executor = MultiThreadedMonExecutor<Counters, ShardedState, Counters>;
    let (handle, work) = Executor::init_handle();
    let _channels = Executor::init(work, None, Counters, Arc::new(Counters))?;
    let mut batch = UpdateBatch::new(SeqNo(1));
    for (id, name) in ["apples", "pears", "apples"].into_iter().enumerate() {
        batch.add(NodeId(7), SeqNo(1), SeqNo(id as u64), name.to_owned());
    }
    handle.queue_update(batch)?;
    handle.join()?;
    Ok(())
}
