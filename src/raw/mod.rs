//! The only folder with unsafe code: small pieces with safe interfaces, each with its argument beside it.
#![allow(unsafe_code)]

pub mod chunks;
