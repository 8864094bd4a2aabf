//! Descriptors, parts, streams, and messages of them: what reaches a replica from others.
//!
//! Digests keep damaged bytes out, and would keep a fuzzer out, too. So most inputs are *mended*: the digests are made
//! to fit, as someone who means harm would do, and what is behind them has to cope.

use std::collections::BTreeMap;

use atlas_smr_execution::batch::{NodeId, SeqNo};
use atlas_smr_execution::executor::{ExecutorConfig, InstallState, InstallStateMessage};
use atlas_smr_execution::state::{
    CRUDState, DivisibleState, MonolithicState, PartId, ShardedState, StateDescriptor, StatePart,
};

use crate::executors::{ALL, Running, StateTx};
use crate::input::Input;

/// Bytes of a stream before its body; the body's length stands at 20.
const STREAM_HEADER: usize = 36;
/// Bytes of a descriptor before its digests.
const DESCRIPTOR_HEADER: usize = 16;
const MESSAGES: usize = 24;

/// Takes the first byte for the kind of the input, and the others for the input.
///
/// # Panics
///
/// If anything panics, or a state becomes what it must not be.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 7 {
        0 => descriptor(input.rest()),
        1 => descriptor(&with_digest(input.rest().to_vec())),
        2 => stream(input.rest()),
        3 => stream(&with_digest(input.rest().to_vec())),
        4 => stream(&with_digest(with_length(input.rest().to_vec()))),
        5 => parts(&mut input),
        _ => messages(&mut input),
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

fn with_digest(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// Makes the header of a stream tell the length of what follows it.
fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(body) = bytes.len().checked_sub(STREAM_HEADER) {
        bytes[20..28].copy_from_slice(&(body as u64).to_le_bytes());
    }
    bytes
}

/// What is read as a descriptor is written as the same bytes.
fn descriptor(bytes: &[u8]) {
    if let Ok(descriptor) = StateDescriptor::from_bytes(bytes) {
        assert_eq!(descriptor.to_bytes(), bytes);
    }
}

/// What is read as a state is written as the same bytes, and is whole.
fn stream(bytes: &[u8]) {
    let mut rest = bytes;
    let Ok(state) = ShardedState::deserialize(&mut rest) else { return };
    let read = bytes.len() - rest.len();
    assert_eq!(serialized(&state), bytes[..read], "a state has one stream");
    assert_sound(&state);
}

fn serialized(state: &ShardedState) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.serialize(&mut bytes).expect("a vector takes everything");
    bytes
}

/// A state must be what one gets by writing its entries to an empty one: digests, parts and all lookups.
fn assert_sound(state: &ShardedState) {
    let mut copy = ShardedState::builder().shards(state.shard_count()).build().expect("valid");
    for (column, key, value) in state.iter() {
        assert_eq!(state.read(column, key).as_deref(), Some(value), "an entry is found");
        assert!(copy.create(column, key, value), "an entry is there once");
    }
    assert_eq!((copy.len(), copy.digest()), (state.len(), state.digest()));
    assert_eq!(copy.descriptor(), state.descriptor());
}

/// Some entries more in `state`.
fn fill(state: &mut ShardedState, input: &mut Input<'_>) {
    for _ in 0..input.below(12) {
        let column = input.pick(&["", "a", "b", "\u{e4}"]);
        let (key, value) = (input.string(), input.string());
        state.put(column, key, value);
    }
}

/// The descriptor of parts with these digests.
fn describe(digests: &[[u8; 32]]) -> StateDescriptor {
    let mut bytes = b"ASMRDESC".to_vec();
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(&(digests.len() as u32).to_le_bytes());
    assert_eq!(bytes.len(), DESCRIPTOR_HEADER);
    bytes.extend_from_slice(digests.as_flattened());
    StateDescriptor::from_bytes(&with_digest(bytes)).expect("well-formed")
}

/// Parts of one state, some of them exchanged, lost, doubled or damaged, on their way into another.
fn parts(input: &mut Input<'_>) {
    let shards = input.pick(&[1, 2, 4]);
    let mut state = ShardedState::builder().shards(input.pick(&[1, 2, 4])).build().expect("valid");
    fill(&mut state, input);
    let mut other = ShardedState::builder().shards(shards).build().expect("valid");
    if input.below(2) == 0 && state.shard_count() == shards {
        other = state.snapshot();
    }
    fill(&mut other, input);
    let described = other.descriptor();
    let mut digests: Vec<_> = described.parts().map(|(_, digest)| digest).collect();
    let mut parts: Vec<StatePart> =
        described.parts().map(|(id, _)| other.part(id).expect("a part of its own")).collect();
    for _ in 0..input.below(5) {
        let index = input.below(shards);
        match input.below(5) {
            // The bytes are changed and all digests made to fit.
            0 => {
                let bytes = input.string().to_vec();
                digests[index] = digest(&bytes);
                parts.push(StatePart::from_bytes(PartId(index as u32), digests[index], bytes));
                parts.retain(|part| part.id().0 as usize != index || part.digest() == digests[index]);
            }
            // The part claims another name, or the right one with other bytes.
            1 => {
                let id = PartId(u32::from(input.byte()));
                parts.push(StatePart::from_bytes(id, digests[index], input.string().to_vec()));
            }
            2 => parts.retain(|part| part.id().0 as usize != index),
            3 => parts.extend(parts.clone().into_iter().filter(|part| part.id().0 as usize == index)),
            _ => parts.reverse(),
        }
    }
    install(state, &describe(&digests), parts);
}

