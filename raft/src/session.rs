//! Exactly once: the session table.
