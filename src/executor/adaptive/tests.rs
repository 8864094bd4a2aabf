//! The governor, fed with what batches would have taken.

use super::*;
use crate::app::{Application, ApplicationData};
use crate::error::BoxError;
use crate::state::ShardedState;

/// What a run tells of its units, if it is measured: that one after the other they take `ns` each.
fn measured(plan: Plan, len: usize, ns: f64) -> Counts {
    let worked = if plan.measured > 0 { ns * len as f64 } else { 0.0 };
    Counts { worked: Duration::from_nanos(worked as u64), ..Counts::default() }
}

/// Runs batches of `len` through a governor whose two ways take the given times, and returns how much longer all
/// took than the better way would have.
fn excess(len: usize, batches: usize, sequential_ns: f64, speculative_ns: f64) -> f64 {
    let mut governor = Governor::new(2, Consent::default());
    let mut total = 0.0;
    for _ in 0..batches {
        let plan = governor.plan(len);
        let per_operation = if plan.way == Way::Sequential { sequential_ns } else { speculative_ns };
        let took = per_operation * len as f64;
        total += took;
        if plan.timed {
            let counts = measured(plan, len, sequential_ns);
            governor.record(len, plan.way, Duration::from_nanos(took as u64), counts);
        }
    }
    total / (batches as f64 * len as f64 * sequential_ns.min(speculative_ns))
}

#[test]
fn it_settles_on_the_better_way_and_probing_costs_little() {
    for len in [16, 128, 1024, 8192] {
        for (sequential, speculative) in [(1000.0, 600.0), (1000.0, 1200.0), (300.0, 900.0), (9000.0, 5000.0)]
        {
            let batches = (1e9 / (len as f64 * sequential)).max(200.0) as usize;
            let excess = excess(len, batches, sequential, speculative);
            assert!(excess < 1.03, "{len} operations of {sequential} / {speculative} ns: {excess}");
        }
    }
}

#[test]
fn where_others_want_cores_too_taking_all_of_them_has_to_gain_much() {
    let ahead = |mut governor: Governor, sequential_ns: f64, speculative_ns: f64| {
        let mut ahead = 0;
        for _ in 0..3000 {
            let plan = governor.plan(128);
            ahead += usize::from(plan.way != Way::Sequential);
            let ns = if plan.way == Way::Sequential { sequential_ns } else { speculative_ns };
            let took = Duration::from_nanos((ns * 128.0) as u64);
            governor.record(128, plan.way, took, measured(plan, 128, sequential_ns));
        }
        ahead > 1500
    };
    let plain = || Governor::new(2, Consent::default());
    let considerate = || Governor::considerate(2, Consent::default());
    for (sequential, little, much) in [(600.0, 540.0, 400.0), (9000.0, 8000.0, 5000.0)] {
        assert!(ahead(plain(), sequential, little) && ahead(plain(), sequential, much));
        assert!(!ahead(considerate(), sequential, little), "{sequential}");
        assert!(ahead(considerate(), sequential, much), "{sequential}");
    }
}

#[test]
fn it_recovers_when_the_load_changes() {
    let mut governor = Governor::new(2, Consent::default());
    let mut speculated = [0usize; 2];
    for batch in 0..4000 {
        let contended = batch < 2000;
        let plan = governor.plan(128);
        let speculative_ns = if contended { 1300.0 } else { 600.0 };
        let ns = if plan.way == Way::Sequential { 1000.0 } else { speculative_ns };
        speculated[usize::from(!contended)] += usize::from(plan.way != Way::Sequential);
        governor.record(128, plan.way, Duration::from_nanos((ns * 128.0) as u64), Counts::default());
    }
    assert!(speculated[0] < 100 && speculated[1] > 1000, "{speculated:?}");
}

#[test]
fn a_way_that_has_become_worse_is_left_soon() {
    let mut governor = Governor::new(2, Consent::default());
    let mut ahead = 0;
    for batch in 0..3000 {
        let plan = governor.plan(128);
        let ns = match (plan.way, batch < 2000) {
            (Way::Sequential, _) => 1000.0,
            (_, true) => 600.0,
            (_, false) => 1300.0,
        };
        ahead += usize::from(batch >= 2000 && plan.way != Way::Sequential);
        governor.record(128, plan.way, Duration::from_nanos((ns * 128.0) as u64), Counts::default());
    }
    assert!(ahead < 100, "{ahead}");
}

