//! The whole node on one screen: open, connect, spawn; and stop in the reverse order.
//!
//! The listeners answer before everything else, with what the node is doing.
//!
//! Stop order: servers and peers end together with the block in hand; then the kernel
//! is interrupted and flushed, then the index, the headers and the metadata.

mod bootstrap;
mod electrum;
mod fleet;
mod index;
mod mempool;
pub mod offline;
mod refused;
mod replay;
mod simulate;
mod snapshots;

use std::{
    io::Write,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use pulse_api::{
    ApiState, Certificates, CorsOrigin, Fallback, HttpsAcceptor, MempoolPorts, Opening,
    OperatorBooks, ServerLimits, push::PushState,
};
use pulse_indexer::Index;
use pulse_meta::{MetaStore, Opened};
use pulse_node::{
    chain::{Chain, ChainConfig},
    headers::HeaderStore,
    net::Net,
    sync::Sync,
};
use pulse_primitives::ports::{BlockSource, NodeStatus, PeerStore};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use replay::Replay;
use snapshots::Schedule;

use crate::{
    config::Config,
    control,
    data_dir::{DataDir, Listen},
    listen, snapshot, systemd, tasks,
    tasks::{Drain, Tasks},
    telemetry,
    trust::{Record, Trust},
};

/// The stores of a data directory, open.
struct Stores {
    meta: MetaStore,
    headers: Arc<HeaderStore>,
    chain: Chain,
    index: Option<Index>,
}

/// Runs the node until it is told to stop.
///
/// # Errors
/// Why it could not start, or what ended it.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let metrics = telemetry::init_metrics()?;
    let signalled = CancellationToken::new();
    let drain = tasks::stop_on_signals(signalled.clone(), config.drain)
        .context("installing signal handlers")?;
    let mut ended = Ok(());
    if refused::record(&config)?.is_none() {
        ended = serve(&config, metrics.clone(), drain, signalled.child_token()).await;
    }
    // Found to be false just now, or in an earlier run.
    match refused::record(&config)? {
        Some(record) if !signalled.is_cancelled() => {
            refused::run(&config, metrics, &record, signalled).await
        }
        _ => ended,
    }
}

