//! When which other way is tried: each in its turn, and out of turn one that seems to be better, or the sequential one only to compare
//! what operations take.

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
/// A class that begins with what others know compares operations itself only after so many times its first pause.
const COMPARED_LATER: f64 = 16.0;

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
    /// What they take was compared, if it was, and leaves no doubt.
    pub sure: bool,
}

/// The time between bursts.
#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    left_ns: f64,
    /// How long it is, in bursts.
    bursts: f64,
}

impl Pause {
    /// Takes in that so much time has passed.
    fn pass(&mut self, ns: f64) {
        self.left_ns -= ns;
    }

    /// True if enough time has passed.
    fn is_over(&self) -> bool {
        self.left_ns <= 0.0
    }

    /// Begins after a burst.
    fn begin(&mut self, Outcome { lost, took_ns, first, measured, .. }: Outcome) {
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
    fn begin_anew(&mut self) {
        self.bursts = (self.bursts * 2.0).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.left_ns = self.bursts * BURST_NS;
    }
}

/// Why a way is tried.
#[derive(Clone, Copy, Debug, Default)]
enum Why {
    /// It is its turn.
    #[default]
    Turn,
    /// It seems to be better than the one in use.
    Promise,
    /// To compare what operations take.
    Comparison,
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
    comparisons: Pause,
    /// Why the last burst was.
    why: Why,
}

impl Default for Trials {
    fn default() -> Self {
        Trials {
            last: Way::Sequential,
            turns: Pause::default(),
            promising: None,
            promises: Pause::default(),
            comparisons: Pause::default(),
            why: Why::default(),
        }
    }
}

impl Trials {
    /// Takes in that so much time has passed.
    pub fn pass(&mut self, ns: f64) {
        self.turns.pass(ns);
        self.promises.pass(ns);
        self.comparisons.pass(ns);
    }

    /// True if it is no way's turn yet.
    pub fn is_paused(&self) -> bool {
        !self.turns.is_over()
    }

    /// True if a promising way has waited long enough.
    fn has_waited(&self) -> bool {
        self.promising.is_some() && self.promises.is_over()
    }

    /// True if something is to be tried now; `compares` says if operations can be compared.
    pub fn are_due(&self, compares: bool) -> bool {
        !self.is_paused() || self.has_waited() || (compares && self.comparisons.is_over())
    }

    /// The way to try now, of those that are worth it, or the sequential one if operations can be compared and it is time.
    pub fn next(&mut self, is_worth_it: [bool; Way::ALL.len()], compares: bool) -> Option<Way> {
        if compares && self.comparisons.is_over() {
            self.why = Why::Comparison;
            return Some(Way::Sequential);
        }
        let is_worth_it = |&way: &Way| is_worth_it[way as usize];
        let promising = self.promising.filter(|_| self.has_waited()).filter(is_worth_it);
        let mut turns = Way::ALL.into_iter().cycle().skip(self.last as usize + 1).take(Way::ALL.len());
        let turn = if self.is_paused() { None } else { turns.find(is_worth_it) };
        let next = promising.or(turn)?;
        self.why = if promising.is_some() { Why::Promise } else { Why::Turn };
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
        match self.why {
            Why::Turn => self.turns.begin(outcome),
            Why::Promise => self.promises.begin(outcome),
            Why::Comparison => {
                self.compared(outcome.lost.unwrap_or(0.0), outcome.took_ns, outcome.sure);
                if outcome.lost.is_none() {
                    // Whether it was chance, the others' next turn tells.
                    self.hurry();
                }
            }
        }
    }

    /// Takes in that operations have been compared: a burst for that alone would have lost this share of so much time. If they
    /// are in doubt, the first few times come sooner than what is lost allows.
    pub fn compared(&mut self, lost: f64, took_ns: f64, sure: bool) {
        let lost = Some(if sure { lost } else { 0.0 });
        self.comparisons.begin(Outcome { lost, took_ns, first: false, measured: true, sure });
    }

    /// Ends the pause between comparisons, and begins with short ones: another way than the loop is in use now.
    pub fn compare_anew(&mut self) {
        self.comparisons = Pause::default();
    }

    /// Takes in that the last burst was disturbed.
    pub fn give_up(&mut self) {
        let pause = match self.why {
            Why::Turn => &mut self.turns,
            Why::Promise => &mut self.promises,
            Why::Comparison => &mut self.comparisons,
        };
        pause.begin_anew();
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
        self.comparisons.left_ns = COMPARED_LATER * pause_ns;
    }
}