#[test]
fn a_clock_that_jumps_does_not_bind_it_for_long() {
    let mut governor = Governor::new(2, Consent::default());
    let (mut jumps, mut speculated) = ([true; 2], 0);
    for batch in 0..20_000 {
        let plan = governor.plan(128);
        let ahead = plan.way != Way::Sequential;
        let ns = match (ahead, batch < 2000) {
            (false, _) => 1000.0,
            (true, true) => 1200.0,
            (true, false) => 600.0,
        };
        speculated += usize::from(ahead);
        let took = Duration::from_nanos((ns * 128.0) as u64);
        // Once on each way, after the first measurement.
        let jump = batch > 0 && std::mem::take(&mut jumps[usize::from(ahead)]);
        let jump = if jump { Duration::from_secs(3600) } else { Duration::ZERO };
        governor.record(128, plan.way, took + jump, Counts::default());
    }
    assert!(jumps == [false; 2] && speculated > 10_000, "{jumps:?} {speculated}");
}

/// Runs 3000 batches whose ways take the given times, with this share of replays in chunks; returns how often each way was
/// taken.
fn ways(consent: Consent, ns: [f64; Way::ALL.len()], replays: u64) -> [usize; Way::ALL.len()] {
    ways_by(Governor::new(2, consent), ns, replays)
}

/// The same, decided by this governor.
fn ways_by(mut governor: Governor, ns: [f64; Way::ALL.len()], replays: u64) -> [usize; Way::ALL.len()] {
    let mut taken = [0; Way::ALL.len()];
    for _ in 0..3000 {
        let plan = governor.plan(128);
        let way = plan.way;
        taken[way as usize] += 1;
        let replays = if matches!(way, Way::OneMoment | Way::Forwarding) { replays } else { 0 };
        let counts = Counts { speculations: 100, replays, ..measured(plan, 128, ns[0]) };
        governor.record(128, way, Duration::from_nanos((ns[way as usize] * 128.0) as u64), counts);
    }
    taken
}

#[test]
fn hints_and_forwarding_are_used_where_they_help_and_not_tried_where_nothing_collides() {
    let all = Consent { forwarding: true, hints: true, ..Consent::default() };
    assert!(ways(all, [10_000.0, 8_000.0, 7_000.0, 6_000.0, 1.0, 1.0], 30)[3] > 2000);
    assert!(ways(all, [10_000.0, 8_000.0, 6_000.0, 7_000.0, 1.0, 1.0], 30)[2] > 2000);
    assert_eq!(ways(Consent::default(), [10_000.0, 8_000.0, 6_000.0, 6_000.0, 1.0, 1.0], 30)[2..], [0; 4]);
    assert_eq!(ways(all, [10_000.0, 6_000.0, 5_000.0, 5_000.0, 1.0, 1.0], 1)[2..], [0; 4]);
    let [sequential, _, forwarding, by_hints, ..] =
        ways(all, [1_000.0, 1_200.0, 1_500.0, 1_500.0, 1.0, 1.0], 30);
    assert!(sequential > 2700 && forwarding > 0 && by_hints > 0, "{sequential} {forwarding} {by_hints}");
}