/// Installs all or nothing.
fn install(mut state: ShardedState, descriptor: &StateDescriptor, parts: Vec<StatePart>) {
    let before = state.snapshot();
    let good: BTreeMap<PartId, Vec<u8>> = parts
        .iter()
        .filter(|part| ShardedState::check_part(descriptor, part).is_ok())
        .map(|part| (part.id(), part.bytes().to_vec()))
        .collect();
    let target = match state.install(descriptor, parts) {
        Ok(()) => descriptor,
        Err(_) => &before.descriptor(),
    };
    assert_eq!(&state.descriptor(), target, "all of it or nothing");
    assert_sound(&state);
    if target != descriptor {
        assert!(state.iter().eq(before.iter()), "a refused installation changes nothing");
        return;
    }
    for (id, bytes) in good {
        assert_eq!(state.part(id).expect("a part").bytes(), bytes, "{id} is what was sent");
    }
}

/// Messages of two states, in any order and damaged, to the executors. Each must end in one of three states.
fn messages(input: &mut Input<'_>) {
    let mut states = vec![(0, ShardedState::builder().shards(4).build().expect("valid"))];
    for seq in [5, 9] {
        let mut next = states[states.len() - 1].1.snapshot();
        fill(&mut next, input);
        states.push((seq, next));
    }
    let script: Vec<[u8; 2]> = (0..input.below(MESSAGES)).map(|_| [input.byte(), input.byte()]).collect();
    let config = ExecutorConfig::with_threads(2);
    for (name, start) in ALL {
        let mut executor = start(&config, &states[0].1);
        for &[kind, which] in &script {
            if kind % 8 == 7 {
                executor.handle.poll_state_channel().expect("alive");
            } else {
                send(&executor, &states, kind, usize::from(which));
            }
        }
        executor.handle.poll_state_channel().expect("alive");
        // What is not complete now never will be.
        executor.states = None;
        executor.handle.read_state(NodeId(9)).expect("alive");
        let checkpoint = executor.checkpoints.receive();
        let (seq, expected) =
            states.iter().find(|(seq, _)| *seq == checkpoint.seq).expect("one of the three states");
        assert!(checkpoint.state.iter().eq(expected.iter()), "{name}: the state of {seq}");
        assert_sound(&checkpoint.state);
        executor.finish();
    }
}

/// Sends a piece of one of the states, or a damaged one; where states travel as a whole, all of it.
fn send(executor: &Running, states: &[(u64, ShardedState)], kind: u8, which: usize) {
    let (seq, state) = &states[1 + which % 2];
    let seq = SeqNo(*seq);
    let tx = match executor.states.as_ref().expect("open") {
        StateTx::Mon(tx) => {
            return tx.send(InstallStateMessage::new(seq, state.snapshot())).expect("alive");
        }
        StateTx::Div(tx) => tx,
    };
    let part = |state: &ShardedState, id| state.part(PartId(id)).expect("a part of its own");
    let all = || InstallState::StatePart((0..4).map(|id| part(state, id)).collect::<Vec<_>>().into());
    let described = || InstallState::StateDescriptor(state.descriptor());
    let one = part(state, which as u32 / 2 % 4);
    let pieces = match kind % 8 {
        0 => vec![described()],
        1 => vec![InstallState::StatePart(one.into())],
        2 => vec![all()],
        3 => vec![InstallState::Done],
        4 => {
            let bytes = [one.bytes(), &[0]].concat();
            vec![InstallState::StatePart(StatePart::from_bytes(one.id(), one.digest(), bytes).into())]
        }
        5 => vec![InstallState::StatePart(part(&states[2 - which % 2].1, which as u32 / 2 % 4).into())],
        _ => vec![described(), all(), InstallState::Done],
    };
    pieces.into_iter().for_each(|piece| tx.send(InstallStateMessage::new(seq, piece)).expect("alive"));
}
