//! `cargo xtask vm` as its users see it. Each test boots a guest, so they run on demand: `cargo xtask test` does, or
//! `cargo test -p xtask --test vm -- --ignored`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn vm(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("vm").args(words).stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    vm(words).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[ignore = "boots a guest"]
fn output_and_exit_code_are_the_commands() {
    let output = run(&["--", "sh", "-c", "echo out; echo err >&2; id -u; exit 7"]);
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(7), "out\n0\n"),
        "{}",
        stderr(&output)
    );
    assert_eq!(stderr(&output).lines().last(), Some("err"));

    let output = run(&["--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(output.status.code(), Some(128 + 9));
    let output = run(&["--", "/no/such/program"]);
    assert_eq!(output.status.code(), Some(127));
    assert!(stderr(&output).contains("failed to start /no/such/program"), "{}", stderr(&output));
}

#[test]
#[ignore = "boots a guest"]
fn output_comes_as_it_is_written_and_whole() {
    let output = run(&["--", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end"]);
    let text = stdout(&output);
    assert_eq!(text.len(), 3_000_000 + "\nend\n".len());
    assert!(text.ends_with("x\nend\n"));

    let mut child = vm(&["--", "sh", "-c", "echo first; sleep 1000"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(line, "first\n");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "boots a guest"]
fn the_guest_has_the_hosts_files_and_what_it_writes_goes_with_it() {
    let here = env!("CARGO_MANIFEST_DIR");
    let name = format!("written-by-a-guest-{}", std::process::id());
    let script =
        format!("pwd; cat Cargo.toml; echo x > {name}; echo y > /tmp/{name}; cat {name} /tmp/{name}");
    let output = vm(&["--", "sh", "-c", &script]).current_dir(here).output().unwrap();
    let manifest = fs::read_to_string(Path::new(here).join("Cargo.toml")).unwrap();
    assert_eq!(stdout(&output), format!("{here}\n{manifest}x\ny\n"), "{}", stderr(&output));
    assert!(!Path::new(here).join(&name).exists());
    assert!(!Path::new("/tmp").join(&name).exists());
}

#[test]
#[ignore = "boots a guest"]
fn a_folder_in_tmp_is_there_too() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    fs::write(folder.path().join("file"), "content").unwrap();
    let output = vm(&["--", "cat", "file"]).current_dir(&folder).output().unwrap();
    assert_eq!(stdout(&output), "content", "{}", stderr(&output));
}

#[test]
#[ignore = "boots a guest"]
fn the_kernel_loads_modules_by_itself() {
    let script = "set -e; truncate -s 400M image; mkfs.ext4 -q image; mount -o loop image /mnt; \
                  grep -c ' /mnt ext4 ' /proc/mounts; test -c /dev/mapper/control";
    let output = vm(&["--", "sh", "-c", script]).current_dir("/tmp").output().unwrap();
    assert_eq!(stdout(&output), "1\n", "{}", stderr(&output));
    assert!(output.status.success());
}

#[test]
#[ignore = "boots a guest"]
fn a_panic_is_an_error_with_the_consoles_end() {
    let started = Instant::now();
    let output = run(&["--", "sh", "-c", "echo before; echo c > /proc/sysrq-trigger; sleep 1000"]);
    assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
    assert_eq!(stdout(&output), "before\n");
    let text = stderr(&output);
    assert!(
        text.contains("error: the guest died") && text.contains("the end of the guest's console"),
        "{text}"
    );
    assert!(text.contains("Kernel panic - not syncing: sysrq triggered crash"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
#[ignore = "boots a guest"]
fn a_time_limit_ends_the_guest() {
    let started = Instant::now();
    let output = run(&["--timeout", "5", "--", "sh", "-c", "echo started; sleep 1000"]);
    assert_eq!(output.status.code(), Some(124));
    assert_eq!(stdout(&output), "started\n");
    assert!(stderr(&output).contains("after 5 seconds"), "{}", stderr(&output));
    assert!((5..30).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[test]
#[ignore = "boots a guest"]
fn what_is_no_kernel_is_refused() {
    let output = run(&["--kernel", "/etc/passwd", "--", "true"]);
    assert!(stderr(&output).contains("/etc/passwd is no kernel"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1));
}

/// The processes below one, itself left out.
fn descendants(of: u32) -> BTreeSet<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // After the name in parentheses: the state, the parent (proc_pid_stat(5)).
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (process, parent)));
    }
    let mut found = BTreeSet::from([of]);
    loop {
        let more: Vec<u32> =
            parents.iter().filter(|(_, parent)| found.contains(parent)).map(|pair| pair.0).collect();
        let before = found.len();
        found.extend(more);
        if found.len() == before {
            found.remove(&of);
            return found;
        }
    }
}

fn is_alive(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
#[ignore = "boots a guest"]
fn a_run_that_is_killed_leaves_nothing() {
    for signal in ["KILL", "TERM", "INT"] {
        // Where a shell runs this in the background, SIGINT is ignored, and would be by the child too.
        let mut child = Command::new("env")
            .args(["--default-signal=INT,TERM", env!("CARGO_BIN_EXE_xtask"), "vm", "--"])
            .args(["sh", "-c", "echo started; sleep 1000"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert_eq!(line, "started\n");
        let processes = descendants(child.id());
        assert!(processes.len() > 3, "a guest has several: {processes:?}");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains("layerstack-vm"), "a mount of the run is seen outside of it: {mounts}");
        let kill =
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        child.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while processes.iter().any(|process| is_alive(*process)) {
            assert!(Instant::now() < deadline, "{signal}: some of {processes:?} are still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
#[ignore = "boots a guest"]
fn an_ordinary_user_is_root_in_it() {
    let home = tempfile::tempdir_in("/tmp").unwrap();
    let mut command = if rustix::process::geteuid().is_root() {
        // What root has built may lie where nobody else can look.
        let program = home.path().join("xtask");
        fs::copy(env!("CARGO_BIN_EXE_xtask"), &program).unwrap();
        std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(program);
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_xtask"))
    };
    command.env("HOME", home.path()).env_remove("XDG_CACHE_HOME").current_dir("/").stdin(Stdio::null());
    // The second is a setuid program.
    let script = "id -u; mount -t tmpfs -o size=1M own /mnt && grep -c '^own /mnt tmpfs' /proc/mounts";
    let output = command.args(["vm", "--", "sh", "-c", script]).output().unwrap();
    assert_eq!(stdout(&output), "0\n1\n", "{}", stderr(&output));
}

#[test]
#[ignore = "boots a guest"]
fn an_emulated_machine_does_the_same() {
    let output = run(&["--on", "qemu", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(7), "out\n"), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().last(), Some("err"));

    let script = "truncate -s 100M /tmp/image; mkfs.ext4 -q -F /tmp/image; mount -o loop /tmp/image /mnt; \
                  grep -c ' /mnt ext4 ' /proc/mounts; test -c /dev/mapper/control";
    let output = run(&["--on", "qemu", "--", "sh", "-c", script]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "1\n"), "{}", stderr(&output));

    let output = run(&["--on", "qemu", "--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 1000"]);
    assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("Kernel panic - not syncing: sysrq triggered crash"),
        "{}",
        stderr(&output)
    );
}
