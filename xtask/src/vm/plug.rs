//! A plug that can be pulled: the power goes when a stream ends.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a stream has ended.
#[derive(Debug)]
pub(crate) struct Plug(Arc<AtomicBool>);

impl Plug {
    /// Pulled when the stream ends; what comes in it until then means nothing.
    pub(crate) fn of(mut stream: impl Read + Send + 'static) -> Self {
        let pulled = Arc::new(AtomicBool::new(false));
        let plug = Self(pulled.clone());
        std::thread::spawn(move || {
            // A stream that cannot be read has ended too.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
            pulled.store(true, Ordering::Release);
        });
        plug
    }

    pub(crate) fn is_pulled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plug_is_pulled_when_the_stream_ends() {
        let (reader, writer) = std::io::pipe().unwrap();
        let plug = Plug::of(reader);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!plug.is_pulled());
        drop(writer);
        let start = std::time::Instant::now();
        while !plug.is_pulled() && start.elapsed().as_secs() < 10 {
            std::thread::yield_now();
        }
        assert!(plug.is_pulled());
    }
}
