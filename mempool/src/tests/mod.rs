//! Tests across modules, against slow and simple models.

mod diagrams;
mod flow;
mod linearizations;
mod market;
mod model;
mod partitions;
