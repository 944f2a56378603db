//! The command line of a User Mode Linux guest.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::kernel::Kernel;
use super::task::Share;

/// The guest's terminal for a shell: its second console, which is our standard input and output.
pub(crate) const TERMINAL: &str = "/dev/tty1";

/// The guest. Its console goes to the standard output of the command.
pub(crate) fn command(
    kernel: &Kernel,
    program: &Path,
    share: &Share,
    memory: u32,
    disk: Option<&Path>,
    shell: bool,
) -> Result<Command> {
    let mut command = Command::new(&kernel.file);
    if let Some(library) = &kernel.preload {
        command.env("LD_PRELOAD", library);
    }
    command.arg(format!("mem={memory}M"));
    command.args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "panic=-1"]);
    // Where it keeps the file that names its process; goes with the share.
    command.arg(format!("uml_dir={}", share.path().display()));
    if let Some(disk) = disk {
        command.arg(format!("ubd0={}", word(disk)?));
    }
    command.args(["con=null", "con0=null,fd:1"]);
    if shell {
        command.arg("con1=fd:0");
    }
    command.arg(format!("init={}", word(program)?));
    let share = word(share.path())?;
    command.args(["--", "vm-guest", "hostfs", &share, &share]);
    Ok(command)
}

/// A path as a word of a kernel's command line, which knows double quotes and no escapes
/// (`Documentation/admin-guide/kernel-parameters.rst`).
fn word(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\n']));
    let text = text.ok_or_else(|| {
        anyhow::anyhow!("{} cannot be passed to a kernel: it has a quote or is no UTF-8", path.display())
    })?;
    Ok(if text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(word(Path::new("/a/b")).unwrap(), "/a/b");
        assert_eq!(word(Path::new("/a b")).unwrap(), "\"/a b\"");
        assert!(word(Path::new("/a\"b")).is_err());
    }
}
