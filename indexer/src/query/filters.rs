//! Compact block filters for peers: [`FilterSource`] over the index.
//!
//! # Correctness
//! A filter is answered only while filters are kept, and only for blocks up to which every
//! block has one: its header chains to genesis. Each call reads one snapshot.

use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash,
        bip158::{FilterHash, FilterHeader},
        hashes::Hash,
    },
    filters::{FilterError, FilterSource, StoredFilter},
};

use super::{Query, QueryError, View, read::missing};
use crate::{rows::filter::FilterEntry, store::Family};

impl View<'_> {
    /// The height of `stop` if it is in this view and has a filter, and is not below `start`.
    fn filtered(&self, start: Height, stop: &BlockHash) -> Result<Option<Height>, QueryError> {
        if !self.query.shared.config.block_filters {
            return Ok(None);
        }
        let Some(height) = self.query.source.header_height(stop) else {
            return Ok(None);
        };
        if height < start || height >= self.reader.filters_next()? {
            return Ok(None);
        }
        let entry = self.filter_entry(height)?;
        Ok((entry.block == *stop).then_some(height))
    }

    fn filter_entry(&self, height: Height) -> Result<FilterEntry, QueryError> {
        let entry = self.reader.filter_entry(height)?;
        entry.ok_or_else(|| missing(Family::Filter))
    }
}

impl Query {
    fn filters_of(
        &self,
        start: Height,
        stop: &BlockHash,
    ) -> Result<Option<Vec<StoredFilter>>, QueryError> {
        let view = self.view()?;
        let Some(height) = view.filtered(start, stop)? else {
            return Ok(None);
        };
        let filters = (start..=height).map(|height| {
            let bytes = view.reader.filter(height)?;
            Ok(StoredFilter {
                block_hash: view.filter_entry(height)?.block,
                bytes: bytes.ok_or_else(|| missing(Family::Filter))?,
            })
        });
        filters.collect::<Result<_, _>>().map(Some)
    }

    #[allow(clippy::type_complexity, reason = "the port's answer")]
    fn filter_hashes_of(
        &self,
        start: Height,
        stop: &BlockHash,
    ) -> Result<Option<(FilterHeader, Vec<FilterHash>)>, QueryError> {
        let view = self.view()?;
        let Some(height) = view.filtered(start, stop)? else {
            return Ok(None);
        };
        let previous = match start.checked_sub(1) {
            Some(below) => view.filter_entry(below)?.header,
            None => FilterHeader::all_zeros(),
        };
        let hashes = (start..=height).map(|height| Ok(view.filter_entry(height)?.hash));
        let hashes = hashes.collect::<Result<Vec<_>, QueryError>>()?;
        Ok(Some((previous, hashes)))
    }

    fn filter_headers_of(
        &self,
        interval: Height,
        stop: &BlockHash,
    ) -> Result<Option<Vec<FilterHeader>>, QueryError> {
        let view = self.view()?;
        let Some(height) = view.filtered(0, stop)? else {
            return Ok(None);
        };
        let step = interval.max(1);
        let heights = (1..=height / step).map(|index| index * step);
        let headers = heights.map(|height| Ok(view.filter_entry(height)?.header));
        headers.collect::<Result<_, _>>().map(Some)
    }
}

fn filter_error(err: QueryError) -> FilterError {
    FilterError(Box::new(err))
}

impl FilterSource for Query {
    fn filters(
        &self,
        start: Height,
        stop: &BlockHash,
    ) -> Result<Option<Vec<StoredFilter>>, FilterError> {
        self.filters_of(start, stop).map_err(filter_error)
    }

    fn filter_hashes(
        &self,
        start: Height,
        stop: &BlockHash,
    ) -> Result<Option<(FilterHeader, Vec<FilterHash>)>, FilterError> {
        self.filter_hashes_of(start, stop).map_err(filter_error)
    }

    fn filter_headers_every(
        &self,
        interval: Height,
        stop: &BlockHash,
    ) -> Result<Option<Vec<FilterHeader>>, FilterError> {
        self.filter_headers_of(interval, stop).map_err(filter_error)
    }
}
