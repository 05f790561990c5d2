//! Runs one target for a while.
//!
//! # Correctness
//! Each input has limits besides not panicking: [`MAX_TIME`], and memory that grows
//! with what has arrived rather than with what is claimed ([`max_memory`]).

use std::{
    any::Any,
    collections::HashSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use peak_alloc::PeakAlloc;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Target, mutate};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Longest time for one input.
pub const MAX_TIME: Duration = Duration::from_secs(5);
/// After this the input is taken to hang, and the process ends.
const HANG: Duration = Duration::from_secs(30);
/// Most inputs that are kept for leading somewhere new.
const MAX_KEPT: usize = 4096;

/// Most memory that one input may make us take, in bytes. Structures in memory are
/// larger than on the wire, and buffers have a size to begin with.
#[must_use]
pub fn max_memory(input_len: usize) -> usize {
    (24 << 20) + 64 * input_len
}

/// How to run a target.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the mutations follow from.
    pub seed: u64,
    /// For how long.
    pub time: Duration,
    /// A folder with a folder of inputs for each target. Need not exist.
    pub corpus: PathBuf,
    /// Where an input is saved that should not do what it does.
    pub crashes: PathBuf,
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Inputs that were tested.
    pub executions: u64,
    /// Outcomes that differ.
    pub outcomes: usize,
}

/// An input that does what it should not, or a run that could not be.
#[derive(Debug)]
pub enum Failure {
    /// The input, where it is saved, and what it does.
    Input {
        /// Where.
        path: PathBuf,
        /// What it does.
        what: String,
    },
    /// A file could not be read or written.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

/// Tests the seeds and the corpus as they are, then mutations of them until the time
/// is over.
///
/// # Errors
/// [`Failure`], with the first input that fails.
pub fn fuzz(target: &Target, options: &Options) -> Result<Report, Failure> {
    let end = Instant::now() + options.time;
    let watchdog = Watchdog::start(target, &options.crashes);
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed ^ hash(target.name));
    let mut seen = HashSet::new();
    let mut executions = 0;
    let mut test = |input: &[u8]| {
        executions += 1;
        watchdog.begin(input);
        let tested = execute(target, input);
        watchdog.end();
        match tested {
            Ok(outcome) => Ok(seen.insert(outcome)),
            Err(what) => {
                let path = save(target, &options.crashes, input)?;
                Err(Failure::Input { path, what })
            }
        }
    };
    let mut kept = (target.seeds)();
    kept.extend(corpus(&options.corpus.join(target.name))?);
    for input in &kept {
        test(input)?;
    }
    while Instant::now() < end {
        let input = &kept[rng.gen_range(0..kept.len())];
        let other = &kept[rng.gen_range(0..kept.len())];
        let input = mutate::mutate(&mut rng, input, other);
        if test(&input)? && kept.len() < MAX_KEPT {
            kept.push(input);
        }
    }
    Ok(Report {
        executions,
        outcomes: seen.len(),
    })
}

/// Held while an input is tested.
static ALONE: Mutex<()> = Mutex::new(());

/// Tests one input. Only one at a time: another thread waits.
///
/// # Errors
/// What it does that it should not.
pub fn execute(target: &Target, input: &[u8]) -> Result<u64, String> {
    // Memory is counted for the whole process.
    let _alone = lock(&ALONE);
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let start = Instant::now();
    let ran = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let outcome = ran.map_err(|panic| format!("panics: {}", message(&*panic)))?;
    if start.elapsed() > MAX_TIME {
        return Err(format!("takes {:?}", start.elapsed()));
    }
    if taken > max_memory(input.len()) {
        return Err(format!("takes {taken} bytes of memory"));
    }
    Ok(outcome)
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message")
}

/// The files of a folder, in the order of their names; none if there is no folder.
fn corpus(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(err),
    };
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().map(fs::read).collect()
}

fn save(target: &Target, folder: &Path, input: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}-{:016x}", target.name, hash(input)));
    fs::write(&path, input)?;
    Ok(path)
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Ends the process when an input hangs, since nothing else can.
struct Watchdog(Arc<Mutex<Option<Current>>>);

/// Since when which input runs.
type Current = (Instant, Vec<u8>);

impl Watchdog {
    fn start(target: &Target, crashes: &Path) -> Self {
        let current: Arc<Mutex<Option<Current>>> = Arc::default();
        let (watched, target, crashes) = (Arc::downgrade(&current), *target, crashes.to_owned());
        thread::spawn(move || {
            while let Some(current) = watched.upgrade() {
                let hung: Option<Vec<u8>> = lock(&current)
                    .as_ref()
                    .filter(|(since, _)| since.elapsed() > HANG)
                    .map(|(_, input)| input.clone());
                if let Some(input) = hung {
                    let saved = save(&target, &crashes, &input);
                    eprintln!("{} hangs with {saved:?}", target.name);
                    process::exit(1);
                }
                drop(current);
                thread::sleep(Duration::from_millis(500));
            }
        });
        Self(current)
    }

    fn begin(&self, input: &[u8]) {
        *lock(&self.0) = Some((Instant::now(), input.to_vec()));
    }

    fn end(&self) {
        *lock(&self.0) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(folder: &Path) -> Options {
        Options {
            seed: 1,
            time: Duration::from_secs(20),
            corpus: folder.join("corpus"),
            crashes: folder.join("crashes"),
        }
    }

    fn target(run: fn(&[u8]) -> u64) -> Target {
        Target {
            name: "test",
            run,
            seeds: || vec![b"seed".to_vec()],
        }
    }

    fn found(run: fn(&[u8]) -> u64) -> (Vec<u8>, String) {
        let folder = tempfile::tempdir().unwrap();
        match fuzz(&target(run), &options(folder.path())) {
            Err(Failure::Input { path, what }) => (fs::read(path).unwrap(), what),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_input_that_panics_is_found_by_its_outcomes_and_saved() {
        // One step after another: each is kept since its outcome is new.
        let (input, what) = found(|data| {
            let known = data.iter().zip(b"seXd!").take_while(|(a, b)| a == b);
            let known = known.count() as u64;
            assert!(known < 5, "five bytes");
            known
        });
        assert!(input.starts_with(b"seXd!"));
        assert_eq!(what, "panics: five bytes");
        let again = target(|_| panic!("again"));
        assert_eq!(execute(&again, &input), Err("panics: again".to_owned()));
    }

    #[test]
    fn an_input_that_takes_more_memory_than_it_should_is_found() {
        let (_, what) =
            found(|data| Vec::<u8>::with_capacity(data.len().min(4) << 25).capacity() as u64);
        assert!(what.contains("of memory"), "{what}");
    }

    #[test]
    fn the_corpus_is_tested_first() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path());
        fs::create_dir_all(options.corpus.join("test")).unwrap();
        fs::write(options.corpus.join("test/issue"), b"from the corpus").unwrap();
        let target = target(|data| {
            assert_ne!(data, b"from the corpus");
            0
        });
        assert!(matches!(
            fuzz(&target, &options),
            Err(Failure::Input { .. })
        ));
    }

    #[test]
    fn every_target_takes_its_seeds_and_its_corpus() {
        let corpus_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for target in crate::TARGETS {
            let mut inputs = (target.seeds)();
            inputs.extend(corpus(&corpus_folder.join(target.name)).unwrap());
            for input in inputs {
                execute(target, &input).unwrap();
            }
        }
    }
}
