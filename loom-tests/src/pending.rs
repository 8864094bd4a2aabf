//! The index of unretired writes: `raw/pending.rs`.
//!
//! Property: what was pushed before is found, whoever pushed it and whatever was pushed since; nothing is found that is not
//! whole.

use atlas_smr_execution::internals::raw::pending::{Head, Linked, Pending};
use loom::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Part, Tracked, run_model, scope};

fn items<const N: usize>() -> [Linked<Tracked>; N] {
    std::array::from_fn(|number| Linked::new(Tracked::new(number as u64 + 1)))
}

fn heads() -> [Head<Tracked>; 1] {
    [Head::default()]
}

#[test]
fn what_was_pushed_is_found() {
    const MARKS: &[&str] = &["both", "one", "none"];
    run_model("pending::what_was_pushed_is_found", 3, MARKS, |marks| {
        let items = items::<2>();
        let mut heads = heads();
        let pending = Pending::new(&mut heads);
        let pushed = AtomicUsize::new(0);
        let push = |item: usize| {
            pending.push(0, &items[item]);
            pushed.fetch_add(1, Ordering::Release);
        };
        let others: Vec<Part<'_>> = vec![Box::new(|| push(0)), Box::new(|| push(1))];
        scope(others, || {
            let known = pushed.load(Ordering::Acquire);
            let found: Vec<u64> = pending.newest(0).map(|item| item.get()).collect();
            assert!(found.len() >= known, "{known} were pushed, {found:?} are found");
            assert!(found.len() < 2 || found[0] != found[1], "each once");
            marks.mark(["none", "one", "both"][found.len()], true);
        });
        assert_eq!(pending.newest(0).count(), 2, "none is lost");
    });
}

#[test]
fn what_is_found_is_whole() {
    const MARKS: &[&str] = &["found", "not found"];
    run_model("pending::what_is_found_is_whole", 4, MARKS, |marks| {
        let mut items = items::<3>();
        let mut heads = heads();
        let pending = Pending::new(&mut heads);
        let [first, second, own] = &mut items;
        let other: Part<'_> = Box::new(move || {
            for (item, value) in [(first, 11), (second, 12)] {
                item.set(value);
                pending.push(0, item);
            }
        });
        scope(vec![other], || {
            own.set(13);
            pending.push(0, own);
            let found: Vec<u64> = pending.newest(0).map(|item| item.get()).collect();
            let theirs: Vec<u64> = found.iter().copied().filter(|&value| value != 13).collect();
            assert!([&[][..], &[11], &[12, 11]].contains(&&theirs[..]), "in order, and whole: {found:?}");
            assert_eq!(found.len(), theirs.len() + 1, "one's own is found");
            marks.mark(if theirs.is_empty() { "not found" } else { "found" }, true);
        });
    });
}
