//! The only folder with unsafe code: small pieces with safe interfaces, each with its argument beside it.
//!
//! | piece | what it makes safe |
//! |---|---|
//! | [`gate`] | lending a borrowed job to threads that outlive the borrow |
//! | [`arena`] | sending a bump arena along with the unit that allocates in it |
//! | [`growing`] | a vector in an arena, whose unused room is not touched |
//! | [`prefetch`] | asking for a cache line |
//! | [`slots`] | handing a unit's result from the thread that ran it to the one that retires it |
//! | [`pending`] | an index of shared items that any thread adds to |
//! | [`try_lock`] | data behind a lock that nobody ever waits for |
//! | [`table`] | a table of references that outlives each batch's references |
//! | [`chunks`] | taking a mutable slice apart |
//! | [`stopwatch`] | timing single operations |
//! | [`exchange`] | turning a vector's items into others, on several threads |
#![allow(unsafe_code)]

pub mod arena;
pub mod chunks;
pub mod exchange;
pub mod gate;
pub mod growing;
pub mod pending;
pub mod prefetch;
pub mod slots;
pub mod stopwatch;
pub mod table;
pub mod try_lock;
