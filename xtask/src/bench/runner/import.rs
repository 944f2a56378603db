//! Unpacking layers.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Result, ensure};
use layerstack::LayerId;
use layerstack::apply::ApplyRequest;
use layerstack::layers::Layers;
use layerstack::options::Options;
use sha2::{Digest as _, Sha256};

/// Imports tars as layers, each on top of the one before.
pub(crate) fn run(layers: &Layers, digest: bool, tars: &[&str]) -> Result<()> {
    let mut parent: Option<LayerId> = None;
    for (tar, number) in tars.iter().zip(0..) {
        let id = LayerId::new(format!("layer{number}"))?;
        let mut file = File::open(tar)?;
        let import = |tar: &mut dyn Read| {
            layers.import(&id, parent.as_ref(), &Options::new(), tar, ApplyRequest::new())
        };
        if digest {
            let mut hashed = Hashed::new(file);
            import(&mut hashed)?;
            ensure!(hashed.finish()?.len() == 32, "SHA-256 has 32 bytes");
        } else {
            import(&mut file)?;
        }
        parent = Some(id);
    }
    Ok(())
}

/// A file that is read and hashed on a thread of its own, ahead of the one that takes its bytes.
struct Hashed {
    chunks: std::sync::mpsc::Receiver<io::Result<Arc<[u8]>>>,
    current: Arc<[u8]>,
    at: usize,
    hasher: JoinHandle<Vec<u8>>,
}

/// How much is handed on at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// How many chunks the reader may be ahead.
const AHEAD: usize = 16;

impl Hashed {
    fn new(file: File) -> Self {
        let (sender, chunks) = sync_channel(AHEAD);
        let hasher = std::thread::spawn(move || hash(file, &sender));
        Self { chunks, current: Arc::new([]), at: 0, hasher }
    }

    /// The SHA-256 of all.
    fn finish(self) -> Result<Vec<u8>> {
        drop(self.chunks);
        self.hasher.join().map_err(|_| anyhow::anyhow!("the hashing thread failed"))
    }
}

fn hash(mut file: File, sender: &SyncSender<io::Result<Arc<[u8]>>>) -> Vec<u8> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                // Handed on before it is hashed, so that the other thread has something to do meanwhile. Nobody
                // takes it once the tar's end was found.
                let _ = sender.send(Ok(buffer[..length].into()));
                hasher.update(&buffer[..length]);
            }
            Err(error) => {
                let _ = sender.send(Err(error));
                break;
            }
        }
    }
    hasher.finalize().to_vec()
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            match self.chunks.recv() {
                Ok(chunk) => self.current = chunk?,
                Err(_) => return Ok(0),
            }
            self.at = 0;
        }
        let length = buffer.len().min(self.current.len() - self.at);
        buffer[..length].copy_from_slice(&self.current[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}