/// Opens everything and serves until `stop`.
async fn serve(
    config: &Config,
    metrics: PrometheusHandle,
    drain: Drain,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let seed = config.simulate.map(|simulate| simulate.seed);
    let data_dir = DataDir::open(&config.data_dir, &config.chain, seed)?;
    let http = listen::bind("http.addr", config.http.addr).await?;
    let ops = match config.http.ops_addr {
        Some(addr) => Some(listen::bind("http.ops_addr", addr).await?),
        None => None,
    };
    let certificates = Certificates::given(
        "http",
        config.http.tls_cert.as_deref(),
        config.http.tls_key.as_deref(),
    )?;
    let https = certificates.as_ref().map(HttpsAcceptor::new).transpose()?;
    let electrum = electrum::bind(&config.electrum, data_dir.root()).await?;
    let p2p = match config.p2p.listen {
        Some(addr) => Some(listen::bind("p2p.listen", addr).await?),
        None => None,
    };
    let p2p_addr = p2p.as_ref().map(|p2p| p2p.local_addr()).transpose()?;
    let listening = Listen {
        http: http.local_addr()?.to_string(),
        ops: ops
            .as_ref()
            .map(|ops| ops.local_addr())
            .transpose()?
            .map(|addr| addr.to_string()),
        p2p: p2p_addr.map(|addr| addr.to_string()),
        electrum: (electrum.addrs()?.into_iter())
            .map(|(name, addr)| (name.to_owned(), addr.to_string()))
            .collect(),
        pid: std::process::id(),
    };
    info!(network = config.chain.name(), data_dir = %data_dir.root().display(), "starting");

    let mut tasks = Tasks::new(stop.clone());
    let opening = Opening::new(metrics.clone());
    let limits = ServerLimits::from(&config.http);
    let door = opening.door(config.http.cors.clone(), ops.is_none());
    tasks.spawn("http", {
        let (router, limits) = (door.router(), limits.clone());
        |stop| async move {
            pulse_api::serve(http, https, router, limits, stop).await;
            Ok(())
        }
    });
    if let Some(certificates) = certificates {
        tasks.spawn("http certificates", |stop| async move {
            certificates.watch(stop).await;
            Ok(())
        });
    }
    let ops_door = opening.door(CorsOrigin::none(), true);
    if let Some(ops) = ops {
        let router = ops_door.router();
        tasks.spawn("ops", |stop| async move {
            pulse_api::serve(ops, None, router, limits, stop).await;
            Ok(())
        });
    }
    data_dir.write_listen(&listening)?;
    info!(
        addr = listening.http,
        ops = listening.ops,
        p2p = listening.p2p,
        electrum = ?listening.electrum,
        "listening"
    );

    tasks.spawn("systemd", systemd::run);

    if bootstrap::is_wanted(config, &data_dir)? {
        tokio::select! {
            () = stop.cancelled() => return tasks.finish(config.stop_timeout).await,
            fetched = bootstrap::run(config, &data_dir, &opening) => fetched?,
        }
    }
    let stores = {
        let opening = opening.clone();
        let paths = (
            data_dir.root().to_owned(),
            data_dir.headers(),
            data_dir.kernel(),
        );
        let index_path = data_dir.index();
        let config = config.clone();
        blocking(move || {
            let (root, headers, kernel) = paths;
            opening.doing("the node is starting: opening the metadata and the headers");
            let meta = open_meta(&root)?;
            let headers = Arc::new(HeaderStore::open(&headers, &config.chain)?);
            opening.doing("the node is starting: opening the index");
            let index = match config.index.enabled {
                true => Some(Index::open(&index_path, &config.index, &config.chain)?),
                false => None,
            };
            opening.doing(
                "the node is starting: opening the chain, which takes minutes after a crash",
            );
            let chain = Chain::open(
                &ChainConfig {
                    dir: kernel,
                    params: config.chain.clone(),
                    script_threads: script_threads(),
                    is_second: false,
                },
                Arc::clone(&headers),
            )?;
            Ok(Stores {
                meta,
                headers,
                chain,
                index,
            })
        })
        .await?
    };
    let Stores {
        meta,
        headers,
        chain,
        index,
    } = stores;
    let indexed_from = indexed_height(index.as_ref());
    let meta = Arc::new(meta);
    let source: Arc<dyn BlockSource> = Arc::new(chain.clone());

    let (net, peers, events) = Net::new(
        &config.p2p,
        &config.chain,
        chain.clone(),
        Arc::clone(&headers),
        p2p,
    )?;
    let net = net.with_store(Arc::clone(&meta) as Arc<dyn PeerStore>);
    let own = fleet::NodeSource {
        chain: chain.clone(),
        headers: Arc::clone(&headers),
        index: index.clone(),
        params: config.chain.clone(),
        drain: drain.clone(),
    };
    // A node passes on only what it has computed itself.
    let trusted = Record::read(data_dir.root())?;
    let is_own = (trusted.as_ref()).is_none_or(|record| record.trust == Trust::Validated);
    let vouches = Arc::new(AtomicBool::new(is_own));
    let on_trust = trusted.filter(|_| !is_own);
    let report = watch::Sender::new(replay::report(on_trust.as_ref()));
    let (net, siblings) = match fleet::spawn(&mut tasks, config, &meta, own, Arc::clone(&vouches))?
    {
        Some(siblings) => (net.with_siblings(siblings.streams), Some(siblings.handle)),
        None => (net, None),
    };
    let net = match &index {
        Some(index) if config.index.block_filters => {
            net.with_filters(Arc::new(index.query(Arc::clone(&source))))
        }
        _ => net,
    };
    let (sync, handle) = Sync::new(
        config.p2p.clone(),
        config.chain.clone(),
        chain.clone(),
        Arc::clone(&headers),
        peers.clone(),
        events.sync,
    );
    let status: Arc<dyn NodeStatus> = Arc::new(handle.clone());

    // Without an index there are no coins to judge transactions by, and no relay.
    let mempool = index.as_ref().map(|index| {
        mempool::spawn(
            &mut tasks,
            config,
            data_dir.root(),
            index.query(Arc::clone(&source)),
            Arc::clone(&source),
            Arc::clone(&status),
            events.relay,
        )
    });
    let sync = match &mempool {
        Some(mempool) => sync.with_compact_source(Arc::new(mempool.clone())),
        None => sync,
    };
    tasks.spawn("net", |stop| async move { Ok(net.run(stop).await?) });
    tasks.spawn("upkeep", {
        let metrics = metrics.clone();
        |stop| telemetry::run_upkeep(metrics, stop)
    });
    tasks.spawn("metadata", {
        let (meta, status) = (Arc::clone(&meta), Arc::clone(&status));
        |stop| record_peers(meta, status, stop)
    });
    if let (Some(index), Some(mempool)) = (&index, &mempool) {
        let query = index.query(Arc::clone(&source));
        let state = ApiState::new(
            query,
            Arc::clone(&status),
            Some(MempoolPorts {
                source: Arc::new(mempool.clone()),
                submitter: Arc::new(mempool.clone()),
            }),
            config.chain.clone(),
            config.http.clone(),
            metrics,
        )
        .with_api_keys(Arc::clone(&meta) as _)
        .with_drain(drain.flag())
        .with_trust(report.subscribe());
        let state = match &config.http.fallback_esplora {
            Some(url) => {
                let (ca, genesis) = (&config.http.fallback_ca, config.chain.genesis_hash());
                let fallback = Fallback::new(url, ca.as_deref(), genesis);
                state.with_fallback(fallback.context("http.fallback_esplora")?)
            }
            None => state,
        };
        let state = match siblings {
            Some(siblings) => state.with_fleet(Arc::new(siblings)),
            None => state,
        };
        tasks.spawn("index", {
            let (index, source) = (index.clone(), Arc::clone(&source));
            |stop| index::run(index, source, stop)
        });
        tasks.spawn("sampler", {
            let state = state.clone();
            |stop| async move {
                pulse_api::run_sampler(state, stop).await;
                Ok(())
            }
        });
        electrum.spawn(&mut tasks, &config.electrum, state.clone())?;
        let books = OperatorBooks {
            labels: Arc::clone(&meta) as _,
            api_keys: Arc::clone(&meta) as _,
        };
        ops_door.open(pulse_api::ops_router(state.clone(), Arc::new(peers), books));
        let push = PushState::new(state.clone(), config.push.clone());
        tasks.spawn("push", {
            let push = push.clone();
            |stop| async move {
                pulse_api::push::run(push, stop).await;
                Ok(())
            }
        });
        door.open(pulse_api::main_router(state, Some(push)));
    } else {
        opening.doing("the node runs without an index and has no answers");
    }
    let commands = control::bind(data_dir.root()).context("control.sock")?;
    let source = snapshot::Source {
        root: data_dir.root().to_owned(),
        origin: data_dir.origin(),
        chain: chain.clone(),
        headers: Arc::clone(&headers),
        index: index.clone(),
    };
    if let Some(record) = on_trust {
        let replay = Replay {
            root: data_dir.root().to_owned(),
            chain: chain.clone(),
            headers: Arc::clone(&headers),
            index: index.clone(),
            params: config.chain.clone(),
            record,
            report,
            vouches: Arc::clone(&vouches),
        };
        tasks.spawn("replay", |stop| replay::run(replay, stop));
    }
    let every = u64::from(config.fleet.snapshot_every_hours) * 3600;
    if let (Some(dir), true) = (config.fleet.snapshots_path(), every > 0) {
        let (source, every) = (source.clone(), Duration::from_secs(every));
        let schedule = Schedule {
            dir,
            every,
            vouches,
        };
        tasks.spawn("snapshots", |stop| snapshots::run(source, schedule, stop));
    }
    let commanded = control::Node {
        source,
        meta: Arc::clone(&meta),
    };
    tasks.spawn("control", |stop| control::run(commands, commanded, stop));
    tasks.spawn("sync", |stop| async move { Ok(sync.run(stop).await?) });
    if let Some(simulate) = config.simulate {
        let seed = data_dir.seed().unwrap_or(simulate.seed);
        let (chain, handle, params) = (chain.clone(), handle.clone(), config.chain.clone());
        tasks.spawn("simulate", move |stop| {
            simulate::run(
                simulate.interval,
                seed,
                params,
                chain,
                handle,
                mempool,
                stop,
            )
        });
    }
    info!("open");

    let result = tasks.finish(config.stop_timeout).await;
    blocking(move || {
        chain.close();
        if let Some(index) = &index {
            index.flush()?;
        }
        headers.flush()?;
        let indexed = indexed_height(index.as_ref()).saturating_sub(indexed_from);
        record_stop(&meta, indexed);
        drop(data_dir);
        Ok(())
    })
    .await?;
    info!("stopped");
    result
}