#[test]
fn one_thread_commits_short_operations_at_once_where_that_helps() {
    let in_place = Consent { in_place: true, ..Consent::default() };
    let [sequential, ahead, .., at_turn, _] = ways(in_place, [500.0, 400.0, 1.0, 1.0, 200.0, 1.0], 0);
    assert!(at_turn > 2700 && sequential > 0 && ahead > 0, "{sequential} {ahead} {at_turn}");
    assert!(ways(in_place, [500.0, 200.0, 1.0, 1.0, 400.0, 1.0], 0)[1] > 2700);
    let [sequential, .., at_turn, _] = ways(in_place, [500.0, 600.0, 1.0, 1.0, 550.0, 1.0], 0);
    assert!(sequential > 2700 && at_turn > 0, "{sequential} {at_turn}");
    assert_eq!(ways(Consent::default(), [500.0, 400.0, 1.0, 1.0, 200.0, 1.0], 0)[4], 0);
    // For a handful of microseconds, deciding each time must pay, too.
    let at_turn = |mut governor: Governor, ns: f64| {
        let mut taken = 0;
        for _ in 0..3000 {
            let plan = governor.plan(8);
            taken += usize::from(plan.way == Way::AtTurn);
            let ns = if plan.way == Way::AtTurn { ns } else { 500.0 };
            governor.record(8, plan.way, Duration::from_nanos((ns * 8.0) as u64), Counts::default());
        }
        taken
    };
    let taken = at_turn(Governor::new(2, in_place), 480.0);
    assert!((1..600).contains(&taken), "{taken}");
    // Joined batches are spread over all threads or not, and nothing else.
    assert_eq!(at_turn(Governor::considerate(2, in_place), 100.0), 0);
    // Of longer operations it is not even tried.
    assert_eq!(ways(in_place, [10_000.0, 6_000.0, 1.0, 1.0, 200.0, 1.0], 0)[4], 0);
}

#[test]
fn keys_are_looked_up_before_operations_run_in_place_where_that_helps() {
    let all = Consent { forwarding: true, hints: true, in_place: true, prefetching: true };
    let [sequential, ahead, .., at_turn, prefetched] = ways(all, [500.0, 400.0, 1.0, 1.0, 300.0, 200.0], 0);
    assert!(prefetched > 2600 && ahead > 0 && at_turn > 0, "{sequential} {ahead} {at_turn} {prefetched}");
    let [.., at_turn, prefetched] = ways(all, [500.0, 400.0, 1.0, 1.0, 200.0, 300.0], 0);
    assert!(at_turn > 2600 && prefetched > 0, "{at_turn} {prefetched}");
    // Not where that is not allowed, nor where operations are long.
    let without = Consent { prefetching: false, ..all };
    assert_eq!(ways(without, [500.0, 400.0, 1.0, 1.0, 300.0, 1.0], 0)[5], 0);
    assert_eq!(ways(all, [10_000.0, 6_000.0, 1.0, 1.0, 1.0, 1.0], 0)[5], 0);
}

#[test]
fn one_thread_alone_tries_nothing_but_what_it_can_do_alone() {
    let all = Consent { forwarding: true, hints: true, in_place: true, prefetching: true };
    let mut alone = Governor::new(1, all);
    alone.expect_contention();
    let [sequential, one_moment, forwarding, by_hints, at_turn, prefetched] =
        ways_by(alone, [500.0, 1.0, 1.0, 1.0, 200.0, 300.0], 30);
    assert!(at_turn > 2600 && sequential > 0 && prefetched > 0, "{sequential} {at_turn} {prefetched}");
    assert_eq!([one_moment, forwarding, by_hints], [0; 3]);
    let [sequential, .., at_turn, prefetched] =
        ways_by(Governor::new(1, all), [500.0, 1.0, 1.0, 1.0, 550.0, 550.0], 0);
    assert!(sequential > 2600 && at_turn > 0 && prefetched > 0, "{sequential} {at_turn} {prefetched}");
    // Of longer operations it tries nothing.
    assert_eq!(ways_by(Governor::new(1, all), [10_000.0, 1.0, 1.0, 1.0, 1.0, 1.0], 0), [3000, 0, 0, 0, 0, 0]);
}

#[test]
fn long_operations_do_not_keep_later_short_ones_from_what_helps_them() {
    let all = Consent { forwarding: true, hints: true, in_place: true, prefetching: true };
    for threads in [1, 2] {
        // A first batch that brings everything into memory, and a past in which operations were long.
        for (before, ns) in [(1, 1_500.0), (100, 10_000.0)] {
            let mut governor = Governor::new(threads, all);
            for _ in 0..before {
                let plan = governor.plan(128);
                let took = Duration::from_nanos((ns * 128.0) as u64);
                governor.record(128, plan.way, took, measured(plan, 128, ns));
            }
            let taken = ways_by(governor, [500.0, 400.0, 500.0, 500.0, 300.0, 200.0], 0);
            assert!(taken[5] > 2000, "{threads} threads, {ns} ns: {taken:?}");
        }
    }
}

