//! Other ways to do the same, to be compared with.

mod phased;
mod view;

pub use phased::execute as phased;
