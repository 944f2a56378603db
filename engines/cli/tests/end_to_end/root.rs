//! A root of its own for each test, and the program on it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A root with a driver, beside a directory for files. Unmounts all and removes all when dropped.
pub(crate) struct Root {
    directory: TempDir,
    driver: String,
}

/// Does `test` on a root of each driver that works on this host; says which do not.
pub(crate) fn on_each_driver(test: impl Fn(&Root)) {
    let directory = TempDir::new().unwrap();
    let probe = Root { directory, driver: String::new() };
    let mut command = program();
    let output = command.args(["drivers", "--format", "json", "--root"]).arg(probe.path()).output().unwrap();
    let drivers: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut done = 0;
    for driver in drivers.as_array().unwrap() {
        let name = driver["name"].as_str().unwrap();
        if driver["available"] == "yes" {
            test(&Root { directory: TempDir::new().unwrap(), driver: name.to_owned() });
            done += 1;
        } else {
            println!("not run on {name}: {}", driver["reason"]);
        }
    }
    assert!(done > 0, "no driver works here");
}

/// The program without what a developer's shell may have set for it.
pub(crate) fn program() -> Command {
    // A signal that is ignored stays ignored in a child, and a shell has what it starts in the background ignore SIGINT.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_layerstack")]);
    for variable in ["LAYERSTACK_ROOT", "LAYERSTACK_DRIVER", "LAYERSTACK_CONFIG"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

impl Root {
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// The place of a file beside the root.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The program on this root.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = program();
        command.arg("--root").arg(self.path()).args(["--driver", &self.driver]).args(arguments);
        command
    }

    /// What a command prints, once it succeeded without a word on standard error.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let output = self.command(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let shown: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
        assert!(output.status.success(), "{} on {}: {}: {said}", shown.join(" "), self.driver, output.status);
        assert_eq!(said, "", "{} on {}", shown.join(" "), self.driver);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one line that a command prints.
    pub(crate) fn line<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.lines().count(), 1, "{output}");
        output.trim_end().to_owned()
    }

    /// What a command prints as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["--format", "json"]].concat())).unwrap()
    }

    /// The exit code and the message of a command that fails and prints no result.
    pub(crate) fn fail<S: AsRef<OsStr>>(&self, arguments: &[S]) -> (i32, String) {
        let output = self.command(arguments).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// Runs a command with `bytes` on its standard input.
    pub(crate) fn feed(&self, arguments: &[&str], bytes: &[u8]) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that fails before it has read all closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(bytes);
        child.wait_with_output().unwrap()
    }

    /// Writes a file beside the root.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Asserts that the store finds nothing wrong with itself.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.run(&["check", "--deep"]), "");
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // The newest mount first; lazily, because a failed test may have left something open in it.
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = |line: &&str| {
            line.split(' ').nth(1).is_some_and(|on| Path::new(on).starts_with(self.directory.path()))
        };
        for mount in table.lines().rev().filter(below).filter_map(|line| line.split(' ').nth(1)) {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
    }
}
