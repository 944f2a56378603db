//! The data sets, made once and kept in the user's cache. They are the same on every machine, A excepted.
//!
//! | set | what it is |
//! |---|---|
//! | A | an image of five layers from Debian's packages; see `debian` |
//! | B | one layer, 100,000 files of 16 to 1500 bytes in 1,000 directories |
//! | C | one layer, one file of 1 GiB, half random, half text |
//! | D | 400 layers of 10 small files; the runner makes them itself |

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::debian;
use crate::workspace;

/// Changes with what the sets are, so that older ones are made anew.
const VERSION: &str = "bench-1";

/// Where the sets are kept.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

/// One set: layer tars, the lowest first.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) layers: Vec<PathBuf>,
}

impl Directory {
    pub(crate) fn open() -> Result<Self> {
        let path = workspace::cache()?.join(VERSION);
        fs::create_dir_all(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self(path))
    }

    /// A set by name, made if it is not there yet.
    pub(crate) fn set(&self, name: &str) -> Result<Set> {
        let layers = match name {
            "A" => debian::layers(&self.0)?,
            "B" => vec![self.tar("B.tar", small_files)?],
            "C" => vec![self.tar("C.tar", large_file)?],
            _ => bail!("no data set \"{name}\" (there are: A, B, C)"),
        };
        Ok(Set { layers })
    }

    fn tar(&self, name: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<PathBuf> {
        let path = self.0.join(name);
        if !path.exists() {
            let half = self.0.join(format!("{name}.half"));
            let written = (|| {
                let mut out = BufWriter::with_capacity(1 << 20, File::create(&half)?);
                write(&mut out)?;
                out.flush()?;
                fs::rename(&half, &path)
            })();
            written.with_context(|| format!("failed to make {}", path.display()))?;
        }
        Ok(path)
    }
}

impl Set {
    /// Reads all tars, so that they are in memory when somebody is measured reading them.
    pub(crate) fn warm(&self) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        for layer in &self.layers {
            let mut file = File::open(layer)?;
            while file.read(&mut buffer)? > 0 {}
        }
        Ok(())
    }
}

fn small_files(out: &mut dyn Write) -> io::Result<()> {
    const DIRECTORIES: u32 = 1000;
    const FILES: u32 = 100;
    let mut random = Random(1);
    let mut content = [0; 1500];
    for directory in 0..DIRECTORIES {
        out.write_all(&header(&format!("d{directory:03}/"), b'5', 0o755, 0))?;
        for file in 0..FILES {
            let size = 16 + random.below(1485);
            random.fill(&mut content[..size]);
            out.write_all(&header(&format!("d{directory:03}/f{file:02}"), b'0', 0o644, size as u64))?;
            out.write_all(&content[..size])?;
            out.write_all(&[0; 512][..size.next_multiple_of(512) - size])?;
        }
    }
    out.write_all(&[0; 1024])
}

fn large_file(out: &mut dyn Write) -> io::Result<()> {
    const SIZE: u64 = 1 << 30;
    const TEXT: &[u8] = b"the quick brown fox jumps over the lazy dog 0123456789, and so on\n";
    let mut random = Random(2);
    let mut noise = vec![0; 1 << 20];
    let text: Vec<u8> = TEXT.iter().copied().cycle().take(1 << 20).collect();
    out.write_all(&header("file", b'0', 0o644, SIZE))?;
    for _ in 0..SIZE / (2 << 20) {
        random.fill(&mut noise);
        out.write_all(&noise)?;
        out.write_all(&text)?;
    }
    out.write_all(&[0; 1024])
}

/// A header of a tar as POSIX.1-1988 has it (ustar).
fn header(name: &str, kind: u8, mode: u32, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    // 1 January 2024.
    put(136, &format!("{:011o}", 1_704_067_200));
    put(148, "        ");
    put(257, "ustar\x0000");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// A generator of numbers that look random and are the same each time: splitmix64 (Steele, Lea, Flood, 2014).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The files of a directory, sorted by name.
pub(crate) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("failed to list {}", directory.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let mut bytes = header("d/", b'5', 0o755, 0).to_vec();
        bytes.extend(header("d/f", b'0', 0o644, 3));
        bytes.extend(b"abc");
        bytes.extend([0; 509 + 1024]);
        let mut tar = Command::new("tar");
        let tar = tar.args(["-tvf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut tar = tar.spawn().unwrap();
        tar.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listed = tar.wait_with_output().unwrap();
        assert!(listed.status.success());
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("-rw-r--r-- 0/0               3 "), "{listed}");
    }
}
