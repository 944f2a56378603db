//! One layer's bytes on their way from the archive: read, hashed, inflated, hashed again, each on a thread of its own,
//! with bounded queues between them.
//!
//! A stage holds four chunks of 256 KiB at most, so a layer takes a few MiB of memory whatever its size.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, Scope};

use layerstack::{Error, ErrorKind, Result};

use crate::digest::{Digest, Hasher};
use crate::image::Compression;
use crate::inflate::Inflate;
use crate::progress::{Progress, Stage, Step, advance};
use crate::source::Member;

const CHUNK: usize = 256 << 10;
const QUEUE: usize = 4;

type Chunk = io::Result<Vec<u8>>;

/// The plain tar of a layer, as it comes out of the last stage. Shared, so that whoever unpacks it and whoever checks
/// the digests afterwards can both read from it.
#[derive(Debug)]
pub(super) struct Stream {
    source: Mutex<Chunks>,
    found: Found,
}

/// What the stages found; each is set when its stage has seen the last byte.
#[derive(Debug, Default)]
struct Found {
    blob: OnceLock<(Digest, u64)>,
    tar: OnceLock<(Digest, u64)>,
}

/// A digest and a number of bytes for the blob and for the tar in it.
#[derive(Debug, Clone)]
pub(super) struct Digests {
    pub(super) blob: Digest,
    pub(super) blob_size: u64,
    pub(super) tar: Digest,
    pub(super) tar_size: u64,
}

/// How the layer in a file of an archive is compressed.
///
/// # Errors
/// Where the file cannot be read.
pub(super) fn compression(member: &Member) -> Result<Compression> {
    let mut first = Vec::new();
    member
        .clone()
        .take(4)
        .read_to_end(&mut first)
        .map_err(|error| Error::from_io(error, "read").with_path(member.name()))?;
    Ok(Compression::of(&first))
}

/// Runs `work` on the plain tar of a layer. A compressed layer's own bytes go to `keep` meanwhile.
///
/// # Errors
/// What `work` gives; what reading, inflating and writing give reaches `work` as an error of the stream.
pub(super) fn with_stream<T>(
    member: Member,
    compression: Compression,
    keep: Option<&File>,
    progress: &dyn Progress,
    item: &str,
    work: impl FnOnce(&Stream) -> Result<T>,
) -> Result<T> {
    let stream = Stream { source: Mutex::new(Chunks::none()), found: Found::default() };
    thread::scope(|scope| {
        let found = &stream.found;
        let total = member.size();
        let reached = move |done| advance(progress, &Step::new(Stage::Importing, item, done, Some(total)));
        let read = stage(scope, move |out| read(member, keep, out, reached));
        let last = match compression {
            Compression::Plain => stage(scope, move |out| {
                // The blob is the tar: it is hashed once.
                let digest = hash(read, out);
                set(&found.blob, &digest);
                set(&found.tar, &digest);
            }),
            Compression::Gzip | Compression::Zstd => {
                let hashed = stage(scope, move |out| set(&found.blob, &hash(read, out)));
                let inflated = stage(scope, move |out| inflate(hashed, out));
                stage(scope, move |out| set(&found.tar, &hash(inflated, out)))
            }
        };
        *stream.lock() = Chunks::new(last);
        let result = work(&stream);
        // With the last queue gone the stages end, one after the other.
        *stream.lock() = Chunks::none();
        result
    })
}

fn stage<'scope>(
    scope: &'scope Scope<'scope, '_>,
    run: impl FnOnce(&SyncSender<Chunk>) + Send + 'scope,
) -> Receiver<Chunk> {
    let (sender, receiver) = sync_channel(QUEUE);
    scope.spawn(move || run(&sender));
    receiver
}

fn set(cell: &OnceLock<(Digest, u64)>, found: &Option<(Digest, u64)>) {
    if let Some(found) = found {
        cell.get_or_init(|| found.clone());
    }
}

