//! Slices taken apart: `raw/chunks.rs`, through `for_each_mut`'s own loop.
//!
//! Property: every item is handed out once, whoever asks.

use atlas_smr_execution::internals::raw::chunks::Chunks;

use crate::harness::{Part, Tracked, run_model, scope};

#[test]
fn every_item_once() {
    run_model("chunks::every_item_once", 5, &[], |_| {
        let mut items: Vec<Tracked> = (0..3).map(|_| Tracked::new(0)).collect();
        let chunks = Chunks::new(&mut items, 2);
        let work = || {
            while let Some((start, items)) = chunks.next() {
                for (offset, item) in items.iter_mut().enumerate() {
                    item.set(item.get() + 1 + (start + offset) as u64 * 10);
                }
            }
        };
        let others: Vec<Part<'_>> = vec![Box::new(work)];
        scope(others, work);
        let items: Vec<u64> = items.iter().map(Tracked::get).collect();
        assert_eq!(items, [1, 11, 21]);
    });
}
