//! What is shown at the end: a table for people, or a JSON document for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::row::{Line, Verdict};
use crate::error::PerfError;
use crate::machine;
use crate::probe::{LIMIT_NS, SLOW};
use crate::table::Table;

/// All lines.
pub struct Report {
    lines: Vec<Line>,
    /// What the machine had to do besides, when the measurement began.
    load_average: f64,
}

#[derive(Serialize)]
struct Document<'a> {
    machine: String,
    commit: String,
    load_average: f64,
    rows: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    row: &'a str,
    workload: &'a str,
    work_ns: u64,
    batch: usize,
    threads: usize,
    ratio: f64,
    ratio_min: f64,
    ratio_max: f64,
    first_ratio: Option<f64>,
    target: f64,
    baselines: &'a BTreeMap<&'static str, f64>,
    must: f64,
    unit: &'a str,
    less_is_better: bool,
    met: &'static str,
    equal: bool,
    pairs: usize,
    pairs_left_out: usize,
    all_pairs_bad: bool,
    sequential_ns: Option<f64>,
    sequential_share: Option<f64>,
    replayed_share: Option<f64>,
}

impl<'a> Entry<'a> {
    fn of(line: &'a Line) -> Self {
        let measured = &line.measured;
        let value = &measured.value;
        Entry {
            row: line.name.trim(),
            workload: line.workload,
            work_ns: line.work_ns,
            batch: line.batch,
            threads: line.threads,
            ratio: value.median,
            ratio_min: value.min,
            ratio_max: value.max,
            first_ratio: measured.first,
            target: line.goal.aim(),
            baselines: &measured.baselines,
            must: line.goal.must(),
            unit: line.unit,
            less_is_better: line.goal.less_is_better(),
            met: met(line),
            equal: measured.equal,
            pairs: value.used,
            pairs_left_out: value.left_out,
            all_pairs_bad: value.all_bad,
            sequential_ns: measured.sequential_ns,
            sequential_share: measured.sequential_share,
            replayed_share: measured.replayed_share,
        }
    }
}

fn met(line: &Line) -> &'static str {
    match line.goal.verdict(line.measured.value.median) {
        _ if !line.measured.equal => "WRONG",
        Verdict::Aim => "aim",
        Verdict::Must => "must",
        Verdict::Neither => "no",
    }
}

impl Report {
    pub fn new(lines: Vec<Line>, load_average: f64) -> Self {
        Report { lines, load_average }
    }

    /// True if state and replies of every row were the sequential loop's.
    pub fn all_equal(&self) -> bool {
        self.lines.iter().all(|line| line.measured.equal)
    }

    /// One JSON document.
    pub fn json(&self) -> Result<String, PerfError> {
        let rows = self.lines.iter().map(Entry::of).collect();
        let load_average = self.load_average;
        let document = Document { machine: machine::name(), commit: machine::commit(), load_average, rows };
        Ok(serde_json::to_string_pretty(&document)?)
    }

    /// A table, with a legend.
    pub fn table(&self) -> String {
        let mut table = Table::new(&[
            "row",
            "value",
            "min..max",
            "pairs",
            "out",
            "aim",
            "must",
            "met",
            "loop ns/op",
            "seq",
            "replayed",
            "baselines",
        ]);
        for line in &self.lines {
            table.add(cells(line));
        }
        format!(
            "{}; load average when it began: {}\n\n{table}\n\n{}",
            machine::heading(),
            self.load_average,
            legend()
        )
    }
}

fn cells(line: &Line) -> [String; 12] {
    let measured = &line.measured;
    let value = &measured.value;
    let share = |share: Option<f64>| share.map(|share| format!("{:.0}%", 100.0 * share)).unwrap_or_default();
    let first = measured.first.map(|first| format!("first {first:.2}"));
    let baselines = measured.baselines.iter().map(|(name, value)| format!("{name} {value:.2}"));
    let besides: Vec<String> = first.into_iter().chain(baselines).collect();
    [
        line.name.clone(),
        format!("{:.2} {}", value.median, line.unit),
        format!("{:.2}..{:.2}", value.min, value.max),
        if value.all_bad { format!("{} bad", value.used) } else { value.used.to_string() },
        value.left_out.to_string(),
        format!("{:.2}", line.goal.aim()),
        format!("{:.2}", line.goal.must()),
        met(line).to_owned(),
        measured.sequential_ns.map(|ns| format!("{ns:.0}")).unwrap_or_default(),
        share(measured.sequential_share),
        share(measured.replayed_share),
        besides.join(", "),
    ]
}

fn legend() -> String {
    format!(
        "x: times as fast as the sequential loop, median over pairs of samples. out: pairs left out because the cores \
         were more than {LIMIT_NS} ns apart or slower than they can be (by a factor of {SLOW}), or others wanted them; bad: \
         all were like that, so all count. seq: batches \
         that the engine ran sequentially. replayed: of the operations run ahead of their turn. first: what the \
         first of two measurements gave; the second counts."
    )
}
