//! The namespaces around a guest, in which everything of a run ends with it.
//!
//! The session is process 1 of a namespace of processes: when it ends, however it ends, the kernel kills whatever of the
//! guest is still there, the table of mounts goes with the last of them, and with that the memory that holds the run's
//! files. The session in turn is killed when this process ends, however it ends (`PR_SET_PDEATHSIG`, prctl(2)).

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Result};

use super::{GUEST_FAILED, Order};
use crate::process;

/// This program again, as a session in namespaces of its own.
pub(crate) fn command(order: &Order) -> Result<Command> {
    let program = std::env::current_exe().context("failed to find this program's own file")?;
    let mut command = Command::new(needed("setpriv")?);
    command.args(["--pdeathsig", "KILL", "--"]).arg(needed("unshare")?);
    if !process::is_root() {
        // Mounting takes root, be it the root of a namespace of users.
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "--"]);
    command.arg(program).arg("vm-session").arg(serde_json::to_string(order)?);
    Ok(command)
}

fn needed(program: &str) -> Result<std::path::PathBuf> {
    process::find(program).with_context(|| {
        format!("{program} is missing; get it with: apt-get install --no-install-recommends util-linux")
    })
}

/// The session's exit code as ours; a session that was killed is a guest that failed.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        eprintln!("error: the guest's session was ended by signal {signal}");
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(GUEST_FAILED))
}
