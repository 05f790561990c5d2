mod fees;
mod packages;
mod replacing;
mod standard;
mod steps;
mod truc;
