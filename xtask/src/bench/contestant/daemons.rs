//! Peers that are daemons: started for the run, with all that they own on the store, and ended after it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Contestant, Input, missing};
use crate::bench::oci::TAG;
use crate::bench::store::Store;
use crate::process;

/// A running daemon; ended when dropped.
#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    /// Starts it and waits until `ready` succeeds.
    fn start(command: &mut Command, log: &Path, ready: impl Fn() -> Command) -> Result<Self> {
        let output = File::create(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("failed to start {}", process::line(command)))?;
        let mut daemon = Self(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !process::succeeds(&mut ready()) {
            if daemon.0.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(log)?;
                bail!("the daemon does not answer; its last words: {}", log.lines().last().unwrap_or("none"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Politely, so that it ends its own children and mounts; not forever.
        let _ = process::output(Command::new("kill").arg(self.0.id().to_string()));
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// containerd with its overlayfs snapshotter, driven by `ctr`.
#[derive(Debug)]
pub(crate) struct Containerd {
    directory: PathBuf,
    /// Ends containerd when dropped.
    _daemon: Daemon,
}

impl Containerd {
    pub(super) fn start(store: &Store) -> Result<Box<dyn Contestant>> {
        Self::open(store).map(|containerd| Box::new(containerd) as _)
    }

    /// Starts containerd on the store.
    pub(crate) fn open(store: &Store) -> Result<Self> {
        if process::find("containerd").is_none() || process::find("ctr").is_none() {
            bail!("{}", missing("containerd"));
        }
        let directory = store.directory("containerd")?;
        let shown = directory.display();
        let config = directory.join("config.toml");
        fs::write(
            &config,
            format!(
                "version = 2\nroot = \"{shown}/root\"\nstate = \"{shown}/state\"\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\", \
                 \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\", \
                 \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.aufs\"]\n\
                 [grpc]\naddress = \"{shown}/socket\"\n[ttrpc]\naddress = \"{shown}/socket.ttrpc\"\n"
            ),
        )?;
        let mut command = Command::new("containerd");
        let ready = || ctr(&directory, &["version"]);
        let daemon = Daemon::start(command.arg("--config").arg(config), &directory.join("log"), ready)?;
        Ok(Self { directory, _daemon: daemon })
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Runs `ctr`.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<String> {
        process::output(&mut ctr(&self.directory, arguments))
    }
}

fn ctr(directory: &Path, arguments: &[&str]) -> Command {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(directory.join("socket")).args(["--namespace", "bench"]).args(arguments);
    ctr
}

impl Contestant for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn remark(&self) -> &'static str {
        "a call of a running daemon; computes SHA-256"
    }

    fn is_child(&self) -> bool {
        false
    }

    fn prepare(&mut self, input: &Input) -> Result<()> {
        let archive = self.directory.join("oci.tar");
        let mut tar = Command::new("tar");
        tar.args(["--create", "--file"]).arg(&archive).arg("--directory").arg(&input.image.layout).arg(".");
        process::output(&mut tar)?;
        let name = archive.display().to_string();
        self.call(&["images", "import", "--no-unpack", "--base-name", TAG, &name])?;
        fs::remove_file(archive).context("failed to remove the archive")
    }

    fn unpack(&mut self, input: &Input) -> Result<()> {
        self.call(&["snapshots", "unpack", &format!("sha256:{}", input.image.manifest)]).map(drop)
    }

    fn clear(&mut self, _input: &Input) -> Result<()> {
        self.call(&["images", "rm", "--sync", &format!("{TAG}:{TAG}")]).map(drop)
    }
}

/// Docker with its overlay2 driver.
#[derive(Debug)]
pub(super) struct Docker {
    directory: PathBuf,
    archive: Option<PathBuf>,
    /// Ends the daemon when dropped.
    _daemon: Daemon,
}

impl Docker {
    pub(super) fn start(store: &Store) -> Result<Box<dyn Contestant>> {
        if process::find("dockerd").is_none() || process::find("docker").is_none() {
            bail!("{}", missing("docker.io"));
        }
        let directory = store.directory("docker")?;
        let config = directory.join("config.json");
        fs::write(&config, "{}")?;
        let mut command = Command::new("dockerd");
        command.arg("--config-file").arg(config);
        command.arg("--host").arg(format!("unix://{}", directory.join("socket").display()));
        command.arg("--data-root").arg(directory.join("data")).arg("--exec-root").arg(directory.join("exec"));
        command.arg("--pidfile").arg(directory.join("pid")).args(["--storage-driver", "overlay2"]);
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false"]);
        command.args(["--ip-masq=false", "--userland-proxy=false", "--log-level=warn"]);
        let ready = || docker(&directory, &["version"]);
        let daemon = Daemon::start(&mut command, &directory.join("log"), ready)?;
        Ok(Box::new(Self { directory, archive: None, _daemon: daemon }))
    }
}

fn docker(directory: &Path, arguments: &[&str]) -> Command {
    let mut docker = Command::new("docker");
    docker.arg("--host").arg(format!("unix://{}", directory.join("socket").display())).args(arguments);
    docker
}

impl Contestant for Docker {
    fn name(&self) -> &'static str {
        "docker load"
    }

    fn remark(&self) -> &'static str {
        "a call of a running daemon; computes SHA-256, copies the archive, keeps tar-split"
    }

    fn is_child(&self) -> bool {
        false
    }

    fn prepare(&mut self, input: &Input) -> Result<()> {
        let directory = self.directory.join("archive");
        self.archive = Some(input.image.docker_archive(&input.set, &directory)?);
        Ok(())
    }

    fn unpack(&mut self, _input: &Input) -> Result<()> {
        let archive = self.archive.as_ref().context("no archive was prepared")?.display().to_string();
        process::output(&mut docker(&self.directory, &["load", "--quiet", "--input", &archive])).map(drop)
    }

    fn clear(&mut self, _input: &Input) -> Result<()> {
        process::output(&mut docker(&self.directory, &["rmi", "--force", &format!("{TAG}:{TAG}")]))?;
        fs::remove_dir_all(self.directory.join("archive")).context("failed to remove the archive")
    }
}