fn read(
    mut source: Member,
    keep: Option<&File>,
    out: &SyncSender<Chunk>,
    reached: impl Fn(u64) -> io::Result<()>,
) {
    let mut done = 0;
    loop {
        let mut chunk = vec![0; CHUNK];
        let chunk = match reached(done).and_then(|()| source.read(&mut chunk)) {
            Ok(0) => return,
            Ok(length) => {
                chunk.truncate(length);
                keep.map_or(Ok(()), |file| file.write_all_at(&chunk, done)).map(|()| chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = chunk.is_err();
        done += chunk.as_ref().map_or(0, Vec::len) as u64;
        if out.send(chunk).is_err() || failed {
            return;
        }
    }
}

/// Passes chunks on and hashes them. None where they did not all come, or nobody wants them.
fn hash(source: Receiver<Chunk>, out: &SyncSender<Chunk>) -> Option<(Digest, u64)> {
    let mut hasher = Hasher::new();
    let mut bytes = 0;
    for chunk in source {
        let failed = chunk.is_err();
        if let Ok(chunk) = &chunk {
            hasher.update(chunk);
            bytes += chunk.len() as u64;
        }
        if out.send(chunk).is_err() || failed {
            return None;
        }
    }
    Some((hasher.finish(), bytes))
}

fn inflate(source: Receiver<Chunk>, out: &SyncSender<Chunk>) {
    let run = || -> io::Result<()> {
        let mut plain = Inflate::new(Chunks::new(source))?;
        loop {
            let mut chunk = vec![0; CHUNK];
            let mut length = 0;
            while length < CHUNK {
                match plain.read(&mut chunk[length..]) {
                    Ok(0) => break,
                    Ok(more) => length += more,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            chunk.truncate(length);
            if length == 0 || out.send(Ok(chunk)).is_err() {
                return Ok(());
            }
        }
    };
    if let Err(error) = run() {
        // Nobody listens any more: then the error is no longer of interest.
        let _ = out.send(Err(error));
    }
}

/// The chunks of a queue as a stream of bytes.
#[derive(Debug)]
struct Chunks {
    queue: Option<Receiver<Chunk>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Chunks {
    fn new(queue: Receiver<Chunk>) -> Self {
        Self { queue: Some(queue), chunk: Vec::new(), at: 0 }
    }

    fn none() -> Self {
        Self { queue: None, chunk: Vec::new(), at: 0 }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            let Some(next) = self.queue.as_ref().and_then(|queue| queue.recv().ok()) else {
                return Ok(0);
            };
            match next {
                Ok(chunk) => {
                    self.chunk = chunk;
                    self.at = 0;
                }
                Err(error) => {
                    // What was cut off must not look as if it had ended well.
                    self.queue = None;
                    return Err(error);
                }
            }
        }
        let length = buffer.len().min(self.chunk.len() - self.at);
        buffer[..length].copy_from_slice(&self.chunk[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

impl Stream {
    fn lock(&self) -> std::sync::MutexGuard<'_, Chunks> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is left and gives the digests.
    ///
    /// # Errors
    /// What reading gives.
    pub(super) fn finish(&self) -> Result<Digests> {
        io::copy(&mut &*self, &mut io::sink()).map_err(|error| Error::from_io(error, "read the layer"))?;
        match (self.found.blob.get(), self.found.tar.get()) {
            (Some((blob, blob_size)), Some((tar, tar_size))) => Ok(Digests {
                blob: blob.clone(),
                blob_size: *blob_size,
                tar: tar.clone(),
                tar_size: *tar_size,
            }),
            _ => Err(Error::new(ErrorKind::Other, "the layer could not be read to its end")),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buffer)
    }
}

/// Compresses what is left of a reader into a file: level 3, the default of zstd, is faster than most disks.
///
/// # Errors
/// What reading or writing gives.
pub(super) fn compress(mut source: impl Read, file: &File) -> io::Result<()> {
    let mut encoder = zstd::stream::write::Encoder::new(file, 3)?;
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.flush()
}
