//! Tests across modules, against slow and simple models.

mod diagrams;
mod linearizations;
mod market;
mod model;
mod partitions;
