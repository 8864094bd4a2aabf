//! Placeholder of the speculative engine, until its author's replaces this file: runs batches sequentially.

use std::marker::PhantomData;

use super::config::{ConfigReport, ExecutorConfig};
use super::engine::Engine;
use super::sequential::Sequential;
use crate::app::{Reply, Request, ScalableApp};
use crate::batch::{UnorderedBatch, UpdateBatch};
use crate::error::{Failure, InitError};
use crate::metrics::Metrics;
use crate::reply::BatchReplies;
use crate::state::CRUDState;
use crate::sync::Arc;

/// Delegates to [`Sequential`].
pub(crate) struct Speculative<A, S> {
    inner: Sequential,
    _types: PhantomData<fn(A, S)>,
}

impl<A, S> Engine<A, S> for Speculative<A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync + 'static,
{
    fn new(config: &ExecutorConfig, report: &ConfigReport, metrics: Arc<Metrics>) -> Result<Self, InitError> {
        let inner = <Sequential as Engine<A, S>>::new(config, report, metrics)?;
        Ok(Speculative { inner, _types: PhantomData })
    }

    fn execute(
        &mut self,
        app: &A,
        state: &mut S,
        batch: UpdateBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        self.inner.execute(app, state, batch)
    }

    fn execute_unordered(
        &mut self,
        app: &A,
        state: &S,
        batch: UnorderedBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        self.inner.execute_unordered(app, state, batch)
    }
}
