//! The life of a layer in one process: microseconds an operation.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use layerstack::LayerId;
use layerstack::layers::{Layers, MountRequest};
use layerstack::options::Options;

/// Microseconds an operation.
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
    let shares: Vec<&[LayerId]> = ids.chunks((count / threads).max(1) as usize).collect();
    let micros = |elapsed: Duration| elapsed.as_secs_f64() * 1e6 / f64::from(count);
    let each = |work: &(dyn Fn(&LayerId) -> layerstack::Result<()> + Sync)| -> Result<f64> {
        let start = Instant::now();
        std::thread::scope(|scope| {
            let run =
                |share| move || -> layerstack::Result<()> { <[LayerId]>::iter(share).try_for_each(work) };
            let threads: Vec<_> = shares.iter().map(|share| scope.spawn(run(*share))).collect();
            threads.into_iter().try_for_each(|thread| {
                Ok::<_, anyhow::Error>(thread.join().map_err(|_| anyhow!("a thread failed"))??)
            })
        })?;
        Ok(micros(start.elapsed()))
    };
    let mount = MountRequest::new().persistent();
    Ok(Cycle {
        create: each(&|id| layers.create(id, Some(&base), &Options::new()))?,
        mount: each(&|id| layers.mount(id, &mount).map(drop))?,
        unmount: each(&|id| layers.unmount(id, None))?,
        remove: each(&|id| layers.remove(id))?,
    })
}
