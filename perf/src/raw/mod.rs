//! The only folder of this program with unsafe code.
#![allow(unsafe_code)]

pub mod counting;
pub mod memory;
