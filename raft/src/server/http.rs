//! `/metrics` for Prometheus, `/health` for whoever restarts nodes; plain HTTP.

use std::fmt::{Display, Write};
use std::sync::Arc;

use atlas_smr_execution::metrics::{
    EXECUTION_LATENCY_ID, EXECUTION_TIME_TAKEN_ID, Metrics, REPLIES_PASSING_TIME_ID, REPLY_SENT_TIME_ID,
    UNORDERED_EXECUTION_TIME_TAKEN_ID,
};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use openraft::ServerState;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::connection::accepting;
use super::{Stage, Transfers};
use crate::batcher::Batcher;
use crate::node::Causes;
use crate::types::Raft;

/// At most so many ask for a page at once.
const CONNECTIONS: usize = 64;

/// What the pages show.
#[derive(Clone)]
pub(crate) struct HttpState {
    pub(crate) id: u64,
    pub(crate) raft: Raft,
    pub(crate) causes: Causes,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) batcher: Batcher,
    pub(crate) transfers: Arc<Transfers>,
}

/// Serves both pages until `stage` says otherwise.
pub(crate) async fn serve(listener: TcpListener, state: HttpState, mut stage: watch::Receiver<Stage>) {
    let pages = Router::new().route("/metrics", get(metrics)).route("/health", get(health)).with_state(state);
    let listener = accepting(listener, CONNECTIONS, stage.clone());
    let stopped = async move {
        let _ = stage.wait_for(|stage| *stage >= Stage::Drain).await;
    };
    if let Err(error) = axum::serve(listener, pages).with_graceful_shutdown(stopped).await {
        tracing::error!("http: {error}");
    }
}

/// 200 while consensus and the executor run and a leader is known, 503 else; says why.
async fn health(State(state): State<HttpState>) -> Response {
    if let Some(cause) = state.causes.find() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("stopped: {cause}\n")).into_response();
    }
    let metrics = state.raft.metrics().borrow().clone();
    match (&metrics.running_state, metrics.current_leader) {
        (Ok(()), Some(leader)) => (StatusCode::OK, format!("ok, node {leader} leads\n")).into_response(),
        (Ok(()), None) => {
            (StatusCode::SERVICE_UNAVAILABLE, "no leader is known\n".to_owned()).into_response()
        }
        (Err(fatal), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("stopped: {fatal}\n")).into_response(),
    }
}

async fn metrics(State(state): State<HttpState>) -> Response {
    let mut page = Page::default();
    consensus(&mut page, &state);
    engine(&mut page, &state.metrics);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.text).into_response()
}

/// A page in Prometheus' text format.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: impl Display, value: impl Display) {
        let _ = writeln!(self.text, "{name} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.line(name, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.line(name, value);
    }
}

fn consensus(page: &mut Page, state: &HttpState) {
    let metrics = state.raft.metrics().borrow().clone();
    page.gauge("atlas_raft_id", "This node.", state.id);
    page.gauge("atlas_raft_term", "The term.", metrics.current_term);
    let leads = u8::from(metrics.state == ServerState::Leader);
    page.gauge("atlas_raft_is_leader", "1 on the leader.", leads);
    if let Some(leader) = metrics.current_leader {
        page.gauge("atlas_raft_leader", "The leader, if one is known.", leader);
    }
    page.gauge("atlas_raft_last_log", "The last entry in the log.", metrics.last_log_index.unwrap_or(0));
    let index = |id: Option<crate::types::LogId>| id.map_or(0, |id| id.index);
    page.gauge("atlas_raft_applied", "The last entry applied.", index(metrics.last_applied));
    page.gauge("atlas_raft_snapshot", "The last entry in a snapshot.", index(metrics.snapshot));
    page.gauge("atlas_raft_purged", "The last entry removed from the log.", index(metrics.purged));
    let running = u8::from(metrics.running_state.is_ok());
    page.gauge("atlas_raft_running", "0 once consensus has failed.", running);
    page.gauge("atlas_queue_operations", "Operations that wait for an entry.", state.batcher.waiting());
    let transfers = state.transfers.counts();
    page.counter("atlas_snapshots_received_total", "Snapshots from other nodes.", transfers.snapshots);
    page.counter("atlas_parts_received_total", "Parts that came with them.", transfers.parts_received);
    page.counter("atlas_parts_offered_total", "Parts that they have.", transfers.parts_offered);
    if let Some(replication) = metrics.replication {
        let name = "atlas_raft_matched";
        page.head(name, "gauge", "On the leader: the last entry that each node is known to have.");
        for (node, matched) in replication {
            page.line(format!("{name}{{node=\"{node}\"}}"), index(matched));
        }
    }
}

