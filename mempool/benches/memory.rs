//! Memory of a transaction in the mempool: what the mempool says, what was allocated, and
//! what the process took.
#![allow(clippy::print_stdout, reason = "a bench reports")]
#![allow(clippy::unwrap_used, reason = "a bench may")]

mod traffic;

use peak_alloc::PeakAlloc;
use traffic::Scene;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Resident memory, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 1024
}

fn main() {
    let (allocated, resided) = (ALLOCATOR.current_usage(), resident());
    let report = |scene: &Scene| {
        let pool = &scene.pool;
        let per_tx = |bytes: usize| bytes / pool.len();
        println!(
            "{} transactions of {} vB on average; bytes per transaction: {} accounted, \
             {} allocated, {} resident",
            pool.len(),
            per_tx(usize::try_from(pool.total_vsize()).unwrap()),
            per_tx(usize::try_from(pool.usage_bytes()).unwrap()),
            per_tx(ALLOCATOR.current_usage() - allocated),
            per_tx(resident() - resided),
        );
    };
    let mut scene = Scene::with(300, 100_000);
    report(&scene);
    scene.fill_up();
    report(&scene);
}
