//! The checker, on histories known to be right and wrong, and against two other checkers.

use std::time::Duration;

use chaos::linearizable::{Model, Operation, Verdict, check};
use chaos::model::RegisterAnswer::{self, Before, Done, Swapped};
use chaos::model::RegisterCall::{self, Delete, Get, Put, Swap};
use chaos::model::{Bank, BankAnswer, BankCall, Register};
use proptest::prelude::*;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

type Op = Operation<RegisterCall, RegisterAnswer>;

/// Far more than any history here takes.
const LIMIT: Duration = Duration::from_secs(60);

fn op(invoked: u64, returned: u64, call: RegisterCall, answer: RegisterAnswer) -> Op {
    Operation { call, invoked, returned: Some((returned, answer)) }
}

fn pending(invoked: u64, call: RegisterCall) -> Op {
    Operation { call, invoked, returned: None }
}

fn holds(history: &[Op]) -> bool {
    match check(&Register, history, LIMIT) {
        Verdict::Linearizable => true,
        Verdict::Violated { .. } => false,
        Verdict::Unknown => panic!("ran out of time"),
    }
}

#[test]
fn nothing_happened() {
    assert!(holds(&[]));
    assert!(holds(&[pending(0, Put(1))]));
}

#[test]
fn one_after_the_other() {
    let history = [
        op(0, 1, Get, Before(None)),
        op(2, 3, Put(1), Before(None)),
        op(4, 5, Get, Before(Some(1))),
        op(6, 7, Swap { expected: Some(1), new: 2 }, Swapped(true)),
        op(8, 9, Swap { expected: Some(1), new: 3 }, Swapped(false)),
        op(10, 11, Delete, Before(Some(2))),
        op(12, 13, Delete, Done),
        op(14, 15, Get, Before(None)),
    ];
    assert!(holds(&history));
}

#[test]
fn a_read_beside_a_write_may_see_either() {
    for seen in [None, Some(1)] {
        assert!(holds(&[op(0, 10, Put(1), Done), op(3, 4, Get, Before(seen))]));
    }
    // But not the new value and then the old one.
    let back = [op(0, 10, Put(1), Done), op(1, 2, Get, Before(Some(1))), op(3, 4, Get, Before(None))];
    assert!(!holds(&back));
}

#[test]
fn writes_may_take_effect_in_any_order_while_they_run() {
    let history = [
        op(0, 20, Put(1), Done),
        op(0, 20, Put(2), Done),
        op(0, 20, Put(3), Done),
        op(2, 3, Get, Before(Some(3))),
        op(4, 5, Get, Before(Some(2))),
        op(6, 7, Get, Before(Some(1))),
    ];
    assert!(holds(&history));
}

#[test]
fn a_stale_read_is_found_with_its_place() {
    let history = [
        op(0, 1, Put(1), Done),
        op(2, 3, Put(2), Done),
        op(4, 5, Get, Before(Some(1))),
        op(6, 7, Put(3), Done),
    ];
    assert_eq!(check(&Register, &history, LIMIT), Verdict::Violated { placed: 2, stuck: vec![2] });
}

#[test]
fn a_lost_update_is_found() {
    // Both saw the first value as the one before theirs.
    let history = [
        op(0, 1, Put(1), Before(None)),
        op(2, 5, Put(2), Before(Some(1))),
        op(3, 6, Put(3), Before(Some(1))),
    ];
    assert!(!holds(&history));
    let history = [op(0, 1, Put(1), Done), op(2, 3, Delete, Done), op(4, 5, Get, Before(Some(1)))];
    assert!(!holds(&history));
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    assert!(!holds(&[op(0, 1, Put(1), Done), op(0, 5, Get, Before(Some(7)))]));
}

#[test]
fn a_pending_write_may_have_taken_effect_at_any_time_or_not() {
    let written = [pending(0, Put(1)), op(100, 101, Get, Before(Some(1)))];
    assert!(holds(&written));
    let not_written = [pending(0, Put(1)), op(100, 101, Get, Before(None))];
    assert!(holds(&not_written));
    let late = [
        pending(0, Put(1)),
        op(10, 11, Get, Before(None)),
        op(12, 13, Put(2), Done),
        op(14, 15, Get, Before(Some(2))),
        op(16, 17, Get, Before(Some(1))),
    ];
    assert!(holds(&late));
    // Once, and not before it was asked for.
    let twice = [&late[..], &[op(18, 19, Put(3), Done), op(20, 21, Get, Before(Some(1)))][..]].concat();
    assert!(!holds(&twice));
    let early = [op(0, 1, Get, Before(Some(1))), pending(2, Put(1))];
    assert!(!holds(&early));
}

#[test]
fn a_pending_operation_may_need_another_one() {
    let history = [
        pending(0, Put(1)),
        pending(0, Swap { expected: Some(1), new: 2 }),
        pending(0, Swap { expected: Some(2), new: 3 }),
        op(10, 11, Get, Before(Some(3))),
    ];
    assert!(holds(&history));
    assert!(!holds(&history[1..]));
}

