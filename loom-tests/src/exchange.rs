//! A vector that threads turn into another: `raw/exchange.rs`.
//!
//! Property: every item is exchanged once, and its result is where the item was.

use atlas_smr_execution::internals::raw::exchange::Exchange;

use crate::harness::{Part, run_model, scope};

#[test]
fn every_item_once() {
    run_model("exchange::every_item_once", 5, &[], |_| {
        let exchange = Exchange::new(vec![1u64, 2, 3], 1);
        let work = || exchange.work(|chunk| assert!(chunk.iter().all(|n| (1..4).contains(n))), |n| n * 10);
        let other: Part<'_> = Box::new(work);
        scope(vec![other], work);
        assert_eq!(exchange.finish(), Some(vec![10, 20, 30]));
    });
}
