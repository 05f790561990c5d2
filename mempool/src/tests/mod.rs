//! Tests across modules, against slow and simple models.

mod diagrams;
mod linearizations;
mod model;
mod partitions;
