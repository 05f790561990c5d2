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
    let fills: [(&str, fn() -> Scene); 2] = [
        ("100,000 transactions", || Scene::with(1_000, 100_000)),
        ("300 MiB", || Scene::full(300)),
    ];
    for (name, fill) in fills {
        let (allocated, resided) = (ALLOCATOR.current_usage(), resident());
        let scene = fill();
        let allocated = ALLOCATOR.current_usage() - allocated;
        let resided = resident().saturating_sub(resided);
        let pool = &scene.pool;
        let per_tx = |bytes: usize| bytes / pool.len();
        let said = usize::try_from(pool.usage_bytes()).unwrap();
        println!(
            "{name}: {} transactions of {} vB on average; bytes per transaction: \
             {} accounted, {} allocated, {} resident",
            pool.len(),
            per_tx(usize::try_from(pool.total_vsize()).unwrap()),
            per_tx(said),
            per_tx(allocated),
            per_tx(resided),
        );
    }
}
