//! When which other way is tried: each in its turn, and out of turn one that seems to be better.

use super::Way;
use super::burst::BURST_NS;

/// The pause after a burst, in bursts: at first, and when they have lost again and again.
const FIRST_PAUSE: f64 = 32.0;
/// The same where operations are measured: each burst says more there, and batches that differ may show something else.
const FIRST_MEASURED_PAUSE: f64 = 4.0;
const LONGEST_PAUSE: f64 = 512.0;
/// The pause after a way's first loss, however great that was, and however long the burst: it may have gone badly by chance.
const SECOND_PAUSE: f64 = 64.0;
const SECOND_PAUSE_NS: f64 = 100_000_000.0;
/// What a burst has lost should be about this share of the time until the next one.
const LOST: f64 = 0.01;

/// What a burst has shown.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// How much longer than in the way in use batches took, as a share of that; `None` if they took less.
    pub lost: Option<f64>,
    /// How long the burst took, or should have taken.
    pub took_ns: f64,
    /// It was the way's first.
    pub first: bool,
    /// Operations are measured.
    pub measured: bool,
}

/// The time between bursts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pause {
    left_ns: f64,
    /// How long it is, in bursts.
    bursts: f64,
}

impl Pause {
    /// Takes in that so much time has passed.
    pub fn pass(&mut self, ns: f64) {
        self.left_ns -= ns;
    }

    /// True if enough time has passed.
    pub fn is_over(&self) -> bool {
        self.left_ns <= 0.0
    }

    /// Begins after a burst.
    pub fn begin(&mut self, Outcome { lost, took_ns, first, measured }: Outcome) {
        let bursts = lost.map_or(0.0, |lost| {
            // A burst that went badly by chance is not to count for long.
            let most = (self.bursts * 4.0).clamp(SECOND_PAUSE, LONGEST_PAUSE);
            (self.bursts * 2.0).max(lost / LOST).min(most)
        });
        self.bursts = bursts.max(if measured { FIRST_MEASURED_PAUSE } else { FIRST_PAUSE });
        let longest = if first { SECOND_PAUSE_NS } else { f64::INFINITY };
        self.left_ns = (self.bursts * took_ns.max(BURST_NS)).min(longest);
    }

    /// Begins after a burst that was disturbed: what it could not find out now it is to find out later.
    pub fn begin_anew(&mut self) {
        self.bursts = (self.bursts * 2.0).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.left_ns = self.bursts * BURST_NS;
    }
}

/// What is tried when.
#[derive(Clone, Copy, Debug)]
pub struct Trials {
    /// The way tried last.
    last: Way,
    turns: Pause,
    /// A way that seems to be better than the one in use.
    promising: Option<Way>,
    promises: Pause,
    /// The last burst was not in its turn.
    out_of_turn: bool,
}

impl Default for Trials {
    fn default() -> Self {
        let (turns, promises) = (Pause::default(), Pause::default());
        Trials { last: Way::Sequential, turns, promising: None, promises, out_of_turn: false }
    }
}

impl Trials {
    /// Takes in that so much time has passed.
    pub fn pass(&mut self, ns: f64) {
        self.turns.pass(ns);
        self.promises.pass(ns);
    }

    /// True if it is no way's turn yet.
    pub fn is_paused(&self) -> bool {
        !self.turns.is_over()
    }

    /// True if a promising way has waited long enough.
    fn has_waited(&self) -> bool {
        self.promising.is_some() && self.promises.is_over()
    }

    /// True if something is to be tried now.
    pub fn are_due(&self) -> bool {
        !self.is_paused() || self.has_waited()
    }

    /// The way to try now, of those that are worth it.
    pub fn next(&mut self, is_worth_it: [bool; Way::ALL.len()]) -> Option<Way> {
        let is_worth_it = |&way: &Way| is_worth_it[way as usize];
        let promising = self.promising.filter(|_| self.has_waited()).filter(is_worth_it);
        let mut turns = Way::ALL.into_iter().cycle().skip(self.last as usize + 1).take(Way::ALL.len());
        let turn = if self.is_paused() { None } else { turns.find(is_worth_it) };
        let next = promising.or(turn)?;
        self.out_of_turn = promising.is_some();
        (self.last, self.promising) = (next, None);
        Some(next)
    }

    /// Takes in which way seems to be better than the one in use, if any does. If it still does after a while, which chance
    /// does not, it is tried.
    pub fn promise(&mut self, way: Option<Way>) {
        if way.is_some() && self.promising.is_none() {
            self.promises.left_ns = self.promises.left_ns.max(FIRST_PAUSE * BURST_NS);
        }
        self.promising = way;
    }

    /// Takes in what the last burst has shown.
    pub fn end(&mut self, outcome: Outcome) {
        self.pause().begin(outcome);
    }

    /// Takes in that the last burst was disturbed.
    pub fn give_up(&mut self) {
        self.pause().begin_anew();
    }

    /// The pause after the last burst.
    fn pause(&mut self) -> &mut Pause {
        if self.out_of_turn { &mut self.promises } else { &mut self.turns }
    }

    /// True if no burst has ended yet.
    pub fn are_new(&self) -> bool {
        self.turns.bursts == 0.0
    }

    /// Ends the pause.
    pub fn hurry(&mut self) {
        self.turns.left_ns = 0.0;
    }

    /// Starts over, with a pause.
    pub fn start_over(&mut self, pause_ns: f64) {
        *self = Trials { last: self.last, ..Trials::default() };
        self.turns.left_ns = pause_ns;
    }
}