fn engine(page: &mut Page, metrics: &Metrics) {
    let c = metrics.counters();
    let counters = [
        ("atlas_operations_executed_total", "Ordered operations executed (804).", c.operations),
        ("atlas_unordered_operations_executed_total", "Reads executed (805).", c.unordered_operations),
        (
            "atlas_prefetched_total",
            "Operations whose keys were brought near before they were run.",
            c.prefetched,
        ),
        ("atlas_unordered_beside_total", "Reads answered beside a batch.", c.unordered_beside),
        ("atlas_unordered_in_parallel_total", "Reads answered on all threads.", c.unordered_in_parallel),
        ("atlas_batches_total", "Batches executed.", c.batches),
        ("atlas_sequential_batches_total", "Batches that ran sequentially.", c.sequential_batches),
        ("atlas_forwarding_batches_total", "Batches that forwarded values.", c.forwarding_batches),
        ("atlas_hinted_batches_total", "Batches started by hints.", c.hinted_batches),
        ("atlas_checked_batches_total", "Batches run twice and compared.", c.checked_batches),
        ("atlas_skipped_batches_total", "Batches executed before.", c.skipped_batches),
        ("atlas_collisions_total", "Units that had observed a replaced version.", c.collisions),
        ("atlas_speculations_total", "Units run ahead of their turn.", c.speculations),
        ("atlas_accepted_total", "Units accepted at their turn.", c.accepted),
        ("atlas_replays_total", "Units run again at their turn.", c.replays),
        ("atlas_reruns_total", "Units run again before their turn.", c.reruns),
        ("atlas_reply_errors_total", "Replies that could not be sent.", c.reply_errors),
        ("atlas_checkpoints_total", "Checkpoints delivered.", c.checkpoints),
        ("atlas_dropped_checkpoints_total", "Checkpoints that nobody took.", c.dropped_checkpoints),
        ("atlas_installs_total", "States installed.", c.installs),
        ("atlas_refused_installs_total", "States refused.", c.refused_installs),
    ];
    for (name, help, value) in counters {
        page.counter(name, help, value);
    }
    let timers = [
        (EXECUTION_LATENCY_ID, "From a batch's decision to the end of its execution (800)."),
        (EXECUTION_TIME_TAKEN_ID, "Execution of a batch (801)."),
        (REPLY_SENT_TIME_ID, "Sending the replies of a batch (802)."),
        (REPLIES_PASSING_TIME_ID, "From the end of execution to the first reply (803)."),
        (UNORDERED_EXECUTION_TIME_TAKEN_ID, "Execution of a batch of reads (806)."),
    ];
    for (id, help) in timers {
        let (Some(name), Some(histogram)) = (Metrics::name(id), metrics.histogram(id)) else { continue };
        let name = format!("atlas_{}_microseconds", name.to_lowercase());
        page.head(&name, "summary", help);
        for quantile in [0.5, 0.9, 0.99, 0.999] {
            page.line(format!("{name}{{quantile=\"{quantile}\"}}"), histogram.value_at_quantile(quantile));
        }
        page.line(format!("{name}_sum"), (histogram.mean() * histogram.len() as f64).round());
        page.line(format!("{name}_count"), histogram.len());
    }
}
