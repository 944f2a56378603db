//! The driver held to the contract.

use std::process::ExitCode;

fn main() -> ExitCode {
    layerstack_conformance::main(&layerstack_btrfs::REGISTRATION)
}