#[test]
fn one_thread_alone_leaves_what_helped_short_operations_when_they_become_long() {
    let all = Consent { forwarding: true, hints: true, in_place: true, prefetching: true };
    let mut governor = Governor::new(1, all);
    let mut taken = [[0; Way::ALL.len()]; 2];
    for batch in 0..6000 {
        let plan = governor.plan(128);
        let long = batch >= 2000;
        let ns = if long { 10_000.0 } else { [500.0, 1.0, 1.0, 1.0, 300.0, 200.0][plan.way as usize] };
        let ns = if long && plan.way == Way::Prefetched { 10_300.0 } else { ns };
        taken[usize::from(long)][plan.way as usize] += 1;
        governor.record(128, plan.way, Duration::from_nanos((ns * 128.0) as u64), Counts::default());
    }
    assert!(taken[0][5] > 1600 && taken[1][0] > 3000, "{taken:?}");
}

#[test]
fn one_thread_alone_that_has_nothing_to_try_times_few_of_its_short_batches() {
    let mut alone = Governor::new(1, Consent { in_place: true, ..Consent::default() });
    let mut timed = 0;
    for batch in 0..3000 {
        if alone.passes(8) {
            continue;
        }
        let plan = alone.plan(8);
        assert_eq!(plan.way, Way::Sequential);
        timed += usize::from(batch >= 1000);
        alone.record(8, plan.way, Duration::from_nanos(8 * 1_500), Counts::default());
    }
    assert!((1..200).contains(&timed), "{timed}");
}

#[test]
fn one_thread_that_commits_at_once_is_left_when_operations_become_long() {
    let mut governor = Governor::new(2, Consent { in_place: true, ..Consent::default() });
    let mut taken = [[0; Way::ALL.len()]; 2];
    for batch in 0..6000 {
        let plan = governor.plan(128);
        let long = batch >= 2000;
        let ns = if long {
            [10_000.0, 6_000.0, 1.0, 1.0, 10_000.0, 1.0]
        } else {
            [500.0, 400.0, 1.0, 1.0, 200.0, 1.0]
        };
        taken[usize::from(long)][plan.way as usize] += 1;
        let took = Duration::from_nanos((ns[plan.way as usize] * 128.0) as u64);
        governor.record(128, plan.way, took, measured(plan, 128, ns[0]));
    }
    assert!(taken[0][4] > 1700 && taken[1][1] > 3000, "{taken:?}");
}

#[test]
fn ways_that_take_turns_as_the_best_do_not_have_the_loop_tried_more_often() {
    let mut governor = Governor::new(2, Consent { forwarding: true, hints: true, ..Consent::default() });
    let mut sequential = 0;
    for batch in 0..10_000 {
        let plan = governor.plan(1024);
        // What ways take differs from batch to batch more than from way to way.
        let noise = 0.97 + 0.01 * f64::from(batch * 5 % 7);
        let ns = [1060.0, 620.0, 615.0, 625.0, 1060.0, 1.0][plan.way as usize] * noise;
        let replays = 2 + batch as u64 * 3 % 5;
        let counts = Counts { speculations: 100, replays, ..measured(plan, 1024, 1060.0) };
        governor.record(1024, plan.way, Duration::from_nanos((ns * 1024.0) as u64), counts);
        sequential += usize::from(plan.way == Way::Sequential && batch > 1000);
    }
    // One burst a second.
    assert!(sequential < 40, "{sequential}");
}

#[test]
fn batches_of_different_work_are_compared_with_themselves() {
    let mut governor = Governor::new(2, Consent::default());
    let mut ahead = 0;
    for batch in 0..500 {
        // No two batches in a row are alike; ahead of turn each takes three quarters of its time.
        let ns = 5_000.0 + 7_000.0 * ((batch * 7) % 11) as f64;
        let plan = governor.plan(128);
        let share = if plan.way == Way::Sequential { 1.0 } else { 0.75 };
        ahead += usize::from(plan.way != Way::Sequential);
        let took = Duration::from_nanos((ns * share * 128.0) as u64);
        governor.record(128, plan.way, took, measured(plan, 128, ns));
    }
    assert!(ahead > 450, "{ahead}");
}

/// An application that allows what it is told to.
struct Allows<const ALL: bool>;

