//! `warpwright report`: a page about a run.

use std::path::PathBuf;

use super::say;
use crate::telemetry::report;

/// Make an HTML page about a run: loss, learning rate, gradient norm, throughput, time by op
///
/// Reads metrics.jsonl in the run directory, which training writes as it goes, so this works while
/// the run is on, after it was interrupted, and when it is done. The page is one file that needs
/// nothing else: open it in any browser, mail it, keep it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    warpwright report runs/demo\n  \
    warpwright report runs/demo --output demo.html")]
pub struct ReportArgs {
    /// The run directory
    pub run: PathBuf,
    /// Where to write the page [default: report.html in the run directory]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Writes the page and says where it is.
pub fn run(args: ReportArgs) -> anyhow::Result<()> {
    let path = report::write(&args.run, args.output.as_deref())?;
    Ok(say(format_args!("wrote {}", path.display()))?)
}