/// Prints the digest of the index rows as hex. The node must not be running.
///
/// # Errors
/// When the data directory is in use or its index cannot be read.
pub fn digest(config: &Config, mut out: impl Write) -> anyhow::Result<()> {
    let seed = config.simulate.map(|simulate| simulate.seed);
    let data_dir = DataDir::open(&config.data_dir, &config.chain, seed)?;
    let index = Index::open(&data_dir.index(), &config.index, &config.chain)?;
    let tip = *index.tip().borrow();
    match tip {
        Some(tip) => writeln!(
            out,
            "{} {} {}",
            hex::encode(index.digest()?),
            tip.height,
            tip.hash
        )?,
        None => anyhow::bail!("the index is empty"),
    }
    for (family, rows) in index.row_counts()? {
        writeln!(out, "{family} {rows}")?;
    }
    Ok(())
}

fn open_meta(root: &std::path::Path) -> anyhow::Result<MetaStore> {
    let (meta, opened) = MetaStore::open(root)?;
    // Statistics are no reason not to start.
    if let Err(err) = meta.record_start(now()) {
        warn!(%err, "the start could not be recorded");
    }
    info!(
        peer_id = %meta.peer_id(),
        starts = meta.run_stats().starts,
        recovered = matches!(opened, Opened::Recovered { .. }),
        "metadata opened"
    );
    Ok(meta)
}

