//! What a peer that connects is served: compact blocks, parts of blocks, filters.
