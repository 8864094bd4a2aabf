//! A flame graph of what `perf script` prints.

use std::io::{BufReader, Read, Write};

use inferno::collapse::Collapse;
use inferno::collapse::perf::Folder;
use inferno::flamegraph::{Options, from_reader};

use crate::error::PerfError;

/// Reads samples as `perf script` prints them, and writes an SVG with this title.
///
/// # Errors
///
/// Input that holds no samples, or what reader and writer return.
pub fn draw(samples: impl Read, svg: impl Write, title: &str) -> Result<(), PerfError> {
    let mut folded = Vec::new();
    Folder::default().collapse(BufReader::new(samples), &mut folded)?;
    let mut options = Options::default();
    options.title = title.to_owned();
    options.count_name = "ns".to_owned();
    Ok(from_reader(&mut options, folded.as_slice(), svg)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_an_svg() {
        let samples = "perf 1 1.0: 1 cpu-clock: \n\t 1 inner (perf)\n\t 2 outer (perf)\n\n";
        let mut svg = Vec::new();
        draw(samples.as_bytes(), &mut svg, "a title").expect("two frames");
        let svg = String::from_utf8(svg).expect("text");
        assert!(svg.contains("<svg") && svg.contains("inner") && svg.contains("a title"));
    }
}
