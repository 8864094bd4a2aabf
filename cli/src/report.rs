//! What is shown at the end: a table for people, or a JSON document for programs.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use workloads::{WorkloadKind, reference};

use crate::drive::Outcome;
use crate::error::CliError;

/// What the sequential loop gave: what every executor has to give.
pub struct Reference {
    pub outcome: reference::Outcome,
    pub state_digest: [u8; 32],
}

/// A whole run.
pub struct Report {
    pub workload: WorkloadKind,
    pub threads: usize,
    pub batch: usize,
    pub operations: u64,
    pub reference: Reference,
    pub rows: Vec<Row>,
}

/// One executor's run.
#[derive(Serialize)]
pub struct Row {
    name: &'static str,
    ops_per_s: f64,
    latency_us: Latency,
    collisions: u64,
    speculations: u64,
    replays: u64,
    sequential_batches: u64,
    state_digest: String,
    reply_digest: String,
    equal: bool,
    #[serde(skip)]
    batches: u64,
}

/// From queueing a batch to its last reply, in microseconds.
#[derive(Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    p999: f64,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    workload: &'static str,
    threads: usize,
    batch: usize,
    operations: u64,
    executors: &'a [Row],
}

impl Row {
    /// `outcome`, held against `reference`.
    pub fn new(name: &'static str, reference: &Reference, outcome: Outcome) -> Self {
        let recorded = &outcome.recorded;
        let expected = &reference.outcome;
        let equal = recorded.orderly
            && recorded.count == expected.operations
            && recorded.replies == expected.replies
            && outcome.state_digest == reference.state_digest;
        let microseconds = |quantile| recorded.latency.value_at_quantile(quantile) as f64 / 1000.0;
        Row {
            name,
            ops_per_s: rate(recorded.count, outcome.elapsed).round(),
            latency_us: Latency {
                p50: microseconds(0.5),
                p99: microseconds(0.99),
                p999: microseconds(0.999),
            },
            collisions: outcome.counters.collisions,
            speculations: outcome.counters.speculations,
            replays: outcome.counters.replays,
            sequential_batches: outcome.counters.sequential_batches,
            state_digest: hex(&outcome.state_digest),
            reply_digest: recorded.replies.to_string(),
            equal,
            batches: outcome.counters.batches,
        }
    }

    fn cells(&self, reference: f64) -> Vec<String> {
        let Latency { p50, p99, p999 } = self.latency_us;
        let share = 100.0 * self.sequential_batches as f64 / self.batches.max(1) as f64;
        vec![
            self.name.to_owned(),
            grouped(self.ops_per_s),
            format!("{:.2}x", self.ops_per_s / reference),
            grouped(p50),
            grouped(p99),
            grouped(p999),
            grouped(self.collisions as f64),
            grouped(self.speculations as f64),
            grouped(self.replays as f64),
            format!("{share:.0}%"),
            short(&self.state_digest),
            short(&self.reply_digest),
            if self.equal { "equal" } else { "DIFFERENT" }.to_owned(),
        ]
    }
}

impl Report {
    /// True if every executor equals the reference.
    pub fn all_equal(&self) -> bool {
        self.rows.iter().all(|row| row.equal)
    }

    /// One JSON document.
    pub fn json(&self) -> Result<String, CliError> {
        Ok(serde_json::to_string(&Document {
            workload: self.workload.name(),
            threads: self.threads,
            batch: self.batch,
            operations: self.operations,
            executors: &self.rows,
        })?)
    }

    /// What is shown, the table, and what the verdict means.
    pub fn table(&self) -> String {
        const HEADER: [&str; 13] = [
            "executor",
            "operations\nper second",
            "against\nloop",
            "batch us\np50",
            "\np99",
            "\np99.9",
            "colli-\nsions",
            "specu-\nlations",
            "\nreplays",
            "sequential\nbatches",
            "state\ndigest",
            "replies\ndigest",
            "\nverdict",
        ];
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(HEADER);
        let outcome = &self.reference.outcome;
        let reference = rate(outcome.operations, outcome.elapsed);
        table.add_row(aligned(self.reference_cells(reference)));
        for row in &self.rows {
            table.add_row(aligned(row.cells(reference)));
        }
        format!("{}\n{}\n{}", self.introduction(), table, self.verdict())
    }

    fn introduction(&self) -> String {
        format!(
            "{} ({}).\n{} operations in batches of {}, on the plain loop and on each executor with {} threads \
             (single-*: one); latency is from queueing a batch to its last reply.",
            self.workload,
            self.workload.summary(),
            grouped(self.operations as f64),
            self.batch,
            self.threads,
        )
    }

    fn reference_cells(&self, rate: f64) -> Vec<String> {
        let mut cells = vec!["plain loop".to_owned(), grouped(rate), "1.00x".to_owned()];
        cells.resize(10, "-".to_owned());
        cells.push(short(&hex(&self.reference.state_digest)));
        cells.push(short(&self.reference.outcome.replies.to_string()));
        cells.push("reference".to_owned());
        cells
    }

    fn verdict(&self) -> &'static str {
        if self.all_equal() {
            "equal: every reply, their order and the final state are those of executing the operations one by one."
        } else {
            "DIFFERENT: a reply, the order of replies or the final state is not that of executing the operations one \
             by one. This is a defect: please report it with the command line."
        }
    }
}

/// The first cell to the left, numbers to the right.
fn aligned(cells: Vec<String>) -> Vec<Cell> {
    let align = |(n, cell): (usize, String)| match n {
        0 | 12 => Cell::new(cell),
        _ => Cell::new(cell).set_alignment(CellAlignment::Right),
    };
    cells.into_iter().enumerate().map(align).collect()
}

fn rate(operations: u64, elapsed: Duration) -> f64 {
    operations as f64 / elapsed.as_secs_f64().max(1e-9)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first digits: enough to tell two digests apart by eye.
fn short(digest: &str) -> String {
    digest.chars().take(8).collect()
}

/// A whole number with its digits in groups of three.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(["0", "999", "1,000", "1,234,568"], [0.0, 999.0, 1000.0, 1_234_567.8].map(grouped)[..]);
    }

    #[test]
    fn digests_are_hexadecimal() {
        assert_eq!(hex(&[0, 0xab]), "00ab");
        assert_eq!(short("0123456789"), "01234567");
    }
}