impl<const ALL: bool> ApplicationData for Allows<ALL> {
    type Request = ();
    type Reply = ();
}

impl<const ALL: bool> Application<ShardedState> for Allows<ALL> {
    type AppData = Self;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, _state: &ShardedState, _request: ()) {}

    fn update(&self, _state: &mut ShardedState, _request: ()) {}
}

impl<const ALL: bool> ScalableApp<ShardedState> for Allows<ALL> {
    const FORWARDING: bool = ALL;
    const HINTS: bool = ALL;

    fn speculatively_execute(&self, _state: &mut impl CRUDState, _request: ()) {}
}

#[test]
fn only_what_application_and_configuration_allow_is_done() {
    let all = ExecutorConfig::default();
    let none = ExecutorConfig { forwarding: false, hints: false, ..all.clone() };
    let allowed = Consent::of::<Allows<true>, ShardedState>(&all);
    assert_eq!(allowed, Consent { forwarding: true, hints: true, in_place: true, prefetching: true });
    let in_place = Consent { in_place: true, ..Consent::default() };
    assert_eq!(Consent::of::<Allows<true>, ShardedState>(&none), in_place);
    assert_eq!(Consent::of::<Allows<false>, ShardedState>(&all), in_place);
}

#[test]
fn short_operations_are_measured_where_batches_differ() {
    for (dear, expected) in [(1_100.0, false), (1_800.0, true)] {
        let mut governor = Governor::new(2, Consent::default());
        let mut measured_some = false;
        // Eight cheap batches in a row, then two others; on average they are too short to be measured.
        for batch in 0..400 {
            let ns = if batch % 10 < 8 { 700.0 } else { dear };
            let plan = governor.plan(128);
            measured_some |= batch > 0 && plan.measured > 0;
            let took = Duration::from_nanos((ns * 128.0) as u64);
            governor.record(128, plan.way, took, measured(plan, 128, ns));
        }
        assert_eq!(measured_some, expected, "{dear}");
    }
}

#[test]
fn operations_are_measured_the_more_often_the_less_batches_are_alike() {
    for (apart, every) in [(0.01, 2), (0.2, 1)] {
        let mut governor = Governor::new(2, Consent::default());
        for batch in 0..100 {
            let ns = 4200.0 * if batch % 2 == 0 { 1.0 - apart } else { 1.0 + apart };
            let took = Duration::from_nanos((ns * 1024.0) as u64);
            governor.record(1024, Way::Sequential, took, Counts::default());
        }
        assert_eq!(governor.plan_by(Way::OneMoment, 1024).measured, every, "{apart}");
    }
}

/// Runs `batches` whose operations take `ns` in the loop, and are measured to take `inflated` times as long ahead of turn, where a
/// batch takes this share of the loop's time; returns how many ran ahead of turn.
fn ahead_of_turn(governor: &mut Governor, batches: usize, ns: f64, inflated: f64, share: f64) -> usize {
    let mut ahead = 0;
    for batch in 0..batches {
        let plan = governor.plan(128);
        // Batches are not quite alike.
        let ns = ns * (0.97 + 0.01 * (batch * 5 % 7) as f64);
        let is_ahead = plan.way != Way::Sequential;
        ahead += usize::from(is_ahead);
        let took = Duration::from_nanos((ns * if is_ahead { share } else { 1.0 } * 128.0) as u64);
        governor.record(128, plan.way, took, measured(plan, 128, ns * inflated));
    }
    ahead
}

#[test]
fn operations_that_take_longer_ahead_of_turn_do_not_make_that_look_better() {
    // As where cores are far apart, or share execution units: two thirds of what operations are measured to take is no gain.
    let ahead = |inflated, share| {
        ahead_of_turn(&mut Governor::new(2, Consent::default()), 3000, 2000.0, inflated, share)
    };
    let taken = [ahead(1.5, 1.1), ahead(1.5, 0.8), ahead(1.0, 0.8)];
    assert!(taken[0] < 300 && taken[1] > 2800 && taken[2] > 2800, "{taken:?}");
}

