//! The messages and services of `proto/`, as generated.
#![allow(missing_docs, clippy::all)]

/// Clients and nodes.
pub mod client {
    tonic::include_proto!("atlas.client.v1");
}

/// Nodes among themselves.
pub mod peer {
    tonic::include_proto!("atlas.peer.v1");
}
