//! Answers to questions for compact block filters (BIP 157).
//!
//! # Security
//! The length of a range is limited before anything is read, and filters are read some
//! at a time, as the peer takes them. A question that no client asks who keeps to the
//! protocol ends the connection without a penalty, as in Bitcoin Core.

use std::sync::Arc;

use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash,
        p2p::{
            message::NetworkMessage,
            message_filter::{
                CFCheckpt, CFHeaders, CFilter, GetCFCheckpt, GetCFHeaders, GetCFilters,
            },
        },
    },
    filters::{FilterError, FilterSource},
};

/// The basic filter (BIP 158), the only one there is.
const BASIC: u8 = 0;
/// Most filters of one question.
const MAX_FILTERS: Height = 1000;
/// Most filter hashes of one question.
const MAX_FILTER_HEADERS: Height = 2000;
/// Blocks between two filter headers of a `cfcheckpt`.
const CHECKPOINT_INTERVAL: Height = 1000;
/// Filters read at a time; some 20 kB each.
const READ_AT_ONCE: Height = 50;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// The question does not make sense: the connection is closed.
    #[error("a question for filters that no client asks")]
    BadQuestion,
    /// The index has not got that far, or the chain has changed meanwhile.
    #[error("the filters are not there")]
    NotThere,
    /// The filters cannot be read.
    #[error(transparent)]
    Source(#[from] FilterError),
}

/// Heights of the blocks that filters are asked for.
pub(super) struct FilterRange {
    next: Height,
    last: Height,
}

/// Filters by question. Synchronous; touches the disk.
pub(super) struct FilterAnswers {
    source: Arc<dyn FilterSource>,
}

impl FilterAnswers {
    pub fn new(source: Arc<dyn FilterSource>) -> Self {
        Self { source }
    }

    /// The range that a `getcfilters` asks for. `stop_height` is that of its stop block,
    /// if that may be told of.
    pub fn range(
        wanted: &GetCFilters,
        stop_height: Option<Height>,
    ) -> Result<FilterRange, NoAnswer> {
        let stop = (wanted.filter_type, stop_height);
        Ok(FilterRange {
            next: wanted.start_height,
            last: check(stop, wanted.start_height, MAX_FILTERS)?,
        })
    }

    /// The next filters of a range, oldest first; empty at its end. `hash_at` gives the
    /// active chain's hashes.
    pub fn next_filters(
        &self,
        range: &mut FilterRange,
        hash_at: impl Fn(Height) -> Option<BlockHash>,
    ) -> Result<Vec<NetworkMessage>, NoAnswer> {
        if range.next > range.last {
            return Ok(Vec::new());
        }
        let until = range.last.min(range.next.saturating_add(READ_AT_ONCE - 1));
        let stop = hash_at(until).ok_or(NoAnswer::NotThere)?;
        let filters = self.source.filters(range.next, &stop)?;
        let filters = filters.ok_or(NoAnswer::NotThere)?;
        range.next = until + 1;
        Ok(filters
            .into_iter()
            .map(|filter| {
                NetworkMessage::CFilter(CFilter {
                    filter_type: BASIC,
                    block_hash: filter.block_hash,
                    filter: filter.bytes,
                })
            })
            .collect())
    }

    /// The answer to a `getcfheaders`.
    pub fn headers(
        &self,
        wanted: &GetCFHeaders,
        stop_height: Option<Height>,
    ) -> Result<NetworkMessage, NoAnswer> {
        let stop = (wanted.filter_type, stop_height);
        check(stop, wanted.start_height, MAX_FILTER_HEADERS)?;
        let (previous_filter_header, filter_hashes) = self
            .source
            .filter_hashes(wanted.start_height, &wanted.stop_hash)?
            .ok_or(NoAnswer::NotThere)?;
        Ok(NetworkMessage::CFHeaders(CFHeaders {
            filter_type: BASIC,
            stop_hash: wanted.stop_hash,
            previous_filter_header,
            filter_hashes,
        }))
    }

    /// The answer to a `getcfcheckpt`.
    pub fn checkpoints(
        &self,
        wanted: &GetCFCheckpt,
        stop_height: Option<Height>,
    ) -> Result<NetworkMessage, NoAnswer> {
        check((wanted.filter_type, stop_height), 0, Height::MAX)?;
        let filter_headers = self
            .source
            .filter_headers_every(CHECKPOINT_INTERVAL, &wanted.stop_hash)?
            .ok_or(NoAnswer::NotThere)?;
        Ok(NetworkMessage::CFCheckpt(CFCheckpt {
            filter_type: BASIC,
            stop_hash: wanted.stop_hash,
            filter_headers,
        }))
    }
}