#[test]
fn operations_that_begin_to_take_longer_ahead_of_turn_are_compared_again() {
    let mut governor = Governor::new(2, Consent::default());
    let mut ahead = |inflated, share| ahead_of_turn(&mut governor, 10_000, 2000.0, inflated, share);
    let taken = [ahead(1.0, 0.6), ahead(1.6, 1.1), ahead(1.0, 0.6)];
    assert!(taken[0] > 9900 && taken[1] < 3000 && taken[2] > 7000, "{taken:?}");
}

#[test]
fn operations_that_have_become_longer_cost_no_more_than_a_few_comparisons() {
    let mut governor = Governor::new(2, Consent::default());
    let ahead: usize =
        (0..100).map(|round| ahead_of_turn(&mut governor, 100, 2000.0 * 1.05f64.powi(round), 1.0, 0.6)).sum();
    assert!(ahead > 9800, "{ahead}");
}

#[test]
fn what_a_burst_loses_is_judged_by_how_much_longer_operations_take_in_it() {
    // By what they are measured to take ahead of turn, that is twice as fast; it takes three times as long.
    let ahead = ahead_of_turn(&mut Governor::new(2, Consent::default()), 10_000, 2000.0, 6.0, 3.0);
    assert!((6..34).contains(&ahead), "{ahead}");
}

#[test]
fn comparisons_that_leave_it_in_doubt_are_repeated_soon() {
    let mut governor = Governor::new(2, Consent::default());
    let mut ahead = 0;
    for _ in 0..3000 {
        let plan = governor.plan(128);
        let is_ahead = plan.way != Way::Sequential;
        // They take five times as long ahead of turn. But at first the other thread misses every other batch.
        let inflated = if ahead < 12 && ahead % 2 == 0 { 1.0 } else { 5.0 };
        ahead += usize::from(is_ahead);
        let took = Duration::from_nanos((2000.0 * if is_ahead { 2.0 } else { 1.0 } * 128.0) as u64);
        governor.record(128, plan.way, took, measured(plan, 128, 2000.0 * inflated));
    }
    assert!((12..150).contains(&ahead), "{ahead}");
}

#[test]
fn comparisons_that_are_disturbed_are_given_up() {
    let mut governor = Governor::new(2, Consent::default());
    let mut ahead = 0;
    for batch in 0..3000 {
        let plan = governor.plan(128);
        let is_ahead = plan.way != Way::Sequential;
        ahead += usize::from(is_ahead);
        let took = Duration::from_micros(if is_ahead { 150 } else { 256 });
        if batch < 100 || is_ahead {
            governor.record(128, plan.way, took, measured(plan, 128, 2000.0));
        } else {
            governor.pass_over(128, took);
        }
    }
    assert!(ahead > 2800, "{ahead}");
}

#[test]
fn batches_of_many_sizes_are_not_compared_more_often_than_those_of_one() {
    let mut governor = Governor::new(2, Consent::default());
    let (mut sequential_ns, mut all_ns) = (0.0, 0.0);
    for batch in 0..4000 {
        let len = [5, 20, 150, 1200][batch % 4];
        let plan = governor.plan(len);
        let is_ahead = plan.way != Way::Sequential;
        let ns = 4000.0 * len as f64 * if is_ahead { 0.6 } else { 1.0 };
        governor.record(len, plan.way, Duration::from_nanos(ns as u64), measured(plan, len, 4200.0));
        if batch >= 400 {
            all_ns += ns;
            sequential_ns += if is_ahead { 0.0 } else { ns };
        }
    }
    assert!(sequential_ns > 0.0 && sequential_ns < 0.03 * all_ns, "{sequential_ns} of {all_ns}");
}

#[test]
fn what_others_have_shown_counts_less_the_more_is_known() {
    let mut governor = Governor::new(2, Consent { hints: true, ..Consent::default() });
    let mut run = |len: usize, by_hints: f64| {
        let plan = governor.plan(len);
        let share = [1.0, 1.2, 1.2, by_hints][plan.way as usize];
        let replays = if plan.way == Way::ByHints { 0 } else { 30 };
        let counts = Counts { speculations: 100, replays, ..measured(plan, len, 10_000.0) };
        let took = Duration::from_nanos((share * 10_000.0 * len as f64) as u64);
        governor.record(len, plan.way, took, counts);
        usize::from(plan.way == Way::ByHints)
    };
    let mut by_hints = [0; 2];
    for _ in 0..2000 {
        by_hints[0] += run(128, 0.55);
        by_hints[1] += run(5, 1.05);
    }
    assert!(by_hints[0] > 1900 && by_hints[1] < 200, "{by_hints:?}");
}

