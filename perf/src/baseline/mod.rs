//! Other ways to do the same, to be compared with.

mod phased;
pub mod view;

pub use phased::execute as phased;
