//! The life of a layer in one process: microseconds an operation.

use std::time::Instant;

use anyhow::{Result, anyhow};
use layerstack::LayerId;
use layerstack::layers::{Layers, MountRequest};
use layerstack::options::Options;

/// Microseconds an operation: the median where one runs at a time, the time of all divided by their number where several
/// do.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Cycle {
    create: f64,
    mount: f64,
    unmount: f64,
    remove: f64,
}

/// Creates, mounts, unmounts and removes `count` layers on one parent, shared among `threads`.
pub(crate) fn run(layers: &Layers, count: u32, threads: u32) -> Result<Cycle> {
    let base = LayerId::new("base")?;
    if !layers.contains(&base)? {
        layers.create(&base, None, &Options::new())?;
        layers.seal(&base)?;
    }
    let ids =
        (0..count).map(|number| LayerId::new(format!("layer{number}"))).collect::<Result<Vec<_>, _>>()?;
    let mount = MountRequest::new().persistent();
    let each = |work: &(dyn Fn(&LayerId) -> layerstack::Result<()> + Sync)| match threads {
        1 => one_at_a_time(&ids, work),
        _ => several_at_once(&ids, threads, work),
    };
    Ok(Cycle {
        create: each(&|id| layers.create(id, Some(&base), &Options::new()))?,
        mount: each(&|id| layers.mount(id, &mount).map(drop))?,
        unmount: each(&|id| layers.unmount(id, None))?,
        remove: each(&|id| layers.remove(id))?,
    })
}

fn one_at_a_time(ids: &[LayerId], work: &dyn Fn(&LayerId) -> layerstack::Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    for id in ids {
        let start = Instant::now();
        work(id)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().ok_or_else(|| anyhow!("no layers"))
}

fn several_at_once(
    ids: &[LayerId],
    threads: u32,
    work: &(dyn Fn(&LayerId) -> layerstack::Result<()> + Sync),
) -> Result<f64> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = ids
            .chunks(ids.len().div_ceil(threads as usize).max(1))
            .map(|share| scope.spawn(move || share.iter().try_for_each(work)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            Ok::<_, anyhow::Error>(thread.join().map_err(|_| anyhow!("a thread failed"))??)
        })
    })?;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let count = ids.len() as f64;
    Ok(start.elapsed().as_secs_f64() * 1e6 / count)
}