/// Height of the stop block, if the question is in order.
fn check(
    (filter_type, stop_height): (u8, Option<Height>),
    start: Height,
    limit: Height,
) -> Result<Height, NoAnswer> {
    let stop = stop_height.ok_or(NoAnswer::BadQuestion)?;
    let span = stop.checked_sub(start).ok_or(NoAnswer::BadQuestion)?;
    if filter_type == BASIC && span < limit {
        Ok(stop)
    } else {
        Err(NoAnswer::BadQuestion)
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use pulse_primitives::{
        bitcoin::{
            bip158::{FilterHash, FilterHeader},
            hashes::Hash,
        },
        filters::StoredFilter,
    };

    use super::*;

    /// 5000 blocks, the filter of each its height; notes what is read.
    #[derive(Default)]
    struct Source(Mutex<Vec<(Height, Height)>>);

    fn hash(height: Height) -> BlockHash {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&height.to_le_bytes());
        BlockHash::from_byte_array(bytes)
    }

    fn height(hash: &BlockHash) -> Option<Height> {
        let bytes = hash.as_byte_array();
        let height = Height::from_le_bytes(bytes[..4].try_into().unwrap());
        (bytes[4..] == [7; 28] && height < 5000).then_some(height)
    }

    fn header(height: Height) -> FilterHeader {
        FilterHeader::from_byte_array(*hash(height).as_byte_array())
    }

    impl FilterSource for Source {
        fn filters(
            &self,
            start: Height,
            stop: &BlockHash,
        ) -> Result<Option<Vec<StoredFilter>>, FilterError> {
            let Some(stop) = height(stop) else {
                return Ok(None);
            };
            self.0.lock().push((start, stop));
            let filter = |height: Height| StoredFilter {
                block_hash: hash(height),
                bytes: height.to_le_bytes().to_vec(),
            };
            Ok(Some((start..=stop).map(filter).collect()))
        }

        fn filter_hashes(
            &self,
            start: Height,
            stop: &BlockHash,
        ) -> Result<Option<(FilterHeader, Vec<FilterHash>)>, FilterError> {
            let Some(stop) = height(stop) else {
                return Ok(None);
            };
            let hashes =
                (start..=stop).map(|at| FilterHash::from_byte_array(*hash(at).as_byte_array()));
            Ok(Some((header(start - 1), hashes.collect())))
        }

        fn filter_headers_every(
            &self,
            interval: Height,
            stop: &BlockHash,
        ) -> Result<Option<Vec<FilterHeader>>, FilterError> {
            let Some(stop) = height(stop) else {
                return Ok(None);
            };
            let every = (1..=stop / interval).map(|n| header(n * interval));
            Ok(Some(every.collect()))
        }
    }

    fn get_filters(start_height: Height, stop: Height) -> GetCFilters {
        GetCFilters {
            filter_type: 0,
            start_height,
            stop_hash: hash(stop),
        }
    }

    #[test]
    fn filters_come_in_order_and_are_read_some_at_a_time() {
        let source = Arc::new(Source::default());
        let answers = FilterAnswers::new(Arc::clone(&source) as Arc<dyn FilterSource>);
        let mut range = FilterAnswers::range(&get_filters(10, 129), Some(129)).unwrap();
        let mut heights = Vec::new();
        loop {
            let some = answers
                .next_filters(&mut range, |at| Some(hash(at)))
                .unwrap();
            if some.is_empty() {
                break;
            }
            heights.extend(some.into_iter().map(|message| match message {
                NetworkMessage::CFilter(filter) => height(&filter.block_hash).unwrap(),
                other => panic!("{other:?}"),
            }));
        }
        assert_eq!(heights, (10..=129).collect::<Vec<_>>());
        assert_eq!(*source.0.lock(), [(10, 59), (60, 109), (110, 129)]);
    }

    #[test]
    fn questions_that_no_client_asks_are_told_from_those_without_an_answer() {
        let answers = FilterAnswers::new(Arc::new(Source::default()));
        let bad = |wanted: GetCFilters, stop| {
            matches!(
                FilterAnswers::range(&wanted, stop),
                Err(NoAnswer::BadQuestion)
            )
        };
        assert!(bad(get_filters(0, 1000), Some(1000)));
        assert!(!bad(get_filters(1, 1000), Some(1000)));
        assert!(bad(get_filters(11, 10), Some(10)));
        assert!(bad(get_filters(1, 10), None));
        let other_type = GetCFilters {
            filter_type: 1,
            ..get_filters(1, 10)
        };
        assert!(bad(other_type, Some(10)));

        let mut range = FilterAnswers::range(&get_filters(6000, 6001), Some(6001)).unwrap();
        assert!(matches!(
            answers.next_filters(&mut range, |at| Some(hash(at))),
            Err(NoAnswer::NotThere)
        ));
        let wanted = |start_height, stop| GetCFHeaders {
            filter_type: 0,
            start_height,
            stop_hash: hash(stop),
        };
        assert!(answers.headers(&wanted(1, 2000), Some(2000)).is_ok());
        assert!(matches!(
            answers.headers(&wanted(1, 2001), Some(2001)),
            Err(NoAnswer::BadQuestion)
        ));
    }

    #[test]
    fn headers_and_checkpoints_are_those_of_the_source() {
        let answers = FilterAnswers::new(Arc::new(Source::default()));
        let wanted = GetCFHeaders {
            filter_type: 0,
            start_height: 5,
            stop_hash: hash(7),
        };
        let NetworkMessage::CFHeaders(headers) = answers.headers(&wanted, Some(7)).unwrap() else {
            panic!("another message");
        };
        assert_eq!(headers.previous_filter_header, header(4));
        assert_eq!(headers.filter_hashes.len(), 3);
        assert_eq!(headers.stop_hash, hash(7));
        let wanted = GetCFCheckpt {
            filter_type: 0,
            stop_hash: hash(3999),
        };
        let NetworkMessage::CFCheckpt(checkpoints) =
            answers.checkpoints(&wanted, Some(3999)).unwrap()
        else {
            panic!("another message");
        };
        assert_eq!(
            checkpoints.filter_headers,
            [header(1000), header(2000), header(3000)]
        );
    }
}
