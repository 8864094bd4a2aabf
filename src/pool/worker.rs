//! A worker thread: wait at the gate, take part, wait again.

use super::Shared;
use super::affinity::Place;
use super::sleep::Spin;
use crate::raw::gate::{Found, WorkerKey};
use crate::sync::Arc;

/// The body of a worker thread; returns when the pool stops.
pub(super) fn work(mut key: WorkerKey, place: Option<Place>, shared: &Arc<Shared>) {
    if let Some(place) = &place {
        place.pin_current();
    }
    let mut spin = Spin::new(shared.spin);
    loop {
        match key.try_run() {
            Found::Stopped => return,
            Found::Job => spin = Spin::new(shared.spin),
            Found::Nothing => {
                if !spin.wait() {
                    shared.sleepers.sleep(key.index() - 1, || key.gate().calls(key.last()));
                    spin = Spin::new(shared.spin);
                }
            }
        }
    }
}
