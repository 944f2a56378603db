//! What the session and the guest tell each other, in files of a directory that both see: the share.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The task itself, as JSON.
const TASK: &str = "task";
/// What the command wrote on its standard output.
pub(crate) const STDOUT: &str = "stdout";
/// What the command wrote on its standard error.
pub(crate) const STDERR: &str = "stderr";
/// Grows by a byte every second in which the guest lives.
pub(crate) const PULSE: &str = "pulse";
/// The command's exit code; appears as a whole, when all else is written.
const CODE: &str = "code";
/// Why the guest could not run the command.
const ERROR: &str = "error";

/// What the guest is to do.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Task {
    /// The command and its arguments.
    pub(crate) command: Vec<OsString>,
    /// The command's environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The command's working directory.
    pub(crate) folder: PathBuf,
    /// A terminal device of the guest that the command talks to, instead of the files of the share.
    pub(crate) terminal: Option<PathBuf>,
    /// Directories that stay visible where the guest has a directory of its own.
    pub(crate) keep: Vec<PathBuf>,
    /// The kernel's modules: a directory named by its release.
    pub(crate) modules: Option<PathBuf>,
    /// A busybox, which loads modules.
    pub(crate) busybox: Option<PathBuf>,
}

/// The share as either side sees it.
#[derive(Debug, Clone)]
pub(crate) struct Share(PathBuf);

impl Share {
    /// The share that is at a path.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A file of it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Fills it for the guest.
    pub(crate) fn prepare(&self, task: &Task) -> Result<()> {
        for name in [STDOUT, STDERR, PULSE] {
            fs::write(self.file(name), "").with_context(|| format!("failed to make {name}"))?;
        }
        fs::write(self.file(TASK), serde_json::to_vec(task)?).context("failed to write the task")
    }

    /// What the guest is to do.
    pub(crate) fn task(&self) -> Result<Task> {
        let text = fs::read(self.file(TASK)).context("failed to read the task")?;
        serde_json::from_slice(&text).context("failed to understand the task")
    }

    /// Notes how the command ended, or why it did not start.
    pub(crate) fn finish(&self, end: &Result<u8>) -> Result<()> {
        let (name, text) = match end {
            Ok(code) => (CODE, code.to_string()),
            Err(error) => (ERROR, format!("{error:#}")),
        };
        let half = self.file("half");
        fs::write(&half, text)
            .and_then(|()| fs::rename(&half, self.file(name)))
            .context("failed to write the end")
    }

    /// How the command ended; none as long as the guest has not said so.
    pub(crate) fn end(&self) -> Result<Option<u8>> {
        if let Ok(reason) = fs::read_to_string(self.file(ERROR)) {
            anyhow::bail!("the guest could not run the command: {reason}");
        }
        match fs::read_to_string(self.file(CODE)) {
            Ok(text) => Ok(Some(text.parse().context("the guest wrote an exit code that is none")?)),
            Err(_) => Ok(None),
        }
    }

    /// Changes as long as the guest lives.
    pub(crate) fn pulse(&self) -> u64 {
        fs::metadata(self.file(PULSE)).map_or(0, |data| data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_understand_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let share = Share::at(folder.path());
        let task = Task {
            command: vec!["echo".into(), "a b".into()],
            environment: vec![("A".into(), "=\n".into())],
            folder: "/work".into(),
            terminal: None,
            keep: vec!["/tmp/x".into()],
            modules: None,
            busybox: None,
        };
        share.prepare(&task).unwrap();
        assert_eq!(share.task().unwrap(), task);
        assert_eq!(share.end().unwrap(), None);
        share.finish(&Ok(7)).unwrap();
        assert_eq!(share.end().unwrap(), Some(7));
        share.finish(&Err(anyhow::anyhow!("no overlay").context("failed to mount"))).unwrap();
        let error = share.end().unwrap_err().to_string();
        assert_eq!(error, "the guest could not run the command: failed to mount: no overlay");
    }
}
