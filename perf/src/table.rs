//! Tables in markdown, so that what is printed can be kept.

use std::fmt;

use comfy_table::{CellAlignment, presets};

/// A table whose first column is text, and whose others are numbers.
pub struct Table(comfy_table::Table);

impl Table {
    /// An empty table with these columns.
    pub fn new(header: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(header);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Table(table)
    }

    /// Adds a row.
    pub fn add(&mut self, row: impl IntoIterator<Item = String>) {
        self.0.add_row(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