/// Records a clean stop and how many blocks were indexed in this run.
fn record_stop(meta: &MetaStore, blocks_indexed: u64) {
    let recorded = meta
        .add_blocks_indexed(blocks_indexed)
        .and_then(|_| meta.record_stop(now()))
        .and_then(|_| meta.flush());
    if let Err(err) = recorded {
        warn!(%err, "the stop could not be recorded");
    }
}

fn indexed_height(index: Option<&Index>) -> u64 {
    index
        .and_then(|index| *index.tip().borrow())
        .map_or(0, |tip| tip.height.into())
}

/// Script checks get all processors but one, which the kernel's own thread uses.
pub fn script_threads() -> u8 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    u8::try_from(cores.saturating_sub(1).clamp(1, 15)).unwrap_or(15)
}

/// Remembers the peers that the node talks to, once a minute.
async fn record_peers(
    meta: Arc<MetaStore>,
    status: Arc<dyn NodeStatus>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut interval = tokio::time::interval(std::time::Duration::from_secs(60));
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = interval.tick() => {}
        }
        let (meta, peers) = (Arc::clone(&meta), status.report().peers);
        let recorded = tokio::task::spawn_blocking(move || {
            peers
                .iter()
                // Where an inbound peer can be reached is not known.
                .filter(|peer| peer.kind != "inbound")
                .try_for_each(|peer| meta.record_peer(&peer.addr, &peer.user_agent, now()))
        })
        .await?;
        // Known peers are rebuilt by themselves; losing some is no reason to stop.
        if let Err(err) = recorded {
            warn!(%err, "known peers could not be recorded");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a thread panicked")?
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