#[test]
fn an_operation_executed_twice_is_found() {
    // The retry of the first write was executed after the second one.
    let history =
        [op(0, 3, Put(1), Before(None)), op(4, 5, Put(2), Before(Some(1))), op(6, 7, Get, Before(Some(1)))];
    assert!(!holds(&history));
    let history = [op(0, 1, Swap { expected: None, new: 1 }, Swapped(false)), op(2, 3, Get, Before(Some(1)))];
    assert!(!holds(&history));
}

#[test]
fn many_pending_writes_and_a_slow_one_do_not_explode() {
    let mut history = vec![op(0, 100_000, Put(1_000_000), Done)];
    for number in 0..64 {
        history.push(pending(10 * number, Put(2_000_000 + number)));
    }
    let mut last = None;
    for number in 0..800 {
        let time = 1_000 + 10 * number;
        // Every hundredth read sees one of the pending writes.
        if number % 100 == 99 {
            last = Some(2_000_000 + number / 100);
        } else if number % 2 == 0 {
            history.push(op(time, time + 4, Put(number), Before(last)));
            last = Some(number);
        }
        history.push(op(time + 5, time + 9, Get, Before(last)));
    }
    assert!(holds(&history));
    // A value that was overwritten long ago.
    history.push(op(200_000, 200_001, Get, Before(Some(0))));
    assert!(
        matches!(check(&Register, &history, LIMIT), Verdict::Violated { stuck, .. } if stuck == [history.len() - 1])
    );
}

#[test]
fn a_search_that_takes_too_long_ends_without_a_verdict() {
    // Every order of the writes explains the state; no order explains the read.
    let mut history: Vec<Op> = (0..40).map(|number| op(0, 100, Put(number), Done)).collect();
    history
        .extend((0..40).map(|number| op(0, 100, Swap { expected: Some(number), new: 100 + number }, Done)));
    history.push(op(101, 102, Get, Before(Some(99))));
    assert_eq!(check(&Register, &history, Duration::from_millis(50)), Verdict::Unknown);
}

/// Tries every order of every choice of the pending operations.
fn brute_force<M: Model>(
    model: &M,
    history: &[Operation<M::Call, M::Answer>],
    state: M::State,
    left: &mut Vec<usize>,
) -> bool {
    if left.iter().all(|&index| history[index].returned.is_none()) {
        return true;
    }
    (0..left.len()).any(|at| {
        let index = left[at];
        let Operation { call, invoked, returned } = &history[index];
        let is_late = |&other: &usize| history[other].returned.as_ref().is_some_and(|(end, _)| end < invoked);
        if left.iter().any(is_late) {
            return false;
        }
        let answer = returned.as_ref().map(|(_, answer)| answer);
        let Some(next) = model.step(&state, call, answer) else { return false };
        left.remove(at);
        let found = brute_force(model, history, next, left);
        left.insert(at, index);
        found
    })
}

struct Keyed;

impl Specification for Keyed {
    type State = Option<u64>;
    type Operation = (RegisterCall, Option<RegisterAnswer>);

    fn init() -> Self::State {
        Register.initial()
    }

    fn apply((call, answer): &Self::Operation, state: &Self::State) -> (bool, Self::State) {
        Register.step(state, call, answer.as_ref()).map_or((false, *state), |after| (true, after))
    }
}

/// The verdict of `todc-utils`. It knows no pending operations: there they return after all others, any answer being right.
fn by_todc(history: &[Op]) -> bool {
    let mut actions = Vec::new();
    for (process, Operation { call, invoked, returned }) in history.iter().enumerate() {
        let answer = returned.as_ref().map(|(_, answer)| *answer);
        let end = returned.as_ref().map_or(u64::MAX, |(end, _)| *end);
        // Of the same moment, calls come first: such operations overlap.
        actions.push(((*invoked, 0), (process, Action::Call((*call, answer)))));
        actions.push(((end, 1), (process, Action::Response((*call, answer)))));
    }
    actions.sort_by_key(|(at, _)| *at);
    let actions: Vec<_> = actions.into_iter().map(|(_, action)| action).collect();
    actions.is_empty() || WGLChecker::<Keyed>::is_linearizable(History::from_actions(actions))
}

fn calls() -> impl Strategy<Value = RegisterCall> {
    let value = || prop_oneof![Just(None), (0..3_u64).prop_map(Some)];
    prop_oneof![
        3 => Just(Get),
        3 => (0..3_u64).prop_map(Put),
        1 => Just(Delete),
        1 => (value(), 0..3_u64).prop_map(|(expected, new)| Swap { expected, new }),
    ]
}