#[test]
fn batches_of_a_new_size_begin_as_the_others_run() {
    let mut governor = Governor::new(2, Consent { forwarding: true, hints: true, ..Consent::default() });
    let mut run = |len: usize, batches: usize| {
        let ways = (0..batches).map(|_| {
            let plan = governor.plan(len);
            let share = [1.0, 0.8, 0.7, 0.6][plan.way as usize];
            let replays = if plan.way == Way::ByHints { 0 } else { 30 };
            let counts = Counts { speculations: 100, replays, ..measured(plan, len, 10_000.0) };
            let took = Duration::from_nanos((share * 10_000.0 * len as f64) as u64);
            governor.record(len, plan.way, took, counts);
            plan.way
        });
        ways.collect::<Vec<_>>()
    };
    assert_eq!(run(128, 300).last(), Some(&Way::ByHints));
    assert_eq!(run(1000, 10), [&[Way::Sequential][..], &[Way::ByHints; 9]].concat());
}

#[test]
fn what_is_done_beside_batches_does_not_hold_it_in_a_bad_way() {
    let mut governor = Governor::new(2, Consent::default());
    let mut ahead = 0;
    for _ in 0..4000 {
        let plan = governor.plan(128);
        let took = Duration::from_micros(if plan.way == Way::Sequential { 128 } else { 300 });
        if plan.way == Way::Sequential {
            governor.record(128, plan.way, took, Counts::default());
        } else {
            // There was something beside each of these.
            governor.pass_over(128, took);
            ahead += 1;
        }
    }
    assert!(ahead < 400, "{ahead}");
}

#[test]
fn of_ways_that_look_alike_the_one_is_preferred_whose_units_are_not_stale() {
    let all = Consent { forwarding: true, hints: true, ..Consent::default() };
    assert!(ways(all, [3_000.0, 2_000.0, 1_900.0, 2_000.0, 1.0, 1.0], 60)[3] > 2000);
    assert!(ways(all, [3_000.0, 2_000.0, 1_900.0, 2_000.0, 1.0, 1.0], 4)[2] > 2000);
}

#[test]
fn tiny_batches_and_single_threads_stay_sequential() {
    let mut governor = Governor::new(2, Consent::default());
    governor.record(16, Way::Sequential, Duration::from_nanos(800), Counts::default());
    assert_eq!(governor.plan(16).way, Way::Sequential);
    assert_eq!(governor.plan(1).way, Way::Sequential);
    let mut alone = Governor::new(1, Consent::default());
    alone.record(1000, Way::Sequential, Duration::from_millis(10), Counts::default());
    assert_eq!(alone.plan(1000).way, Way::Sequential);
}

#[test]
fn short_batches_do_not_keep_longer_ones_of_their_class_from_being_spread() {
    let mut governor = Governor::new(2, Consent::default());
    let mut ahead = 0;
    // Of 120 ns each: 17 are not worth spreading, 31 are, and gain.
    for len in [17, 31].into_iter().cycle().take(10_000) {
        if governor.passes(len) {
            continue;
        }
        let plan = governor.plan(len);
        let ns = if plan.way == Way::Sequential { 120.0 } else { 60.0 };
        ahead += usize::from(plan.way != Way::Sequential);
        governor.record(len, plan.way, Duration::from_nanos((ns * len as f64) as u64), Counts::default());
    }
    assert!(ahead > 4000, "{ahead}");
}

#[test]
fn chunks_shrink_with_cost_and_with_replays() {
    let mut governor = Governor::new(2, Consent::default());
    governor.record(1024, Way::Sequential, Duration::from_micros(1024), Counts::default());
    assert_eq!(governor.plan_by(Way::OneMoment, 1024).chunk, 16);
    let replays = Counts { speculations: 100, replays: 30, ..Counts::default() };
    governor.record(1024, Way::OneMoment, Duration::from_micros(600), replays);
    assert_eq!(governor.plan_by(Way::OneMoment, 1024).chunk, 1);
}
