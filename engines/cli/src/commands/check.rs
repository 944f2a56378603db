//! `layerstack check`

use layerstack_store::CheckRequest;

use crate::failure::{Done, Failure};
use crate::session::Session;
use crate::text;

/// Look for what does not agree: database, layers, records, mounts; exit code 9 if there is anything
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Put the tar of every layer together again and compare its digest
    #[arg(long)]
    deep: bool,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    let mut request = CheckRequest::default();
    request.deep = args.deep;
    let watch = session.watch()?;
    let findings = store.check(&request, &watch);
    let findings = watch.end("check the store", findings)?;
    session.print(&findings, |out| {
        findings.iter().try_for_each(|finding| writeln!(out, "{}", text::one_line(&finding.to_string())))
    })?;
    if findings.is_empty() { Ok(()) } else { Err(Failure::Findings(findings.len())) }
}
