//! What spans have in common.

/// Target of the spans that go to an OTLP endpoint. They have a level that is logged only by
/// who asks for it, so that without an endpoint each costs one look at a flag.
pub const TRACE_TARGET: &str = "pulse_trace";
