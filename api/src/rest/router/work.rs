//! The work behind a request, by where it may run.

use std::sync::Arc;

use crate::{
    rest::{error::RestError, list::Outlet, reply::Reply, snapshot::Snapshot},
    state::ApiState,
};

type Answer = Result<Reply, RestError>;
/// Makes a list and feeds it to the client.
type Listing = dyn FnOnce(&ApiState, Outlet) -> Answer + Send;

/// What answers a request, with its parameters.
pub(in crate::rest) enum Work {
    /// Reads a few rows and pieces of the block files, however much the script or the block
    /// holds: runs on the thread of the connection if it need not wait.
    Short(Arc<dyn Fn(&ApiState) -> Answer + Send + Sync>),
    /// Anything else that is sent as a whole.
    Whole(Box<dyn FnOnce(&ApiState) -> Answer + Send>),
    /// Makes a list that may be long, and is sent meanwhile.
    List(Box<Listing>),
    /// Checks scripts: has slots of its own.
    Submission(Box<dyn FnOnce(&ApiState) -> Answer + Send>),
}

impl Work {
    pub(super) fn short(
        answer: impl Fn(&ApiState) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, RestError> {
        Ok(Self::Short(Arc::new(answer)))
    }

    /// [`Work::short`] from one view of the index.
    pub(super) fn short_at(
        answer: impl Fn(&Snapshot<'_>) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, RestError> {
        Self::short(move |state| answer(&Snapshot::take(state)?))
    }

    pub(super) fn whole(
        answer: impl FnOnce(&ApiState) -> Answer + Send + 'static,
    ) -> Result<Self, RestError> {
        Ok(Self::Whole(Box::new(answer)))
    }

    /// [`Work::whole`] from one view of the index.
    pub(super) fn whole_at(
        answer: impl FnOnce(&Snapshot<'_>) -> Answer + Send + 'static,
    ) -> Result<Self, RestError> {
        Self::whole(move |state| answer(&Snapshot::take(state)?))
    }

    pub(super) fn list(
        answer: impl FnOnce(&ApiState, Outlet) -> Answer + Send + 'static,
    ) -> Result<Self, RestError> {
        Ok(Self::List(Box::new(answer)))
    }

    pub(super) fn submission(
        answer: impl FnOnce(&ApiState) -> Answer + Send + 'static,
    ) -> Result<Self, RestError> {
        Ok(Self::Submission(Box::new(answer)))
    }
}