/// One operation to be: its call, when it is invoked, takes effect and returns, and what becomes of it.
#[derive(Clone, Debug)]
struct Plan {
    call: RegisterCall,
    times: [u64; 3],
    /// 0: pending, took effect; 1: pending, did not; else it returned.
    fate: u8,
    /// Whether it tells what was there before.
    tells: bool,
}

fn plans(most: usize) -> impl Strategy<Value = Vec<Plan>> {
    let plan = (calls(), [0..30_u64, 0..30, 0..30], 0..8_u8, any::<bool>());
    let plan = plan.prop_map(|(call, mut times, fate, tells)| {
        times.sort_unstable();
        Plan { call, times, fate, tells }
    });
    prop::collection::vec(plan, 0..=most)
}

/// Runs the plans: a history that is linearizable.
fn run(mut plans: Vec<Plan>) -> Vec<Op> {
    plans.sort_by_key(|plan| plan.times[1]);
    let mut state = None;
    let mut history = Vec::new();
    for Plan { call, times: [invoked, _, returned], fate, tells } in plans {
        let before = state;
        if fate != 1 {
            state = Register.step(&state, &call, None).expect("any answer is right");
        }
        let answer = match call {
            Swap { expected, .. } => Swapped(expected == before),
            Put(_) | Delete if !tells => Done,
            _ => Before(before),
        };
        history.push(Operation { call, invoked, returned: (fate > 1).then_some((returned, answer)) });
    }
    history
}

/// Gives one answer another value: a history that is probably not linearizable.
fn falsify(history: &mut [Op], at: usize, value: Option<u64>) {
    let answers = history.iter_mut().filter_map(|op| op.returned.as_mut().map(|(_, answer)| answer));
    let mut answers: Vec<_> = answers.filter(|answer| **answer != Done).collect();
    if answers.is_empty() {
        return;
    }
    let at = at % answers.len();
    *answers[at] = match *answers[at] {
        Swapped(swapped) => Swapped(!swapped),
        _ => Before(value),
    };
}

/// Any operation on two accounts, with any answer of the right kind, or none.
fn transactions() -> impl Strategy<Value = Operation<BankCall, BankAnswer>> {
    let account = || 0..2_u64;
    let answer = prop_oneof![
        3 => Just(BankAnswer::Moved { from: 1, to: 2 }),
        1 => (0..4_u64).prop_map(|from| BankAnswer::Moved { from, to: 3 - from.min(3) }),
        1 => (0..3_u64).prop_map(BankAnswer::Short),
    ];
    let transfer = (account(), account(), 1..3_u64, answer)
        .prop_map(|(from, to, amount, answer)| (BankCall::Transfer { from, to, amount }, answer));
    let balance = (account(), 0..4_u64)
        .prop_map(|(account, balance)| (BankCall::Balance(account), BankAnswer::Balance(balance)));
    (prop_oneof![transfer, balance], 0..20_u64, 0..20_u64, prop::bool::weighted(0.5)).prop_map(
        |((call, answer), a, b, pending)| Operation {
            call,
            invoked: a.min(b),
            returned: (!pending).then_some((a.max(b), answer)),
        },
    )
}

fn values() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![Just(None), (0..3_u64).prop_map(Some)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_ran_is_linearizable(plans in plans(16)) {
        prop_assert!(holds(&run(plans)));
    }

    #[test]
    fn trying_everything_says_the_same(plans in plans(6), at in 0..6_usize, value in values(), wrong in any::<bool>()) {
        let mut history = run(plans);
        if wrong {
            falsify(&mut history, at, value);
        }
        let mut all = (0..history.len()).collect();
        prop_assert_eq!(holds(&history), brute_force(&Register, &history, None, &mut all));
    }

    #[test]
    fn trying_everything_says_the_same_of_accounts(history in prop::collection::vec(transactions(), 0..=6)) {
        let bank = Bank([(0, 2), (1, 1)].into());
        let mut all = (0..history.len()).collect();
        let tried = brute_force(&bank, &history, bank.initial(), &mut all);
        prop_assert_eq!(check(&bank, &history, LIMIT) == Verdict::Linearizable, tried);
    }

    #[test]
    fn todc_says_the_same(plans in plans(12), at in 0..12_usize, value in values(), wrong in any::<bool>()) {
        let mut history = run(plans);
        if wrong {
            falsify(&mut history, at, value);
        }
        prop_assert_eq!(holds(&history), by_todc(&history));
    }
}

/// The comparisons above are worth something only if both verdicts are common in what they compare.
#[test]
fn falsified_histories_are_often_wrong_and_often_right() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut wrong = 0;
    for _ in 0..400 {
        let tree = (plans(6), 0..6_usize, values()).new_tree(&mut runner).expect("a value");
        let (plans, at, value) = tree.current();
        let mut history = run(plans);
        falsify(&mut history, at, value);
        wrong += usize::from(!holds(&history));
    }
    assert!((60..=340).contains(&wrong), "{wrong} of 400 are wrong");
}
